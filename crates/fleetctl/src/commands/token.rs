//! `token`: what new nodes join with.

use std::time::Duration;

use clap::Subcommand;
use fleet_api::pb::v1;
use serde_json::json;

use crate::error::Failure;
use crate::input::parse_duration;
use crate::session::Session;
use crate::{render, view};

/// Verbs of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token; it is shown only this once
    Create {
        /// How long it can be used
        #[arg(long, default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
        ttl: Duration,
        /// How many nodes may use it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// Site the nodes go to [default: the site of the node asked]
        #[arg(long)]
        site: Option<String>,
    },
    /// Tokens that can still be used
    List,
    /// End a token
    Revoke {
        /// Id of the token, from `token list`
        id: String,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client();
    match command {
        Command::Create { ttl, uses, site } => {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let request = v1::CreateTokenRequest { ttl_ms: Some(ttl_ms), uses, site: site.unwrap_or_default() };
            let created = session.ask(client.create_token(request)).await?;
            let expires = view::time(created.expires_ms);
            let value = json!({"token": created.token, "expiresAt": expires});
            render::data(session.format, &value, || created.token.clone())?;
            let id = created.token_id;
            render::say(&format!("Token {id} can be used until {}.", expires.unwrap_or_default()));
        }
        Command::List => {
            let tokens = session.ask(client.list_tokens(v1::ListTokensRequest {})).await?.tokens;
            let value = json!({"tokens": tokens.iter().map(view::token).collect::<Vec<_>>()});
            render::data(session.format, &value, || {
                let rows = tokens.iter().map(|token| {
                    let expires = view::time(token.expires_ms).unwrap_or_default();
                    vec![token.token_id.clone(), token.site.clone(), token.uses_left.to_string(), expires]
                });
                render::table(&["TOKEN", "SITE", "USES LEFT", "EXPIRES"], rows)
            })?;
        }
        Command::Revoke { id } => {
            session.ask(client.revoke_token(v1::RevokeTokenRequest { token_id: id.clone() })).await?;
            render::data(session.format, &json!({"tokenId": id}), String::new)?;
            render::say(&format!("Token {id} is ended."));
        }
    }
    Ok(())
}
