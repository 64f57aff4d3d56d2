//! Who belongs to the site and why it is trusted: nodes, tokens, rows of trust, gossip keys.

use fleet_core::{Digest, NodeId};

use super::tables::{KEYRING, NODES, REDEMPTIONS, TOKENS, TRUST};
use crate::record::{Keyring, NodeRecord, NodeStanding, Redemption, TokenId, TokenRecord, TrustKind, TrustRow};
use crate::{Error, StateRead};

/// Most nodes of a site.
pub const NODES_MAX: usize = 10_000;

/// A node, removed ones included.
pub fn node(state: &impl StateRead, node: NodeId) -> Result<Option<NodeRecord>, Error> {
    state.get(&NODES, &node)
}

/// Every node, by id, removed ones included.
pub fn nodes(state: &impl StateRead) -> Result<Vec<NodeRecord>, Error> {
    Ok(state.scan(&NODES, &(), None, NODES_MAX)?.into_iter().map(|(_, record)| record).collect())
}

/// The node that has `name` and was not removed.
pub fn node_named(state: &impl StateRead, name: &str) -> Result<Option<NodeRecord>, Error> {
    let mut nodes = nodes(state)?.into_iter();
    Ok(nodes.find(|record| record.profile.name == name && record.standing != NodeStanding::Removed))
}

/// A token.
pub fn token(state: &impl StateRead, token: TokenId) -> Result<Option<TokenRecord>, Error> {
    state.get(&TOKENS, &token.0)
}

/// At most `limit` tokens by id, those after `after` if given.
pub fn tokens(
    state: &impl StateRead,
    after: Option<TokenId>,
    limit: usize,
) -> Result<Vec<(TokenId, TokenRecord)>, Error> {
    let rows = state.scan(&TOKENS, &(), after.map(|token| token.0).as_ref(), limit)?;
    Ok(rows.into_iter().map(|(id, record)| (TokenId(id), record)).collect())
}

/// What the joiner with this public key got.
pub fn redemption(state: &impl StateRead, public_key: Digest) -> Result<Option<Redemption>, Error> {
    state.get(&REDEMPTIONS, &public_key)
}

/// A row of trust.
pub fn trust(state: &impl StateRead, kind: TrustKind, name: &str) -> Result<Option<TrustRow>, Error> {
    state.get(&TRUST, &(kind.number(), name.to_owned()))
}

/// At most `limit` rows of trust of a kind, by name, those after `after` if given.
pub fn trust_of(
    state: &impl StateRead,
    kind: TrustKind,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, TrustRow)>, Error> {
    let after = after.map(|name| (kind.number(), name.to_owned()));
    let rows = state.scan(&TRUST, &kind.number(), after.as_ref(), limit)?;
    Ok(rows.into_iter().map(|((_, name), row)| (name, row)).collect())
}

/// The gossip keys; an empty ring before the first.
pub fn keyring(state: &impl StateRead) -> Result<Keyring, Error> {
    Ok(state.get(&KEYRING, &())?.unwrap_or_default())
}
