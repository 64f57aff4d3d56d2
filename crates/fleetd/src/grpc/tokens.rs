//! Join tokens: made, listed and ended in the group's log, which keeps only the digest of the secret.

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_core::{Clock, Digest, Error, ErrorKind, SiteName, SystemClock, Timestamp};
use fleet_replication::command::{Action, TokenGrant};
use fleet_store::record::{TokenId, TokenRecord};
use fleet_store::state::{members, sites};
use fleet_store::{StateRead, StateReader};

use super::registry::check_gate;
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
/// Tokens read in one go.
const READ_AT_ONCE: usize = 1_000;

/// Makes a token of the fleet whose root has the digest `root`: for this site, or by the registry for one to be founded.
///
/// # Errors
/// `InvalidInput` for a bound that is passed, `FailedPrecondition` for a site whose tokens are made elsewhere.
pub(crate) async fn create(
    site: &Site,
    identity: &Identity,
    root: Digest,
    request: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Error> {
    let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("create a token: {message}"));
    let wanted = wanted_site(&request.site, identity).map_err(refused)?;
    let is_own = wanted == identity.site;
    if !is_own {
        check_unfounded(&site.current_reader().await?, identity, &wanted)?;
    }
    let lifetime = lifetime(request.ttl_ms).map_err(refused)?;
    let uses = request.uses.max(1);
    if uses > USES_MAX {
        return Err(refused(format!("a token admits at most {USES_MAX} nodes")));
    }
    let token = JoinToken::generate(root, identity.group_id)?;
    let expires_at = SystemClock.now().saturating_add(lifetime);
    let grant = TokenGrant { token: token.id, secret: token.secret_digest(), site: wanted, uses, expires_at };
    site.propose(if is_own { Action::CreateToken(grant) } else { Action::GrantFounding(grant) }).await?;
    Ok(v1::CreateTokenResponse {
        token: token.to_text().to_string(),
        expires_ms: expires_at.0,
        token_id: token.id.to_string(),
    })
}

/// The site that a token is asked for; this one if `text` is empty.
fn wanted_site(text: &str, identity: &Identity) -> Result<SiteName, String> {
    if text.is_empty() { Ok(identity.site.clone()) } else { text.parse() }
}

/// Whether this site may make tokens for the founding of `wanted`: it keeps the registry, and that has no such site.
fn check_unfounded(state: &StateReader, identity: &Identity, wanted: &SiteName) -> Result<(), Error> {
    let operation = format!("create a token for site `{wanted}`");
    if let Some(known) = sites::site(state, wanted).map_err(read_failed)? {
        let message = format!("{operation}: that site makes its own, and this is site `{}`", identity.site);
        let next_step = format!("Ask a node there, with `--endpoint`: {}.", known.contacts.join(", "));
        return Err(Error::new(ErrorKind::FailedPrecondition, message).with_next_step(next_step));
    }
    if !identity.keeps_registry() {
        let message = format!("{operation}: this site, `{}`, knows none of that name", identity.site);
        let next_step = format!("To found it, ask a node of site `{}` for the token.", identity.first_site());
        return Err(Error::new(ErrorKind::FailedPrecondition, message).with_next_step(next_step));
    }
    check_gate(state, &operation)
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
    let mut tokens = live(&state, now, READ_AT_ONCE)?;
    tokens.sort_by_key(|(_, token)| token.created_at);
    tokens.truncate(LISTED_MAX);
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

/// Every token that can still be used at `now`, read `at_once` at a time: those that are over are kept among them.
pub(crate) fn live(
    state: &impl StateRead,
    now: Timestamp,
    at_once: usize,
) -> Result<Vec<(TokenId, TokenRecord)>, Error> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = members::tokens(state, after, at_once).map_err(read_failed)?;
        after = page.last().map(|(id, _)| *id);
        let is_last = page.len() < at_once;
        let is_live = |token: &TokenRecord| !token.revoked && token.uses_left > 0 && token.expires_at > now;
        found.extend(page.into_iter().filter(|(_, token)| is_live(token)));
        if is_last {
            return Ok(found);
        }
    }
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
