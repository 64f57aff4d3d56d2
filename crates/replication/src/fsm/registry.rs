//! The other sites of the fleet: recorded once by the registry, which is the group of the first site, and noted elsewhere.

use fleet_core::{Digest, GroupId, SiteName, Timestamp};
use fleet_store::record::{FoundingToken, PeerSite, RemovedSite, SiteRecord, TokenId, TokenRecord};
use fleet_store::state::sites;
use fleet_store::state::tables::{SITES, TOKENS};

use super::scope::{Halt, Scope};
use super::{Event, expulsion, token, trust};
use crate::command::{Outcome, Refusal, SiteFounding, SiteNote, SiteRemoval, SiteRenewal, TokenGrant};

/// Makes a token for the founding of another site.
pub(super) fn grant(scope: &mut Scope<'_, '_>, grant: &TokenGrant) -> Result<Outcome, Halt> {
    check_unfounded(scope, &grant.site)?;
    token::keep(scope, grant)
}

/// Records a site under the key of the node that founds it. The same key gets the same answer again, whatever became of the
/// token since; any other key is refused. What is left of the token goes on at the new site, and nothing of it here.
pub(super) fn found(scope: &mut Scope<'_, '_>, founding: &SiteFounding) -> Result<Outcome, Halt> {
    if let Some(known) = sites::site(scope.transaction, &founding.site)?
        && known.public_key == founding.public_key
        && known.founder == founding.founder
    {
        return Ok(Outcome::SiteFounded(Box::new(known)));
    }
    check_unfounded(scope, &founding.site)?;
    if sites::sites(scope.transaction)?.len() >= sites::SITES_MAX {
        return Err(Refusal::TooManySites(sites::SITES_MAX as u64).into());
    }
    let token = match founding.token {
        Some((id, secret)) => {
            let record = token::check(scope, id, secret, &founding.site)?;
            check_newer(scope, id, &record)?;
            Some((id, record))
        }
        None if scope.site.founding.as_ref().is_some_and(|founding| founding.dev) => None,
        None => return Err(Refusal::TokenNeeded.into()),
    };
    let token = token.map(|(id, record)| hand_over(scope, id, record)).transpose()?;
    let record = SiteRecord {
        group: founding.group,
        founder: founding.founder,
        public_key: founding.public_key,
        authority: founding.authority.clone(),
        contacts: founding.contacts.clone(),
        // Whatever the site says of itself is later.
        contacts_at: Timestamp(0),
        founded_at: scope.now,
        token,
    };
    scope.transaction.put(&SITES, &founding.site.to_string(), &record)?;
    scope.emit(Event::SitesChanged);
    Ok(Outcome::SiteFounded(Box::new(record)))
}

/// Records a later certificate of a site's authority. The earlier one is noted: it is valid until it ends, so the removal
/// of the site has to revoke it too.
pub(super) fn renew(scope: &mut Scope<'_, '_>, renewal: &SiteRenewal) -> Result<Outcome, Halt> {
    let SiteRenewal { site, replaces, serial, authority } = renewal;
    let mut record = recorded(scope, site)?;
    if record.authority == *authority {
        return Ok(Outcome::Unchanged);
    }
    if Digest::of(record.authority.as_slice()) != *replaces {
        return Err(Refusal::SiteChanged(site.site.clone()).into());
    }
    trust::note_authority(scope, site.group, serial)?;
    record.authority = authority.clone();
    scope.transaction.put(&SITES, &site.site.to_string(), &record)?;
    scope.emit(Event::SitesChanged);
    Ok(Outcome::Done)
}

/// Takes a site out of the fleet: every certificate of its authority is revoked, and its name is free.
pub(super) fn remove(scope: &mut Scope<'_, '_>, removal: &SiteRemoval) -> Result<Outcome, Halt> {
    let SiteRemoval { site, authority, serial } = removal;
    if sites::removed(scope.transaction, site.group)?.is_some() {
        return Ok(Outcome::Unchanged);
    }
    let record = recorded(scope, site)?;
    if Digest::of(record.authority.as_slice()) != *authority {
        return Err(Refusal::SiteChanged(site.site.clone()).into());
    }
    let outcome = expulsion::expel(scope, site)?;
    trust::note_authority(scope, site.group, serial)?;
    trust::revoke_authority(scope, site.group)?;
    Ok(outcome)
}

