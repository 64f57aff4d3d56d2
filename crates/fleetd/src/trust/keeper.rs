//! The key of the site's authority at work: opened from the group's state, where it lies sealed for each voter, and used on
//! the leader to admit and to renew. The authority is the fleet's root at the first site, and one of its own elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use fleet_api::ValidityClock;
use fleet_core::{Error, ErrorKind, NodeId, Timestamp};
use fleet_replication::command::{Action, TrustEntry};
use fleet_store::StateReader;
use fleet_store::record::{Payload, TrustKind, TrustRow};
use fleet_store::state::sites::SITE_AUTHORITY;
use fleet_store::state::{members, sites};

use crate::site::read_failed;
use crate::trust::authority::Authority;
use crate::trust::sealing::{PUBLIC_KEY_BYTES, SealingKey, seal};

/// Name of the root among authorities.
const ROOT: &str = "root";
/// Rows read in one go.
const ROWS_PER_READ: usize = 1_000;
/// What a sealed root key is bound to.
const ROOT_CONTEXT: &[u8] = b"fleet root key";
/// What the sealed key of a site's authority is bound to.
const SITE_CONTEXT: &[u8] = b"fleet site key";

/// Opens and keeps the authority's key. A cheap handle.
#[derive(Clone)]
pub struct TrustKeeper {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeId,
    sealing_key: SealingKey,
    validity: ValidityClock,
    authority: Mutex<Option<Arc<Authority>>>,
}

impl TrustKeeper {
    /// The keeper of `node`, which opens with `sealing_key` and signs by the time of `validity`.
    pub fn new(node: NodeId, sealing_key: SealingKey, validity: ValidityClock) -> Self {
        Self { shared: Arc::new(Shared { node, sealing_key, validity, authority: Mutex::default() }) }
    }

    /// The time from which what is signed now is counted: that by which certificates are judged.
    pub fn now(&self) -> Timestamp {
        self.shared.validity.now()
    }

    /// The site's authority, opened from `state` unless it is open already.
    ///
    /// # Errors
    /// `Unavailable` if the state has no key of it sealed for this node.
    pub fn authority(&self, state: &StateReader) -> Result<Arc<Authority>, Error> {
        let certificate = |name| members::trust(state, TrustKind::Authority, name).map_err(read_failed);
        let own = certificate(SITE_AUTHORITY)?;
        let mut opened = self.shared.authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = &*opened {
            // What is in use is closed when the site's authority has a later certificate.
            let is_same = |row: &TrustRow| row.value.as_slice() == authority.chain()[0].as_ref();
            if own.as_ref().is_none_or(is_same) {
                return Ok(Arc::clone(authority));
            }
        }
        let missing = || {
            Error::new(ErrorKind::Unavailable, "open the key of the site's authority: it is not sealed for this node")
                .with_next_step("Ask another node of the site, or wait until this one has caught up.")
        };
        let (authority, context) = if own.is_some() { (SITE_AUTHORITY, SITE_CONTEXT) } else { (ROOT, ROOT_CONTEXT) };
        let root = certificate(ROOT)?.ok_or_else(missing)?;
        let sealed = members::trust(state, TrustKind::SealedKey, &sealed_name(authority, self.shared.node));
        let sealed = sealed.map_err(read_failed)?.filter(|row| !row.value.as_slice().is_empty()).ok_or_else(missing)?;
        let key = self.shared.sealing_key.open(sealed.value.as_slice(), context)?;
        let chain = own.into_iter().chain([root]).map(|row| row.value.as_slice().to_vec().into()).collect();
        let authority = Arc::new(Authority::from_parts(chain, &key)?);
        *opened = Some(Arc::clone(&authority));
        Ok(authority)
    }

    /// What secrets for this node are sealed to.
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.shared.sealing_key.public_key()
    }

    /// The rows that found a site's trust: the root, the site's own authority where that is another, and the key of the two
    /// that is here, sealed for this node.
    ///
    /// # Errors
    /// If sealing fails.
    pub fn founding_rows(&self, authority: &Authority) -> Result<Action, Error> {
        let certificate = |name: &str, certificate: &[u8]| TrustEntry {
            kind: TrustKind::Authority,
            name: name.to_owned(),
            value: Payload::from(certificate.to_vec()),
        };
        let mut rows = vec![certificate(ROOT, authority.root())];
        if let [own, _root] = authority.chain() {
            rows.push(certificate(SITE_AUTHORITY, own));
        }
        rows.push(sealed_row(authority, self.shared.node, &self.shared.sealing_key.public_key())?);
        Ok(Action::PutTrust { rows })
    }
}

