//! Verification of clients at the TLS handshake: chain to the fleet's root, time, name, revocation, and what the protocol
//! asks for. What a verified client may call is decided later, by its identity.
//!
//! Invariants: between nodes nobody passes without a node's certificate; an expired certificate passes only there, only at
//! its own site, and only as one that may renew; a revoked one never passes; a site's authority vouches for its own nodes
//! and for nobody else, no operator either.

use std::sync::Arc;

use fleet_api::chain::{Chain, Issuer};
use fleet_api::identity::{CertificateFacts, RootFacts, Subject};
use fleet_api::tls::provider;
use fleet_api::validity::unix_time;
use fleet_api::{Revocations, ValidityClock};
use fleet_core::{Error, ErrorKind, FleetId, SiteName};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::trust::renewal::{Standing, standing};

/// Who must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nodes and admins show theirs; without one the connection is anonymous.
    Optional,
    /// Only nodes, always with a certificate.
    Node,
}

/// The fleet as seen by who verifies.
#[derive(Clone, Debug)]
pub struct FleetTrust {
    /// The root certificate.
    pub root: CertificateDer<'static>,
    /// The site of this node.
    pub own_site: SiteName,
    /// The site whose nodes have their certificates from the root itself.
    pub first_site: SiteName,
    /// What is void.
    pub revocations: Revocations,
    /// By what time certificates are judged.
    pub validity: ValidityClock,
}

impl FleetTrust {
    /// The site of the nodes for which `issuer` vouches.
    ///
    /// # Errors
    /// `Unauthenticated` for an authority that names the first site: the root signs none for it.
    pub fn site_of(&self, issuer: Issuer) -> Result<SiteName, Error> {
        match issuer {
            Issuer::Root => Ok(self.first_site.clone()),
            Issuer::Site(site) if site != self.first_site => Ok(site),
            Issuer::Site(site) => {
                let message = format!("site `{site}` has no authority but the fleet's root");
                Err(Error::new(ErrorKind::Unauthenticated, message))
            }
        }
    }

    /// What issues the certificates of the nodes of `site`.
    pub fn issuer_of(&self, site: &SiteName) -> Issuer {
        if *site == self.first_site { Issuer::Root } else { Issuer::Site(site.clone()) }
    }
}

/// Verifies clients of one protocol.
#[derive(Debug)]
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    fleet: FleetId,
    trust: FleetTrust,
    demand: Demand,
}

impl ClientVerifier {
    /// A verifier under `trust` that asks for what `demand` says.
    pub fn new(trust: FleetTrust, demand: Demand) -> Result<Self, Error> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Internal, "use the root certificate of the fleet").with_source(source)
        };
        let fleet = RootFacts::read(&trust.root)?.fleet;
        let mut roots = RootCertStore::empty();
        roots.add(trust.root.clone()).map_err(|source| unusable(source.into()))?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|source| unusable(source.into()))?;
        Ok(Self { chain, fleet, trust, demand })
    }

    /// The time to judge the chain by: now, or for a certificate that may still renew here, its last moment. One that is
    /// void is judged by that too: who was removed is to be told so and not that it came late, or it would try for ever.
    fn judged_at(&self, facts: &CertificateFacts, issuer: &Issuer, is_void: bool) -> UnixTime {
        let now = self.trust.validity.now();
        let is_ours = *issuer == self.trust.issuer_of(&self.trust.own_site);
        let may_renew = is_ours && self.demand == Demand::Node;
        let is_expired = standing(facts.not_after, now) == Standing::RenewalOnly;
        unix_time(if (may_renew && is_expired) || is_void { facts.not_after } else { now })
    }

    /// Whether `issuer` may vouch for `subject` at all.
    fn may_vouch(&self, issuer: Issuer, subject: Subject) -> bool {
        match subject {
            Subject::Node(_) => self.trust.site_of(issuer).is_ok(),
            Subject::Admin(_) => issuer == Issuer::Root,
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.demand == Demand::Node
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let read = CertificateFacts::read(end_entity)
            .and_then(|facts| Ok((facts, Chain::read(end_entity, intermediates, &self.trust.root)?)));
        let Ok((facts, chain)) = read else {
            // A certificate of another fleet should be told so, one that is no certificate too.
            self.chain.verify_client_cert(end_entity, intermediates, now)?;
            return Err(CertificateError::ApplicationVerificationFailure.into());
        };
        let is_void = self.trust.revocations.cover(&facts, &chain.voucher);
        let at = self.judged_at(&facts, &chain.voucher.issuer, is_void);
        let verified = self.chain.verify_client_cert(end_entity, chain.intermediates(), at)?;
        if is_void {
            return Err(CertificateError::Revoked.into());
        }
        let is_node = matches!(facts.name.subject, Subject::Node(_));
        let is_vouched_for = self.may_vouch(chain.voucher.issuer, facts.name.subject);
        if facts.name.fleet != self.fleet || !is_vouched_for || (self.demand == Demand::Node && !is_node) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
