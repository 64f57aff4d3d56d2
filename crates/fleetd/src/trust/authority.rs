//! Who signs: the fleet's root, which is founded once and signs for the first site, for operators and for the authorities
//! of other sites; and such an authority, which signs for the nodes of its site. Whether somebody may have a certificate is
//! not decided here.
//!
//! Invariants: a certificate's key is the one that signed its request; its name comes from the caller, never from the
//! request; it begins to be valid when the root did and ends no later than what signed it; a site's authority signs
//! neither operators nor authorities.

use std::time::Duration;

use fleet_api::chain::{SiteFacts, site_authority_name};
use fleet_api::identity::{CertificateFacts, CertificateName, RootFacts, Subject, root_name};
use fleet_core::{Digest, Error, ErrorKind, FleetId, NodeId, SiteName, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKey, PublicKeyData, SanType, SerialNumber,
    SigningKey,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use uuid::Uuid;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a root is valid: 20 years.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long the certificate of a site's authority is valid from its issue: 5 years.
pub const SITE_LIFETIME: Duration = Duration::from_secs(5 * 365 * 86_400);
/// How long a node's certificate is valid from its issue.
pub const NODE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How long an admin's certificate is valid from its issue: 1 year.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How far before its founding a root is valid, so that nodes whose clocks are behind can use it.
const ROOT_BACKDATING: Duration = DAY;
/// Largest signing request read, bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// An uncompressed point on P-256, bytes.
const P256_POINT_BYTES: usize = 65;

/// A request for a certificate whose sender proved to hold the key.
#[derive(Debug)]
pub struct SigningRequest {
    public_key: PublicKey,
}

impl SigningRequest {
    /// Reads a PKCS #10 request and checks its signature.
    ///
    /// # Errors
    /// `InvalidInput` if it is malformed, signed by another key, or not for a P-256 key.
    pub fn parse(der: &[u8]) -> Result<Self, Error> {
        let refused = |message: &str| Error::new(ErrorKind::InvalidInput, message);
        if der.is_empty() {
            return Err(refused("the certificate signing request is missing"));
        }
        if der.len() > REQUEST_BYTES_MAX {
            return Err(refused("the certificate signing request is too large"));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|source| refused("the certificate signing request is not valid").with_source(source))?;
        let public_key = request.public_key;
        let point = public_key.der_bytes();
        if public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256
            || point.len() != P256_POINT_BYTES
            || point.first() != Some(&4)
        {
            return Err(refused("the certificate signing request is not for an ECDSA P-256 key"));
        }
        Ok(Self { public_key })
    }

    /// SHA-256 of the public key (its SubjectPublicKeyInfo): what a redemption of a token is remembered by.
    pub fn public_key_digest(&self) -> Digest {
        Digest::of(&self.public_key.subject_public_key_info())
    }
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate and those that vouch for it, leaf first, root last.
    pub chain: Vec<CertificateDer<'static>>,
    /// What it says.
    pub facts: CertificateFacts,
}

/// The holder of a fleet's root key, or of the key of a site's authority.
pub struct Authority {
    /// Its own certificate first, the root last; one and the same for the root.
    chain: Vec<CertificateDer<'static>>,
    fleet: FleetId,
    /// The site for whose nodes it signs; `None`: it is the root.
    site: Option<SiteName>,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the root of `fleet` with a new key.
    pub fn found(fleet: FleetId, now: Timestamp) -> Result<Self, Error> {
        let failed = |source: rcgen::Error| {
            Error::new(ErrorKind::Internal, format!("make the root certificate of fleet {fleet}")).with_source(source)
        };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let not_before = Timestamp(now.0.saturating_sub(millis(ROOT_BACKDATING)));
        let mut params = CertificateParams::default();
        set_validity(&mut params, not_before, now.saturating_add(ROOT_LIFETIME));
        params.serial_number = Some(random_serial()?);
        params.distinguished_name = common_name(&format!("fleet {fleet}"));
        params.subject_alt_names = vec![uri(&root_name(fleet))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).map_err(failed)?.der().clone();
        Self::with_key(vec![root], key)
    }

    /// The authority of `chain`, its own certificate first, the root last, with its key, PKCS #8.
    ///
    /// # Errors
    /// `InvalidInput` if they do not belong together.
    pub fn from_parts(chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Result<Self, Error> {
        let key = PrivatePkcs8KeyDer::from(key);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| Error::new(ErrorKind::InvalidInput, "read an authority's key").with_source(source))?;
        Self::with_key(chain, key)
    }

    fn with_key(chain: Vec<CertificateDer<'static>>, key: KeyPair) -> Result<Self, Error> {
        let refused = |message: &str| Error::new(ErrorKind::InvalidInput, message);
        let (own, site) = match chain.as_slice() {
            [root] => (root, None),
            [own, _root] => (own, Some(SiteFacts::read(own)?)),
            _ => return Err(refused("read an authority: its chain has neither one certificate nor two")),
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(own)
            .map_err(|source| refused("read an authority's certificate").with_source(source))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(refused("the key is not that of the authority's certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(own, key)
            .map_err(|source| refused("read an authority's certificate").with_source(source))?;
        let (fleet, not_before, not_after, site) = match site {
            Some(facts) => (facts.fleet, facts.not_before, facts.not_after, Some(facts.site)),
            None => {
                let facts = RootFacts::read(own)?;
                (facts.fleet, facts.not_before, facts.not_after, None)
            }
        };
        Ok(Self { chain, fleet, site, not_before, not_after, issuer })
    }

    /// The fleet.
    pub fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The site for whose nodes it signs, where it is not the fleet's root.
    pub fn site(&self) -> Option<&SiteName> {
        self.site.as_ref()
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.chain[self.chain.len() - 1]
    }

    /// What vouches for what it signs: its own certificate first, the root last.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Its key, PKCS #8, to be sealed.
    pub fn key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().serialize_der())
    }

    /// Its signature over `bytes`, which say what they are for: ECDSA with SHA-256, ASN.1.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.issuer.key().sign(bytes);
        signed.map_err(|source| Error::new(ErrorKind::Internal, "sign with an authority's key").with_source(source))
    }

    /// A node's certificate, for TLS in both roles.
    pub fn issue_node(&self, request: &SigningRequest, node: NodeId, now: Timestamp) -> Result<Issued, Error> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(request, Subject::Node(node), now.saturating_add(NODE_LIFETIME), usages)
    }

    /// An operator's certificate, for clients only.
    ///
    /// # Errors
    /// `FailedPrecondition` unless this is the root.
    pub fn issue_admin(&self, request: &SigningRequest, admin: Uuid, now: Timestamp) -> Result<Issued, Error> {
        self.require_root("sign an operator's certificate")?;
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(request, Subject::Admin(admin), now.saturating_add(ADMIN_LIFETIME), usages)
    }

    /// The certificate of the authority of `site`, which signs for nodes and for no other authority.
    ///
    /// # Errors
    /// `FailedPrecondition` unless this is the root.
    pub fn issue_site(
        &self,
        request: &SigningRequest,
        site: &SiteName,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, Error> {
        self.require_root("sign the authority of another site")?;
        let mut params = CertificateParams::default();
        set_validity(&mut params, self.not_before, now.saturating_add(SITE_LIFETIME).min(self.not_after));
        params.serial_number = Some(random_serial()?);
        // Another name than the root's: the issuer that a certificate names tells which of the two signed it.
        params.distinguished_name = common_name(site.as_str());
        params.distinguished_name.push(DnType::OrganizationName, format!("fleet {}", self.fleet));
        params.subject_alt_names = vec![uri(&site_authority_name(self.fleet, site))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&request.public_key, &self.issuer).map_err(|source| {
            Error::new(ErrorKind::Internal, format!("sign the authority of site {site}")).with_source(source)
        })?;
        Ok(signed.der().clone())
    }

    fn require_root(&self, operation: &str) -> Result<(), Error> {
        let Some(site) = &self.site else { return Ok(()) };
        let message = format!("{operation}: the authority of site {site} may not, only the fleet's root");
        Err(Error::new(ErrorKind::FailedPrecondition, message).with_next_step("Do it at the fleet's first site."))
    }

    fn issue(
        &self,
        request: &SigningRequest,
        subject: Subject,
        not_after: Timestamp,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Issued, Error> {
        let name = CertificateName { fleet: self.fleet, subject };
        let mut params = CertificateParams::default();
        set_validity(&mut params, self.not_before, not_after.min(self.not_after));
        params.serial_number = Some(random_serial()?);
        params.distinguished_name = common_name(&subject.to_string());
        params.subject_alt_names = vec![uri(&name.to_string())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&request.public_key, &self.issuer).map_err(|source| {
            Error::new(ErrorKind::Internal, format!("sign the certificate of {name}")).with_source(source)
        })?;
        let leaf = leaf.der().clone();
        let facts = CertificateFacts::read(&leaf)?;
        let chain = std::iter::once(leaf).chain(self.chain.iter().cloned()).collect();
        Ok(Issued { chain, facts })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fleet", &self.fleet).field("site", &self.site).finish_non_exhaustive()
    }
}

/// `certificates` as PEM text, in their order.
pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine;
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        for (index, character) in encoded.chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Makes `params` valid from `not_before` to `not_after`, in whole seconds.
fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.0 / 1_000);
    params.not_after = epoch + Duration::from_secs(not_after.0 / 1_000);
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn uri(text: &str) -> Result<SanType, Error> {
    let name = text.try_into().map_err(|source: rcgen::Error| {
        Error::new(ErrorKind::Internal, format!("put `{text}` into a certificate")).with_source(source)
    })?;
    Ok(SanType::URI(name))
}

/// Sixteen random bytes, positive as a number.
fn random_serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|source| Error::new(ErrorKind::Internal, "draw a serial number").with_source(source))?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
