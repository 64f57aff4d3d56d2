//! Renews this node's certificate in time: by the leader, by whoever knows the leader, and where there is none because the
//! certificates ran out, by this node itself if it is a voter and so holds the root key.
//!
//! A node whose certificate ran out hears no leader: the others' clients refuse what it shows. So it asks whoever it knows
//! of, by gossip, which needs no certificate, and from the site's state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_api::identity::CertificateFacts;
use fleet_api::pb::peer::RenewCertificateRequest;
use fleet_api::status::error_of;
use fleet_api::tls::CertificateCell;
use fleet_core::{BootInstant, Clock, Error, ErrorKind, NodeId, SystemClock, Timestamp};
use fleet_store::record::NodeStanding;
use fleet_store::state::members;
use rustls_pki_types::CertificateDer;

use super::asking::{ask_in_turn, candidates};
use super::parts::Parts;
use crate::grpc::renew_certificate;
use crate::ports::{Peers, Purpose};
use crate::site::{Site, not_found, read_failed};
use crate::trust::authority::SigningRequest;
use crate::trust::keeper::TrustKeeper;
use crate::trust::node_key::NodeKey;
use crate::trust::renewal::{Standing, next_try_in, standing};

/// Longest sleep at once, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// Who signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signer {
    /// The site's leader, who noted it in the log.
    Leader,
    /// This node, for want of a leader: nobody has noted it yet.
    Own,
}

/// Renews for as long as the node runs.
pub(super) async fn run(parts: Parts, data_dir: PathBuf) {
    let mut failures = 0;
    let mut renewed_at: Option<BootInstant> = None;
    loop {
        let not_after = match not_after(&parts) {
            Ok(not_after) => not_after,
            Err(error) => {
                tracing::error!(%error, "the node's certificate cannot be read");
                return;
            }
        };
        let renewed = renewed_at.map(|at| SystemClock.boot_now().saturating_since(at));
        let wait = next_try_in(not_after, parts.trust.now(), failures, renewed);
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(SLEEP_MAX)).await;
            if wait > SLEEP_MAX {
                continue;
            }
        }
        match renew(&parts, &data_dir, not_after).await {
            Ok(Signer::Leader) => {
                failures = 0;
                renewed_at = Some(SystemClock.boot_now());
                tracing::info!("certificate renewed");
            }
            Ok(Signer::Own) => {
                // The leader that can be elected now is to note one.
                failures = 1;
                tracing::warn!("certificate renewed by this node itself: it had expired and no leader was there");
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(error = fleet_core::error::chain(&error), failures, "certificate not renewed");
            }
        }
    }
}

fn not_after(parts: &Parts) -> Result<Timestamp, Error> {
    let current = parts.tls.certificate.current();
    let leaf = current
        .cert
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "read the node's certificate: there is none"))?;
    Ok(CertificateFacts::read(leaf)?.not_after)
}

async fn renew(parts: &Parts, data_dir: &Path, not_after: Timestamp) -> Result<Signer, Error> {
    let key = NodeKey::load_or_generate(data_dir)?;
    let csr = key.signing_request()?;
    let own = parts.identity.node_id;
    let (chain, signer) = match renewed_by_leader(parts, &csr).await {
        Ok(chain) => (chain, Signer::Leader),
        Err(error) => {
            let has_leader = parts.site.group().status().borrow().leader.is_some();
            if has_leader || standing(not_after, parts.trust.now()) != Standing::RenewalOnly {
                return Err(error);
            }
            tracing::debug!(%error, "nobody renews this node's expired certificate");
            (sign_own(&parts.site, &parts.trust, own, &csr)?, Signer::Own)
        }
    };
    let key = key.with_chain(chain.into_iter().map(CertificateDer::from).collect())?;
    key.save(data_dir)?;
    put_to_use(&key, &parts.tls.certificate, parts.site.peers())?;
    Ok(signer)
}

/// Shows `key`'s certificate from now on. The others know this node by what it showed when a connection was made, so those
/// of an expired certificate would be good for nothing for as long as they are kept.
pub(crate) fn put_to_use(key: &NodeKey, certificate: &CertificateCell, peers: &Peers) -> Result<(), Error> {
    key.install(certificate)?;
    peers.forget_channels();
    Ok(())
}

async fn renewed_by_leader(parts: &Parts, csr: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let (site, own) = (&parts.site, parts.identity.node_id);
    if site.group().serving_term().is_some() {
        return renew_certificate(site, &parts.trust, own, csr, &parts.trust.public_key()).await;
    }
    let view = parts.membership.current_view();
    let queue = candidates(own, site.other_leader(), &view, &site.nodes()?);
    let ask = |node| async move {
        let mut client = site.peers().client(node, Purpose::Forward)?;
        let sealing_key = parts.trust.public_key().to_vec();
        let answer = client.renew_certificate(RenewCertificateRequest { csr: csr.to_vec(), sealing_key }).await;
        Ok(answer.map_err(|status| error_of(&status))?.into_inner().certificates)
    };
    ask_in_turn(queue, |address| site.peers().node_at(address), ask).await
}

/// A certificate for `node`, this one, by the root key that it holds as a voter. Nobody else can be asked where the
/// certificates of a whole site ran out while it was off.
pub(super) fn sign_own(site: &Site, trust: &TrustKeeper, node: NodeId, csr: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let refused = |message: &str| Error::new(ErrorKind::FailedPrecondition, format!("renew by this node: {message}"));
    if !site.group().status().borrow().voters().contains(&node) {
        return Err(refused("it is no voter of the site"));
    }
    let state = site.reader()?;
    let record =
        members::node(&state, node).map_err(read_failed)?.ok_or_else(|| not_found("node", &node.to_string()))?;
    if record.standing == NodeStanding::Removed {
        return Err(refused("it was removed from the fleet"));
    }
    let issued = trust.authority(&state)?.issue_node(&SigningRequest::parse(csr)?, node, trust.now())?;
    Ok(issued.chain.iter().map(|certificate| certificate.to_vec()).collect())
}
