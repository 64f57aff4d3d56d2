//! TLS towards a node: which root is believed, who must answer, and the certificate shown. Also the pieces that a
//! server needs as well: the certificate that can be exchanged while in use, the protocol names, the provider.
//!
//! Not the server's verifier of clients, and no sockets.
//!
//! Invariants: TLS 1.3 only; no session resumption, so every handshake verifies anew; a node is known by the name in its
//! certificate, never by its address.

use std::sync::{Arc, RwLock};

use fleet_core::{Digest, Error, ErrorKind, FleetId, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::chain::{Chain, Issuer, Voucher};
use crate::identity::{CertificateFacts, RootFacts, Subject};
use crate::revocation::Revocations;
use crate::status;
use crate::validity::{ValidityClock, unix_time};

/// gRPC `fleet.v1`, for clients.
pub const ALPN_CLIENT: &[u8] = b"h2";
/// gRPC `fleet.peer.v1`, between nodes.
pub const ALPN_PEER: &[u8] = b"fleet-peer/1";
/// Links of remote actors.
pub const ALPN_ACTORS: &[u8] = b"fleet-actors/1";

/// The one cryptography provider of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A certificate chain with its key, exchanged at renewal while connections go on. New handshakes use the new one.
#[derive(Clone, Debug)]
pub struct CertificateCell(Arc<RwLock<Arc<CertifiedKey>>>);

impl CertificateCell {
    /// A cell that holds `chain`, leaf first, and the leaf's `key`.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(certified_key(chain, key)?)))))
    }

    /// Puts `chain` and `key` in the place of what the cell holds.
    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), Error> {
        let fresh = Arc::new(certified_key(chain, key)?);
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What the cell holds now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What the leaf says.
    pub fn facts(&self) -> Result<CertificateFacts, Error> {
        match self.current().cert.first() {
            Some(leaf) => CertificateFacts::read(leaf),
            None => Err(Error::new(ErrorKind::Internal, "the certificate chain is empty")),
        }
    }

    /// Who issued the leaf, under `root`.
    pub fn issuer(&self, root: &CertificateDer<'_>) -> Result<Issuer, Error> {
        let current = self.current();
        match current.cert.split_first() {
            Some((leaf, shown)) => Ok(Chain::read(leaf, shown, root)?.voucher.issuer),
            None => Err(Error::new(ErrorKind::Internal, "the certificate chain is empty")),
        }
    }
}

impl ResolvesClientCert for CertificateCell {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for CertificateCell {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn certified_key(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, Error> {
    let unusable = |source: rustls::Error| {
        Error::new(ErrorKind::InvalidInput, "the certificate and its key do not belong together").with_source(source)
    };
    if chain.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "the certificate chain is empty"));
    }
    let key = provider().key_provider.load_private_key(key).map_err(unusable)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(unusable)?;
    Ok(certified)
}

/// Which root certificate is believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// This one.
    Root(CertificateDer<'static>),
    /// The one with this SHA-256, which the node must show: what a join token says.
    RootDigest(Digest),
    /// The one the node shows. Only towards a development fleet on this machine.
    Shown,
}

/// How to speak TLS to a node.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Which root is believed.
    pub trust: Trust,
    /// The node that must answer; any node of the fleet if none.
    pub expected: Option<NodeId>,
    /// Whose authority must have issued the certificate of the node that answers; any in the fleet if none.
    pub issuer: Option<Issuer>,
    /// What we show; nothing if none.
    pub certificate: Option<CertificateCell>,
    /// Who must not answer.
    pub revocations: Revocations,
    /// By what time certificates are judged.
    pub validity: ValidityClock,
}

