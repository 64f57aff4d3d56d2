//! Join tokens: made, listed and ended in the group's log, which keeps only the digest of the secret.

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_core::{Clock, Digest, Error, ErrorKind, SystemClock};
use fleet_replication::command::{Action, TokenGrant};
use fleet_store::record::TokenId;
use fleet_store::state::members;

use crate::identity::Identity;
use crate::site::{Site, not_found, read_failed};
use crate::trust::token::JoinToken;

/// How long a token can be used if nobody said otherwise.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(3_600);
/// Longest a token may be usable.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Most nodes one token may admit.
const USES_MAX: u32 = 1_000;
/// Most tokens listed.
const LISTED_MAX: usize = 1_000;

/// Makes a token of the fleet whose root has the digest `root`.
///
/// # Errors
/// `InvalidInput` for another site or a bound that is passed.
pub(crate) async fn create(
    site: &Site,
    identity: &Identity,
    root: Digest,
    request: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Error> {
    let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("create a token: {message}"));
    if !request.site.is_empty() && request.site != site.name() {
        return Err(refused(format!("site `{}` is not here; this version has one site", request.site)));
    }
    let lifetime = lifetime(request.ttl_ms).map_err(refused)?;
    let uses = request.uses.max(1);
    if uses > USES_MAX {
        return Err(refused(format!("a token admits at most {USES_MAX} nodes")));
    }
    let token = JoinToken::generate(root, identity.group_id)?;
    let expires_at = SystemClock.now().saturating_add(lifetime);
    let grant =
        TokenGrant { token: token.id, secret: token.secret_digest(), site: identity.site.clone(), uses, expires_at };
    site.propose(Action::CreateToken(grant)).await?;
    Ok(v1::CreateTokenResponse {
        token: token.to_text().to_string(),
        expires_ms: expires_at.0,
        token_id: token.id.to_string(),
    })
}

/// How long a token lives that was asked for with `ttl_ms`.
fn lifetime(ttl_ms: Option<u64>) -> Result<Duration, String> {
    match ttl_ms.map_or(LIFETIME_DEFAULT, Duration::from_millis) {
        Duration::ZERO => Err("nobody could use a token that lives 0 s".to_owned()),
        long if long > LIFETIME_MAX => Err(format!("a token lives at most {} days", LIFETIME_MAX.as_secs() / 86_400)),
        lifetime => Ok(lifetime),
    }
}

/// The tokens that can still be used.
///
/// # Errors
/// If this node does not lead or the store failed.
pub(crate) async fn list(site: &Site) -> Result<v1::ListTokensResponse, Error> {
    let state = site.current_reader().await?;
    let now = SystemClock.now();
    let mut tokens: Vec<_> = members::tokens(&state, None, LISTED_MAX)
        .map_err(read_failed)?
        .into_iter()
        .filter(|(_, token)| !token.revoked && token.uses_left > 0 && token.expires_at > now)
        .collect();
    tokens.sort_by_key(|(_, token)| token.created_at);
    let tokens = tokens
        .into_iter()
        .map(|(id, token)| v1::Token {
            token_id: id.to_string(),
            site: token.site.to_string(),
            uses_left: token.uses_left,
            expires_ms: token.expires_at.0,
        })
        .collect();
    Ok(v1::ListTokensResponse { tokens })
}

/// Ends the token called `id`.
///
/// # Errors
/// `NotFound` if there is none.
pub(crate) async fn revoke(site: &Site, id: &str) -> Result<v1::RevokeTokenResponse, Error> {
    let token: TokenId = id.parse().map_err(|_| not_found("token", id))?;
    site.propose(Action::RevokeToken { token }).await?;
    Ok(v1::RevokeTokenResponse {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_was_asked_for_and_no_time_is_refused() {
        assert_eq!(lifetime(None), Ok(LIFETIME_DEFAULT));
        assert_eq!(lifetime(Some(1_500)), Ok(Duration::from_millis(1_500)));
        assert!(lifetime(Some(0)).is_err(), "0 must not become the default");
        assert!(lifetime(Some(31 * 86_400_000)).is_err());
    }
}