/// The row with the key of `authority` sealed for `node`, whose public sealing key is `recipient`.
///
/// # Errors
/// If sealing fails.
pub fn sealed_row(
    authority: &Authority,
    node: NodeId,
    recipient: &[u8; PUBLIC_KEY_BYTES],
) -> Result<TrustEntry, Error> {
    let (name, context) =
        if authority.site().is_some() { (SITE_AUTHORITY, SITE_CONTEXT) } else { (ROOT, ROOT_CONTEXT) };
    let sealed = seal(&authority.key(), recipient, context)?;
    Ok(TrustEntry { kind: TrustKind::SealedKey, name: sealed_name(name, node), value: Payload(sealed.into()) })
}

/// The row that takes the sealed key of the site's authority from `node`, by what the authority is called in `state`.
///
/// # Errors
/// If the store failed.
pub fn dropped_row(state: &StateReader, node: NodeId) -> Result<TrustEntry, Error> {
    let name = sealed_name(authority_name(state)?, node);
    Ok(TrustEntry { kind: TrustKind::SealedKey, name, value: Payload::default() })
}

/// The row with what secrets for `node` are sealed to.
pub fn sealing_key_row(node: NodeId, key: &[u8; PUBLIC_KEY_BYTES]) -> TrustEntry {
    TrustEntry { kind: TrustKind::SealingKey, name: node.to_string(), value: Payload::from(key.to_vec()) }
}

/// The nodes for which `state` has the key of the site's authority sealed.
///
/// # Errors
/// If the store failed.
pub fn sealed_for(state: &StateReader) -> Result<BTreeSet<NodeId>, Error> {
    let authority = authority_name(state)?;
    let rows = rows_of(state, TrustKind::SealedKey)?.into_iter().filter(|(_, row)| !row.value.as_slice().is_empty());
    Ok(rows.filter_map(|(name, _)| name.strip_prefix(authority)?.strip_prefix('/')?.parse().ok()).collect())
}

/// What secrets for each node are sealed to, as far as `state` knows.
///
/// # Errors
/// If the store failed.
pub fn sealing_keys(state: &StateReader) -> Result<BTreeMap<NodeId, [u8; PUBLIC_KEY_BYTES]>, Error> {
    let rows = rows_of(state, TrustKind::SealingKey)?.into_iter();
    Ok(rows.filter_map(|(name, row)| Some((name.parse().ok()?, row.value.as_slice().try_into().ok()?))).collect())
}

/// Every row of `kind`.
///
/// # Errors
/// If the store failed.
pub fn rows_of(state: &StateReader, kind: TrustKind) -> Result<Vec<(String, TrustRow)>, Error> {
    let mut all: Vec<(String, TrustRow)> = Vec::new();
    loop {
        let after = all.last().map(|(name, _)| name.clone());
        let page = members::trust_of(state, kind, after.as_deref(), ROWS_PER_READ).map_err(read_failed)?;
        let is_last = page.len() < ROWS_PER_READ;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// The certificate of the site's own authority in `state`, DER; empty at the first site, where it is the root.
///
/// # Errors
/// If the store failed.
pub fn site_certificate(state: &StateReader) -> Result<Payload, Error> {
    let own = members::trust(state, TrustKind::Authority, SITE_AUTHORITY).map_err(read_failed)?;
    Ok(own.map(|row| row.value).unwrap_or_default())
}

/// What the site's authority is called in `state`.
fn authority_name(state: &StateReader) -> Result<&'static str, Error> {
    Ok(if sites::is_registry(state).map_err(read_failed)? { ROOT } else { SITE_AUTHORITY })
}

fn sealed_name(authority: &str, node: NodeId) -> String {
    format!("{authority}/{node}")
}
