//! The joiner's side of joining: verify the seed, then show the token, then check what came back. Where the answer is
//! kept, and what is done with it, is the daemon's part.
//!
//! Invariants: the token's secret is sent only inside a connection whose other end proved to be a node under the root
//! that the token names; without a token only a development fleet on this machine is asked.

use std::time::Duration;

use fleet_api::chain::{Chain, Issuer, SiteFacts};
use fleet_api::connect::{Connector, Established};
use fleet_api::identity::{CertificateFacts, RootFacts, Subject};
use fleet_api::pb::v1;
use fleet_api::pb::v1::admission_client::AdmissionClient;
use fleet_api::status::error_of;
use fleet_api::tls::{ALPN_CLIENT, ClientTls, Trust, is_other_fleet};
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Digest, Error, ErrorKind, NodeId};
use rustls_pki_types::CertificateDer;

use crate::trust::node_key::NodeKey;
use crate::trust::token::JoinToken;

/// How long a seed may take to admit a node.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long seeds may take to show to which fleet they belong.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most seeds looked at.
const PROBED_MAX: usize = 8;

/// Why a seed should admit us.
#[derive(Clone, Debug)]
pub enum Entitlement {
    /// A join token.
    Token(JoinToken),
    /// The seed is a development fleet on this machine.
    Development,
}

impl Entitlement {
    fn trust(&self) -> Trust {
        match self {
            Self::Token(token) => Trust::RootDigest(token.root),
            Self::Development => Trust::Shown,
        }
    }
}

/// The first of `seeds` that shows a certificate of another fleet than that of `root`, if no seed shows one of this fleet.
/// A seed that cannot be reached says nothing: a node resumes without any.
pub async fn seed_of_other_fleet(seeds: &[String], root: &CertificateDer<'static>) -> Option<String> {
    let connector = Connector::new(ClientTls::new(Trust::Root(root.clone())), ALPN_CLIENT, Established::Handshake);
    let connector = connector.ok()?.with_timeout(PROBE_TIMEOUT);
    let probes = seeds.iter().take(PROBED_MAX).map(|seed| {
        let connector = &connector;
        async move { (seed, connector.dial(seed).await.map(drop)) }
    });
    let mut other = None;
    for (seed, outcome) in futures_util::future::join_all(probes).await {
        match outcome {
            Ok(()) => return None,
            Err(error) if is_other_fleet(&error) => other = other.or_else(|| Some(seed.clone())),
            Err(error) => tracing::debug!(seed, %error, "a seed does not tell which fleet it belongs to"),
        }
    }
    other
}

/// Asks `seed`, `host:port`, for admission with `request`, whose token is filled in here.
///
/// # Errors
/// `Unauthenticated` if the seed is of another fleet than the token, or a token is needed and there is none.
pub async fn join(
    seed: &str,
    entitlement: &Entitlement,
    mut request: v1::JoinRequest,
) -> Result<v1::JoinResponse, Error> {
    let tls = ClientTls::new(entitlement.trust());
    let connector = Connector::new(tls, ALPN_CLIENT, Established::FirstByte)?;
    let channel = connector.channel(seed).await.map_err(|error| explained(error, seed, entitlement))?;
    request.token = match entitlement {
        Entitlement::Token(token) => token.to_text().to_string(),
        Entitlement::Development => String::new(),
    };
    let mut call = tonic::Request::new(request);
    call.set_timeout(JOIN_TIMEOUT);
    let mut client = AdmissionClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    match client.join(call).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(explained(error_of(&status), seed, entitlement)),
    }
}

/// The node's key with the certificate in `response`, if that is for this key and `node`, under the root expected.
///
/// # Errors
/// `Unauthenticated` if the answer is not what was asked for.
pub fn accept(
    response: &v1::JoinResponse,
    key: NodeKey,
    node: NodeId,
    entitlement: &Entitlement,
) -> Result<NodeKey, Error> {
    let (chain, root) = chain_of(response, entitlement)?;
    let leaf = chain.first().ok_or_else(|| refused("it has no certificate"))?;
    let facts = CertificateFacts::read(leaf)?;
    if facts.name.subject != Subject::Node(node) {
        return Err(refused("its certificate is for another node"));
    }
    if facts.name.fleet != root.fleet {
        return Err(refused("its fleet and its root differ"));
    }
    let is_first = response.first_site.is_empty() || response.first_site == response.site;
    let root = chain.last().ok_or_else(|| refused("it has no certificate"))?;
    let is_of_site = match Chain::read(leaf, &chain[1..], root)?.voucher.issuer {
        Issuer::Root => is_first,
        Issuer::Site(site) => !is_first && site.as_str() == response.site,
    };
    if !is_of_site {
        return Err(refused("its certificate is of another site than it says"));
    }
    key.with_chain(chain)
}

/// The certificate of a new site's authority in `response`, and the root behind it, which is the one expected.
///
/// # Errors
/// `Unauthenticated` if the answer is not what was asked for.
pub fn accept_authority(
    response: &v1::JoinResponse,
    entitlement: &Entitlement,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let (chain, root) = chain_of(response, entitlement)?;
    let authority = chain.first().ok_or_else(|| refused("it has no certificate"))?;
    if SiteFacts::read(authority)?.fleet != root.fleet {
        return Err(refused("its fleet and its root differ"));
    }
    Ok(chain)
}

/// The chain in `response`, if it ends at the root expected, and what the root says.
fn chain_of(
    response: &v1::JoinResponse,
    entitlement: &Entitlement,
) -> Result<(Vec<CertificateDer<'static>>, RootFacts), Error> {
    let chain: Vec<CertificateDer<'static>> = response.certificates.iter().cloned().map(CertificateDer::from).collect();
    let Some(root) = chain.last() else { return Err(refused("it has no certificate")) };
    if root.as_ref() != response.root {
        return Err(refused("its chain does not end at its root"));
    }
    if let Entitlement::Token(token) = entitlement
        && Digest::of(root) != token.root
    {
        return Err(refused("its root is not the one the token names"));
    }
    let root = RootFacts::read(root)?;
    if response.fleet_id != root.fleet.as_bytes() {
        return Err(refused("its fleet and its root differ"));
    }
    Ok((chain, root))
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, format!("the seed's answer is refused: {message}"))
}

fn explained(error: Error, seed: &str, entitlement: &Entitlement) -> Error {
    if error.kind == ErrorKind::Unauthenticated && matches!(entitlement, Entitlement::Development) {
        return Error::new(ErrorKind::Unauthenticated, format!("{seed} admits nobody without a join token"))
            .with_next_step(
                "Run `fleetctl token create` with the fleet's credential and pass the token with `--token`.",
            )
            .with_source(error);
    }
    error
}
