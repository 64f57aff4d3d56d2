//! The certificates of sites' authorities, renewed in time: a site asks the registry over a link, with a request that proves
//! that it has the authority's key; the registry signs, and records what it signed before anybody gets it.
//!
//! Invariants: the key stays the same, so what either certificate vouches for is accepted while both are valid; only who
//! has the recorded authority's key is given another certificate, whichever node of the site the link proved.

use std::sync::Arc;
use std::time::Duration;

use fleet_api::SiteFacts;
use fleet_core::{Digest, Error, ErrorKind, SiteName};
use fleet_node::ports::{SiteServer, SiteTopic, Sites};
use fleet_replication::command::{Action, LINKS_VERSION, SiteRenewal};
use fleet_store::StateReader;
use fleet_store::record::{Payload, PeerSite, SiteRecord};
use fleet_store::state::{jobs, sites};
use futures_util::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::site::{Site, not_found, read_failed};
use crate::trust::authority::SigningRequest;
use crate::trust::keeper::{TrustKeeper, site_certificate};
use crate::trust::renewal::{is_authority_due, retry_in};
use crate::trust::site_key::SiteKey;
use crate::trust::vouching::AuthoritySignatures;

/// Version of the messages' format, their first byte: the notes of sites, which share the topic, have others.
pub const FORMAT: u8 = 2;
/// How often it is looked whether the authority's certificate is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What a site asks the registry.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// For a later certificate of its authority; a request by the authority's key, PKCS #10.
    Renew(Payload),
}

/// What the registry answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The certificate, DER: the one that the site has if it is not due by the registry's clock.
    Certificate(Payload),
}

/// Asks for certificates, and gives them. A cheap handle.
#[derive(Clone)]
pub struct Authorities {
    site: Site,
    trust: TrustKeeper,
    first_site: SiteName,
}

impl Authorities {
    /// Those of `site`, whose key `trust` opens, in a fleet whose registry is kept at `first_site`.
    pub fn new(site: Site, trust: TrustKeeper, first_site: SiteName) -> Self {
        Self { site, trust, first_site }
    }

    /// Renews the site's own for as long as the node runs; only the leader does, and only over a link.
    pub async fn run(self, links: Arc<dyn Sites>) {
        let known = links.known();
        let mut failures = 0;
        loop {
            tokio::time::sleep(if failures > 0 { retry_in(failures) } else { LOOK_EVERY }).await;
            let is_linked = known.borrow().get(&self.first_site).is_some_and(|site| site.is_linked);
            if !is_linked || self.site.group().serving_term().is_none() {
                failures = 0;
                continue;
            }
            match self.renew(links.as_ref()).await {
                Ok(is_renewed) => {
                    failures = 0;
                    if is_renewed {
                        tracing::info!("the site's authority has a later certificate");
                    }
                }
                Err(error) => {
                    failures += 1;
                    let error = fleet_core::error::chain(&error);
                    tracing::warn!(error, failures, "the certificate of the site's authority is not renewed");
                }
            }
        }
    }

    /// Renews the certificate of the site's own authority if it is due. Whether it was.
    ///
    /// # Errors
    /// If the registry gives none that is later, or cannot be asked.
    pub(crate) async fn renew(&self, links: &dyn Sites) -> Result<bool, Error> {
        let state = self.site.reader()?;
        let current = site_certificate(&state)?;
        if current.as_slice().is_empty() || !knows_renewals(&state)? {
            return Ok(false);
        }
        let facts = facts_of(&current)?;
        if !is_authority_due(facts.not_after, self.trust.now()) {
            return Ok(false);
        }
        let authority = self.trust.authority(&state)?;
        let csr = SiteKey::from_bytes(&authority.key())?.signing_request()?;
        let question = encode(&Question::Renew(Payload::from(csr)))?;
        let answer = links.ask(self.first_site.clone(), SiteTopic::Registry, question).await?;
        let Answer::Certificate(later) = decode(&answer)?;
        let told = facts_of(&later)?;
        let is_ours = told.public_key == facts.public_key
            && AuthoritySignatures::of(authority.root())?.is_authority(&later, &facts.site);
        if !is_ours || told.not_after <= facts.not_after {
            let message = "renew the site's authority: what the registry gives is not a later certificate of it";
            return Err(Error::new(ErrorKind::Unavailable, message)
                .with_next_step("Check the clocks here and at the first site: `fleetctl doctor`."));
        }
        let replaces = Digest::of(current.as_slice());
        self.site.propose(Action::RenewAuthority { replaces, certificate: later }).await?;
        Ok(true)
    }

    /// The certificate for the authority of `from`, which asks with `csr`.
    pub(crate) async fn certify(&self, from: SiteName, csr: &[u8]) -> Result<Payload, Error> {
        let operation = format!("renew the authority of site `{from}`");
        let state = self.site.current_reader().await?;
        if !sites::is_registry(&state).map_err(read_failed)? {
            let message = format!("{operation}: this site does not keep the fleet's registry");
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let known = sites::site(&state, &from).map_err(read_failed)?;
        let SiteRecord { group, authority: current, .. } = known.ok_or_else(|| not_found("site", &from.to_string()))?;
        let (facts, request) = (facts_of(&current)?, SigningRequest::parse(csr)?);
        if request.public_key_digest() != facts.public_key {
            let message = format!("{operation}: the request is not by the key of that authority");
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        if !is_authority_due(facts.not_after, self.trust.now()) || !knows_renewals(&state)? {
            // Given before, and not heard; or the clock there is ahead.
            return Ok(current);
        }
        let signed = self.trust.authority(&state)?.issue_site(&request, &from, self.trust.now())?;
        let later = Payload::from(signed.to_vec());
        let (replaces, serial) = (Digest::of(current.as_slice()), facts.serial);
        let site = PeerSite { group, site: from };
        let renewal = SiteRenewal { site, replaces, serial, authority: later.clone() };
        self.site.propose(Action::RenewSite(Box::new(renewal))).await?;
        Ok(later)
    }
}

impl SiteServer for Authorities {
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let authorities = self.clone();
        Box::pin(async move {
            let Question::Renew(csr) = decode(&message)?;
            encode(&Answer::Certificate(authorities.certify(from, csr.as_slice()).await?))
        })
    }
}

/// Whether every node of the site knows the commands that this takes.
fn knows_renewals(state: &StateReader) -> Result<bool, Error> {
    Ok(jobs::site(state).map_err(read_failed)?.gate >= LINKS_VERSION)
}

fn facts_of(certificate: &Payload) -> Result<SiteFacts, Error> {
    SiteFacts::read(&CertificateDer::from(certificate.as_slice()))
}

fn encode(message: &impl Serialize) -> Result<Payload, Error> {
    postcard::to_extend(message, vec![FORMAT])
        .map(Payload::from)
        .map_err(|source| Error::new(ErrorKind::Internal, "ask about a site's authority").with_source(source))
}

fn decode<T: DeserializeOwned>(message: &Payload) -> Result<T, Error> {
    let refused = || Error::new(ErrorKind::InvalidInput, "read what another site says of an authority");
    match message.as_slice().split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|source| refused().with_source(source)),
        _ => Err(refused()),
    }
}
