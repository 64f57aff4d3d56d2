//! Verification of clients at the TLS handshake: chain to the fleet's root, time, name, revocation, and what the protocol
//! asks for. What a verified client may call is decided later, by its identity.
//!
//! Invariants: between nodes nobody passes without a node's certificate; an expired certificate passes only there, and
//! only as one that may renew; a revoked one never passes.

use std::sync::Arc;

use fleet_api::identity::{CertificateFacts, RootFacts, Subject};
use fleet_api::tls::provider;
use fleet_api::validity::unix_time;
use fleet_api::{Revocations, ValidityClock};
use fleet_core::{Error, ErrorKind, FleetId};
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
    /// What is void.
    pub revocations: Revocations,
    /// By what time certificates are judged.
    pub validity: ValidityClock,
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

    /// The time to judge the chain by: now, or for a certificate that may still renew, its last moment. One that is void is
    /// judged by that too: who was removed is to be told so and not that it came late, or it would try for ever.
    fn judged_at(&self, facts: &CertificateFacts, is_void: bool) -> UnixTime {
        let now = self.trust.validity.now();
        let may_renew = self.demand == Demand::Node && standing(facts.not_after, now) == Standing::RenewalOnly;
        unix_time(if may_renew || is_void { facts.not_after } else { now })
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
        let Ok(facts) = CertificateFacts::read(end_entity) else {
            // A certificate of another fleet should be told so, one that is no certificate too.
            self.chain.verify_client_cert(end_entity, intermediates, now)?;
            return Err(CertificateError::ApplicationVerificationFailure.into());
        };
        let is_void = self.trust.revocations.cover(&facts);
        let verified = self.chain.verify_client_cert(end_entity, intermediates, self.judged_at(&facts, is_void))?;
        if is_void {
            return Err(CertificateError::Revoked.into());
        }
        let is_node = matches!(facts.name.subject, Subject::Node(_));
        if facts.name.fleet != self.fleet || (self.demand == Demand::Node && !is_node) {
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