/// The record of `site`, if the registry has it by this group.
fn recorded(scope: &Scope<'_, '_>, site: &PeerSite) -> Result<SiteRecord, Halt> {
    if !sites::is_registry(scope.transaction)? {
        return Err(Refusal::NotRegistry.into());
    }
    let record = sites::site(scope.transaction, &site.site)?;
    let record = record.ok_or_else(|| Refusal::SiteUnknown(site.site.clone()))?;
    if record.group != site.group {
        return Err(Refusal::SiteChanged(site.site.clone()).into());
    }
    Ok(record)
}

/// Refuses a token that was made before a site of its name was removed: whoever has it may be why.
fn check_newer(scope: &Scope<'_, '_>, token: TokenId, record: &TokenRecord) -> Result<(), Halt> {
    let removed = sites::all_removed(scope.transaction)?;
    let is_older =
        |(_, removed): &(GroupId, RemovedSite)| removed.site == record.site && record.created_at <= removed.at;
    match removed.iter().any(is_older) {
        true => Err(Refusal::TokenRevoked(token).into()),
        false => Ok(()),
    }
}

/// Notes what is known of other sites. The later word of a site about its contacts counts; nothing else of one changes, and
/// the registry takes no site that it has not recorded itself.
pub(super) fn note(scope: &mut Scope<'_, '_>, notes: &[SiteNote]) -> Result<Outcome, Halt> {
    let is_registry = sites::is_registry(scope.transaction)?;
    let mut count = sites::sites(scope.transaction)?.len();
    let mut is_changed = false;
    let own = scope.site.founding.as_ref().map(|founding| founding.site.clone());
    for note in notes.iter().filter(|note| own.as_ref() != Some(&note.site)) {
        if sites::removed(scope.transaction, note.record.group)?.is_some() {
            continue;
        }
        let known = sites::site(scope.transaction, &note.site)?;
        let record = match known {
            Some(known) if known.group != note.record.group || known.contacts_at >= note.record.contacts_at => continue,
            Some(mut known) => {
                known.contacts.clone_from(&note.record.contacts);
                known.contacts_at = note.record.contacts_at;
                known
            }
            None if is_registry || count >= sites::SITES_MAX => continue,
            None => {
                count += 1;
                SiteRecord { token: None, ..note.record.clone() }
            }
        };
        scope.transaction.put(&SITES, &note.site.to_string(), &record)?;
        is_changed = true;
    }
    if !is_changed {
        return Ok(Outcome::Unchanged);
    }
    scope.emit(Event::SitesChanged);
    Ok(Outcome::Done)
}

/// Refuses anywhere but at the registry, and a site that exists.
fn check_unfounded(scope: &Scope<'_, '_>, site: &SiteName) -> Result<(), Halt> {
    if !sites::is_registry(scope.transaction)? {
        return Err(Refusal::NotRegistry.into());
    }
    if is_own(scope, site) || sites::site(scope.transaction, site)?.is_some() {
        return Err(Refusal::SiteTaken(site.clone()).into());
    }
    Ok(())
}

fn is_own(scope: &Scope<'_, '_>, site: &SiteName) -> bool {
    scope.site.founding.as_ref().is_some_and(|founding| founding.site == *site)
}

/// Takes the token from here; what the founder has not used of it is the new site's.
fn hand_over(scope: &mut Scope<'_, '_>, id: TokenId, mut record: TokenRecord) -> Result<FoundingToken, Halt> {
    let (uses_left, secret, expires_at) = (record.uses_left.saturating_sub(1), record.secret, record.expires_at);
    record.uses_left = 0;
    scope.transaction.put(&TOKENS, &id.0, &record)?;
    Ok(FoundingToken { id, secret, uses_left, expires_at })
}
