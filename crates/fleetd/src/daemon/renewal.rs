//! Renews this node's certificate in time, by asking the leader.

use std::path::PathBuf;
use std::time::Duration;

use fleet_api::identity::CertificateFacts;
use fleet_api::pb::peer::RenewCertificateRequest;
use fleet_api::status::error_of;
use fleet_core::{Clock, Error, ErrorKind, SystemClock, Timestamp};
use rustls_pki_types::CertificateDer;

use super::parts::Parts;
use crate::grpc::renew_certificate;
use crate::ports::Purpose;
use crate::trust::node_key::NodeKey;
use crate::trust::renewal::{renewal_in, retry_in};

/// Longest sleep at once, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// Renews for as long as the node runs.
pub(super) async fn run(parts: Parts, data_dir: PathBuf) {
    let mut failures = 0;
    loop {
        let wait = match not_after(&parts) {
            Ok(not_after) if failures == 0 => renewal_in(not_after, SystemClock.now()),
            Ok(_) => retry_in(failures),
            Err(error) => {
                tracing::error!(%error, "the node's certificate cannot be read");
                return;
            }
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(SLEEP_MAX)).await;
            if wait > SLEEP_MAX {
                continue;
            }
        }
        match renew(&parts, &data_dir).await {
            Ok(()) => {
                failures = 0;
                tracing::info!("certificate renewed");
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

async fn renew(parts: &Parts, data_dir: &std::path::Path) -> Result<(), Error> {
    let key = NodeKey::load_or_generate(data_dir)?;
    let csr = key.signing_request()?;
    let chain = match parts.site.other_leader() {
        Some(leader) => {
            let mut client = parts.site.peers().client(leader, Purpose::Forward)?;
            let answer = client.renew_certificate(RenewCertificateRequest { csr }).await;
            answer.map_err(|status| error_of(&status))?.into_inner().certificates
        }
        None => renew_certificate(&parts.site, &parts.trust, parts.identity.node_id, &csr).await?,
    };
    let key = key.with_chain(chain.into_iter().map(CertificateDer::from).collect())?;
    key.save(data_dir)?;
    key.install(&parts.tls.certificate)
}