impl ClientTls {
    /// TLS to any node under `trust`, showing nothing.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            expected: None,
            issuer: None,
            certificate: None,
            revocations: Revocations::new(),
            validity: ValidityClock::system(),
        }
    }

    /// Whose certificate the first of `shown` is, and who vouches for it. Not a verification.
    pub(crate) fn read(&self, shown: &[CertificateDer<'_>]) -> Result<(CertificateFacts, Voucher), Error> {
        let missing = || Error::new(ErrorKind::Unauthenticated, "the node shows no certificate");
        let (leaf, others) = shown.split_first().ok_or_else(missing)?;
        let root = believed_root(&self.trust, others)?;
        Ok((CertificateFacts::read(leaf)?, Chain::read(leaf, others, &root)?.voucher))
    }

    /// The configuration for one protocol.
    pub fn config(&self, alpn: &[u8]) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| Error::new(ErrorKind::Internal, "set up TLS").with_source(source))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NodeVerifier::new(self.clone())));
        let mut config = match &self.certificate {
            Some(cell) => builder.with_client_cert_resolver(Arc::new(cell.clone())),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// Verifies the node that answers: chain to the believed root, time, name, revocation.
#[derive(Debug)]
struct NodeVerifier {
    tls: ClientTls,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    fn new(tls: ClientTls) -> Self {
        Self { tls, algorithms: provider().signature_verification_algorithms }
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let root = believed_root(&self.tls.trust, intermediates).map_err(refused)?;
        let chain = Chain::read(leaf, intermediates, &root);
        let mut now = self.tls.validity.now();
        if matches!(self.tls.trust, Trust::RootDigest(_)) {
            // A box whose clock lost its time may join: a pinned root was valid from its own first day on.
            now = now.max(RootFacts::read(&root).map_err(refused)?.not_before);
        }
        let fleet = RootFacts::read(&root).map_err(refused)?.fleet;
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        // What is no chain of this fleet is told by the verification why; should that pass it all the same, it is refused.
        let intermediates = chain.as_ref().map_or(intermediates, Chain::intermediates);
        let time = unix_time(now);
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, time, self.algorithms.all)?;
        let chain = chain.map_err(refused)?;
        if self.tls.issuer.as_ref().is_some_and(|expected| *expected != chain.voucher.issuer) {
            let message = "a node of another site answered than the one meant";
            return Err(refused(Error::new(ErrorKind::Unavailable, message)).into());
        }
        self.verify_name(leaf, fleet, &chain.voucher)?;
        Ok(())
    }

    fn verify_name(
        &self,
        leaf: &CertificateDer<'_>,
        fleet: FleetId,
        voucher: &Voucher,
    ) -> Result<(), CertificateError> {
        let facts = CertificateFacts::read(leaf).map_err(refused)?;
        if facts.name.fleet != fleet {
            let message = format!("{} answered, which is of another fleet", facts.name);
            return Err(refused(Error::new(ErrorKind::Unauthenticated, message)));
        }
        let Subject::Node(node) = facts.name.subject else {
            let message = format!("{} answered, which is no node", facts.name);
            return Err(refused(Error::new(ErrorKind::Unauthenticated, message)));
        };
        if let Some(expected) = self.tls.expected.filter(|expected| *expected != node) {
            return Err(refused(Error::new(
                ErrorKind::Unavailable,
                format!("node {node} answered at the address of node {expected}"),
            )));
        }
        if self.tls.revocations.cover(&facts, voucher) {
            return Err(CertificateError::Revoked);
        }
        Ok(())
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify_chain(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The root to verify against, from what is believed and what was shown.
fn believed_root(trust: &Trust, shown: &[CertificateDer<'_>]) -> Result<CertificateDer<'static>, Error> {
    match trust {
        Trust::Root(root) => Ok(root.clone()),
        Trust::RootDigest(digest) => shown
            .iter()
            .find(|certificate| Digest::of(certificate) == *digest)
            .map(|certificate| certificate.clone().into_owned())
            .ok_or_else(|| {
                Error::new(ErrorKind::Unauthenticated, "the node belongs to another fleet than the join token")
                    .with_next_step("Use a token of the seed's own fleet: `fleetctl token create` there.")
            }),
        Trust::Shown => shown
            .last()
            .map(|certificate| certificate.clone().into_owned())
            .ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "the node shows no root certificate")),
    }
}

/// `refusal` inside an error of rustls, where [`error_of_tls`] finds it again.
fn refused(refusal: Error) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(refusal)))
}

/// Whether `error` of a connection says that the node there, which had proved who it is, holds our certificate void.
pub fn is_revoked_here(error: &Error) -> bool {
    matches!(tls_cause(error), Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked)))
}

/// Whether `error` of a connection says that the node there belongs to another fleet.
pub fn is_other_fleet(error: &Error) -> bool {
    matches!(tls_cause(error), Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

fn tls_cause(error: &Error) -> Option<&rustls::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// What a failed handshake or a broken TLS connection to `address` means.
pub fn error_of_tls(address: &str, error: &rustls::Error) -> Error {
    use rustls::AlertDescription as Alert;
    let denied = |message: String| Error::new(ErrorKind::Unauthenticated, message);
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            match cause.downcast_ref::<Error>() {
                Some(ours) => status::copy(ours),
                None => denied(format!("verify the node at {address}: {cause}")),
            }
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            denied(format!("the node at {address} belongs to another fleet"))
                .with_next_step("Use the credential of that node's fleet.")
                .with_source(error.clone())
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            denied(format!("the certificate of the node at {address} has expired"))
        }
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => {
            denied(format!("the node at {address} was removed from the fleet"))
        }
        rustls::Error::InvalidCertificate(cause) => denied(format!("verify the node at {address}: {cause}")),
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            denied(format!("the node at {address} refused our certificate: it has expired or is not valid yet"))
        }
        rustls::Error::AlertReceived(Alert::CertificateRevoked) => {
            denied(format!("the node at {address} refused our certificate: it was revoked")).with_source(error.clone())
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            denied(format!("the node at {address} requires a certificate"))
        }
        rustls::Error::AlertReceived(Alert::UnknownCA) => {
            denied(format!("the node at {address} refused our certificate: it is of another fleet"))
        }
        rustls::Error::AlertReceived(Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied) => {
            denied(format!("the node at {address} refused our certificate"))
        }
        rustls::Error::AlertReceived(Alert::NoApplicationProtocol) => {
            Error::new(ErrorKind::Unsupported, format!("the node at {address} does not speak this protocol"))
        }
        other => Error::new(ErrorKind::Unavailable, format!("TLS with {address} failed: {other}")),
    }
}
