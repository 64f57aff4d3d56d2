//! What the first leader of a new site writes into its log, once: what the site is, its trust, its keyring, what the
//! registry told of the fleet, itself.
//!
//! Each step is safe to repeat, so a crash in between is mended by the next start.

use std::time::Duration;

use fleet_api::identity::CertificateFacts;
use fleet_core::{Error, ErrorKind};
use fleet_replication::command::{Action, COMMAND_VERSION, NodeAdmission, TokenGrant};
use fleet_store::record::{Founding, FoundingToken, Keyring, NodeCertificate, NodeProfile};
use fleet_store::state::{jobs, members};

use super::foundation::Foundation;
use super::parts::Parts;
use crate::config::Settings;
use crate::identity::Identity;
use crate::site::{Site, read_failed};

/// How long the only voter of a new group may take to lead it.
const LEAD_BOUND: Duration = Duration::from_secs(10);
/// Other sites noted by one command: an entry of the log is bounded.
const NOTES_AT_ONCE: usize = 8;

/// Founds the site if this node has what that takes, and it is not founded yet.
///
/// # Errors
/// `Unavailable` if the group does not come to serve; whatever a step failed with.
pub(super) async fn found_site(
    parts: &Parts,
    foundation: Option<&Foundation>,
    settings: &Settings,
) -> Result<(), Error> {
    let Some(foundation) = foundation else { return Ok(()) };
    let (site, identity) = (&parts.site, &parts.identity);
    if is_founded(site)? {
        // Only the greeting is missing, and others may lead by now.
        return Ok(());
    }
    site.group().found().await.map_err(|error| site.explain(error))?;
    wait_until_serving(site).await?;
    if jobs::site(&site.reader()?).map_err(read_failed)?.founding.is_none() {
        site.propose(Action::Found(Founding {
            fleet: identity.fleet_id,
            site: identity.site.clone(),
            group: identity.group_id,
            founder: identity.node_id,
            dev: identity.dev,
        }))
        .await?;
    }
    // This node is the only member there is, and knows all that it proposes; who knows less is not admitted later.
    site.propose(Action::Gate { version: COMMAND_VERSION }).await?;
    site.propose(parts.trust.founding_rows(&foundation.authority)?).await?;
    if members::keyring(&site.reader()?).map_err(read_failed)?.keys.is_empty() {
        site.propose(Action::PutKeyring(keyring(identity))).await?;
    }
    if foundation.authority.site().is_some() {
        take_over(site, identity, foundation).await?;
    }
    let admission = NodeAdmission {
        node: identity.node_id,
        profile: profile(identity, settings),
        certificate: Some(own_certificate(parts)?),
        replaces: None,
    };
    site.propose(Action::PutNode(Box::new(admission))).await?;
    Ok(())
}

/// Writes down what the registry gave the new site: what is left of its token, and the other sites.
async fn take_over(site: &Site, identity: &Identity, foundation: &Foundation) -> Result<(), Error> {
    if let Some(FoundingToken { id, secret, uses_left, expires_at }) = foundation.token.clone().filter(is_of_use) {
        let (token, site_name) = (id, identity.site.clone());
        let grant = TokenGrant { token, secret, site: site_name, uses: uses_left, expires_at };
        site.propose(Action::CreateToken(grant)).await?;
    }
    for notes in foundation.sites.chunks(NOTES_AT_ONCE) {
        site.propose(Action::NoteSites { notes: notes.to_vec() }).await?;
    }
    Ok(())
}

fn is_of_use(token: &FoundingToken) -> bool {
    token.uses_left > 0
}

/// Whether every step was done: the last one admits this node.
fn is_founded(site: &Site) -> Result<bool, Error> {
    Ok(members::node(&site.reader()?, site.group().node()).map_err(read_failed)?.is_some())
}

/// The founder's own certificate, noted like every other, so that removing the node revokes it.
fn own_certificate(parts: &Parts) -> Result<NodeCertificate, Error> {
    let current = parts.tls.certificate.current();
    let leaf = current
        .cert
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "found the site: the node has no certificate"))?;
    let facts = CertificateFacts::read(leaf)?;
    Ok(NodeCertificate { serial: facts.serial, not_after: facts.not_after })
}

async fn wait_until_serving(site: &Site) -> Result<(), Error> {
    let mut status = site.group().status();
    let serving = status.wait_for(|status| status.serving_term.is_some());
    match tokio::time::timeout(LEAD_BOUND, serving).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Error::new(ErrorKind::Unavailable, "found the site: its group does not come to serve")),
    }
}

fn keyring(identity: &Identity) -> Keyring {
    Keyring { generation: 1, ..identity.keyring() }
}

/// What this node says of itself.
pub(super) fn profile(identity: &Identity, settings: &Settings) -> NodeProfile {
    let mut tags = settings.tags.clone();
    tags.sort();
    tags.dedup();
    NodeProfile {
        name: identity.name.clone(),
        site: identity.site.clone(),
        address: identity.advertise.clone(),
        http_address: settings.http.to_string(),
        tags,
        slots: settings.slots,
        capabilities: settings.allow.words(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
