//! Join tokens: made, used, ended.

use fleet_core::{Digest, SiteName};
use fleet_store::record::{NodeStanding, Payload, Redemption, TokenId, TokenRecord};
use fleet_store::state::members;
use fleet_store::state::tables::{REDEMPTIONS, TOKENS};

use super::node;
use super::scope::{Halt, Scope};
use super::site::check_site;
use super::trust;
use crate::command::{Outcome, Redeeming, Refusal, TokenGrant};

/// Makes a token.
pub(super) fn create(scope: &mut Scope<'_, '_>, grant: &TokenGrant) -> Result<Outcome, Halt> {
    check_site(scope, &grant.site)?;
    keep(scope, grant)
}

/// Keeps a token, whatever site it is for.
pub(super) fn keep(scope: &mut Scope<'_, '_>, grant: &TokenGrant) -> Result<Outcome, Halt> {
    if let Some(known) = members::token(scope.transaction, grant.token)? {
        return match known.secret == grant.secret {
            true => Ok(Outcome::Unchanged),
            false => Err(Refusal::TokenConflict(grant.token).into()),
        };
    }
    let record = TokenRecord {
        secret: grant.secret,
        site: grant.site.clone(),
        uses_left: grant.uses,
        expires_at: grant.expires_at,
        created_at: scope.now,
        revoked: false,
    };
    scope.transaction.put(&TOKENS, &grant.token.0, &record)?;
    Ok(Outcome::Done)
}

/// Ends a token.
pub(super) fn revoke(scope: &mut Scope<'_, '_>, token: TokenId) -> Result<Outcome, Halt> {
    let mut record = members::token(scope.transaction, token)?.ok_or(Refusal::TokenUnknown(token))?;
    if record.revoked {
        return Ok(Outcome::Unchanged);
    }
    record.revoked = true;
    scope.transaction.put(&TOKENS, &token.0, &record)?;
    Ok(Outcome::Done)
}

/// Admits a joiner by its token. Who redeemed with this public key before gets the same answer again, whatever became of
/// the token since, unless the node was removed. A token lets nobody become a node that is known already.
pub(super) fn redeem(scope: &mut Scope<'_, '_>, redeeming: &Redeeming) -> Result<Outcome, Halt> {
    if let Some(known) = members::redemption(scope.transaction, redeeming.public_key)? {
        let removed = members::node(scope.transaction, known.node)?
            .is_some_and(|record| record.standing == NodeStanding::Removed);
        return match removed {
            true => Err(Refusal::NodeRemoved(known.node).into()),
            false => Ok(Outcome::Redeemed { node: known.node, answer: known.answer }),
        };
    }
    let token = match redeeming.token {
        Some((token, secret)) => Some((token, check(scope, token, secret, &own_site(scope)?)?)),
        None if scope.site.founding.as_ref().is_some_and(|founding| founding.dev) => None,
        None => return Err(Refusal::TokenNeeded.into()),
    };
    let joiner = redeeming.admission.node;
    if members::node(scope.transaction, joiner)?.is_some() {
        return Err(Refusal::NodeTaken(joiner).into());
    }
    let admission = node::check(scope, &redeeming.admission)?;
    if let Some((token, mut record)) = token {
        record.uses_left -= 1;
        scope.transaction.put(&TOKENS, &token.0, &record)?;
    }
    node::admit(scope, admission)?;
    let answer = redeeming.answer.clone();
    let redemption = Redemption { node: joiner, at: scope.now, answer: answer.clone() };
    scope.transaction.put(&REDEMPTIONS, &redeeming.public_key, &redemption)?;
    Ok(Outcome::Redeemed { node: joiner, answer })
}

/// Admits a joiner by its token, and keeps what secrets for it are sealed to.
pub(super) fn admit(scope: &mut Scope<'_, '_>, redeeming: &Redeeming, sealing_key: &Payload) -> Result<Outcome, Halt> {
    let outcome = redeem(scope, redeeming)?;
    if let Outcome::Redeemed { node, .. } = &outcome {
        trust::keep_sealing_key(scope, *node, sealing_key)?;
    }
    Ok(outcome)
}

fn own_site(scope: &Scope<'_, '_>) -> Result<SiteName, Refusal> {
    scope.site.founding.as_ref().map(|founding| founding.site.clone()).ok_or(Refusal::NotFounded)
}

/// The token, if it may be used with this secret for `site` now. The secret is checked first: who does not know it learns
/// nothing.
pub(super) fn check(
    scope: &Scope<'_, '_>,
    token: TokenId,
    secret: Digest,
    site: &SiteName,
) -> Result<TokenRecord, Halt> {
    let record = members::token(scope.transaction, token)?.ok_or(Refusal::TokenForeign(token))?;
    if record.secret != secret {
        return Err(Refusal::TokenSecretWrong(token).into());
    }
    if record.site != *site {
        return Err(Refusal::TokenOfSite { token, site: record.site }.into());
    }
    if record.revoked {
        return Err(Refusal::TokenRevoked(token).into());
    }
    if record.expires_at <= scope.now {
        return Err(Refusal::TokenExpired(token).into());
    }
    if record.uses_left == 0 {
        return Err(Refusal::TokenUsedUp(token).into());
    }
    Ok(record)
}
