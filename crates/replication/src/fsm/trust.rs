//! Rows of trust and the gossip keys. What they hold is opaque here; what may replace what is not.

use fleet_core::{Digest, GroupId, NodeId};
use fleet_store::record::{Keyring, Payload, TrustKind, TrustRow};
use fleet_store::state::members;
use fleet_store::state::sites::SITE_AUTHORITY;
use fleet_store::state::tables::{KEYRING, TRUST};

use super::Event;
use super::scope::{Halt, Scope};
use crate::command::{Outcome, Refusal, TrustEntry};

/// Issued certificates looked at in one go.
const ROWS_PER_SCAN: usize = 256;

/// Writes rows of trust, all or none.
pub(super) fn put(scope: &mut Scope<'_, '_>, rows: &[TrustEntry]) -> Result<Outcome, Halt> {
    let mut changed: Vec<&TrustEntry> = Vec::new();
    for entry in rows {
        let twice = changed.iter().any(|other| (other.kind, &other.name) == (entry.kind, &entry.name));
        if twice {
            return Err(Refusal::TrustConflict(entry.name.clone()).into());
        }
        match members::trust(scope.transaction, entry.kind, &entry.name)? {
            Some(known) if known.value == entry.value => {}
            Some(_) if !entry.kind.is_replaceable() => return Err(Refusal::TrustConflict(entry.name.clone()).into()),
            _ => changed.push(entry),
        }
    }
    if changed.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    for entry in changed {
        write(scope, entry.kind, &entry.name, &entry.value)?;
    }
    scope.emit(Event::TrustChanged);
    Ok(Outcome::Done)
}

/// Replaces the certificate of the site's own authority by a later one. Whether it is one, and for the same key, is for
/// its proposer to see: here it is opaque.
pub(super) fn renew_authority(
    scope: &mut Scope<'_, '_>,
    replaces: Digest,
    certificate: &Payload,
) -> Result<Outcome, Halt> {
    let known = members::trust(scope.transaction, TrustKind::Authority, SITE_AUTHORITY)?;
    let known = known.ok_or_else(|| Refusal::TrustConflict(SITE_AUTHORITY.to_owned()))?.value;
    if known == *certificate {
        return Ok(Outcome::Unchanged);
    }
    if Digest::of(known.as_slice()) != replaces {
        return Err(Refusal::TrustConflict(SITE_AUTHORITY.to_owned()).into());
    }
    write(scope, TrustKind::Authority, SITE_AUTHORITY, certificate)?;
    scope.emit(Event::TrustChanged);
    Ok(Outcome::Done)
}

/// Replaces the gossip keys by those of the next generation.
pub(super) fn put_keyring(scope: &mut Scope<'_, '_>, keyring: &Keyring) -> Result<Outcome, Halt> {
    let known = members::keyring(scope.transaction)?;
    if known == *keyring {
        return Ok(Outcome::Unchanged);
    }
    if keyring.generation != known.generation + 1 {
        return Err(Refusal::KeyringStale(known.generation).into());
    }
    scope.transaction.put(&KEYRING, &(), keyring)?;
    scope.emit(Event::KeyringChanged { generation: keyring.generation });
    Ok(Outcome::Done)
}

/// Notes that `node` was issued the certificate with this serial number.
pub(super) fn note_issued(scope: &mut Scope<'_, '_>, node: NodeId, serial: &str) -> Result<(), Halt> {
    if members::trust(scope.transaction, TrustKind::Issued, serial)?.is_none() {
        write(scope, TrustKind::Issued, serial, &name_of(node))?;
    }
    Ok(())
}

/// Keeps what secrets for `node` are sealed to.
pub(super) fn keep_sealing_key(scope: &mut Scope<'_, '_>, node: NodeId, key: &Payload) -> Result<(), Halt> {
    let name = node.to_string();
    let known = members::trust(scope.transaction, TrustKind::SealingKey, &name)?;
    if known.is_none_or(|known| known.value != *key) {
        write(scope, TrustKind::SealingKey, &name, key)?;
        scope.emit(Event::TrustChanged);
    }
    Ok(())
}

/// Notes that the authority of the site with `group` was issued the certificate with this serial number.
pub(super) fn note_authority(scope: &mut Scope<'_, '_>, group: GroupId, serial: &str) -> Result<(), Halt> {
    if members::trust(scope.transaction, TrustKind::Issued, serial)?.is_none() {
        write(scope, TrustKind::Issued, serial, &group_name(group))?;
    }
    Ok(())
}

/// Revokes every certificate that `node` was issued.
pub(super) fn revoke_issued(scope: &mut Scope<'_, '_>, node: NodeId) -> Result<(), Halt> {
    revoke_issued_to(scope, &name_of(node))
}

/// Revokes every certificate that the authority of the site with `group` was issued.
pub(super) fn revoke_authority(scope: &mut Scope<'_, '_>, group: GroupId) -> Result<(), Halt> {
    revoke_issued_to(scope, &group_name(group))
}

fn revoke_issued_to(scope: &mut Scope<'_, '_>, owner: &Payload) -> Result<(), Halt> {
    let mut after: Option<String> = None;
    loop {
        let rows = members::trust_of(scope.transaction, TrustKind::Issued, after.as_deref(), ROWS_PER_SCAN)?;
        let Some((last, _)) = rows.last() else {
            break;
        };
        after = Some(last.clone());
        for (serial, _) in rows.iter().filter(|(_, row)| row.value == *owner) {
            if members::trust(scope.transaction, TrustKind::Revoked, serial)?.is_none() {
                write(scope, TrustKind::Revoked, serial, owner)?;
            }
        }
    }
    scope.emit(Event::TrustChanged);
    Ok(())
}

/// The value of an issued certificate's row: whose it is.
fn group_name(group: GroupId) -> Payload {
    Payload::from(group.as_bytes().to_vec())
}

fn name_of(node: NodeId) -> Payload {
    Payload::from(node.as_bytes().to_vec())
}

fn write(scope: &mut Scope<'_, '_>, kind: TrustKind, name: &str, value: &Payload) -> Result<(), Halt> {
    let row = TrustRow { value: value.clone(), at: scope.now };
    Ok(scope.transaction.put(&TRUST, &(kind.number(), name.to_owned()), &row)?)
}
