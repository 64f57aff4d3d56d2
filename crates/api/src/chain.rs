//! Which authority of a fleet issued a certificate: its root, for the first site, or the one certificate between leaf and
//! root that names another site. Not a verification: signatures are checked elsewhere, and then what is read here holds.
//!
//! Invariants: at most one certificate stands between leaf and root, so the path that is verified can only be the one read
//! here; a leaf whose issuer is named like the root is the root's own, whatever else was shown with it.

use fleet_core::{Digest, Error, ErrorKind, FleetId, SiteName, Timestamp};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::identity::{self, fleet_uris, parse};

/// Who issued a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Issuer {
    /// The fleet's root: the holder belongs to the first site, or is an operator.
    Root,
    /// The authority of this other site: the holder belongs to that site.
    Site(SiteName),
}

/// Who vouches for a certificate: what may be void of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// Who issued it.
    pub issuer: Issuer,
    /// Serial number of the certificate of the site's authority that stands between, lower-case hexadecimal; none at the
    /// first site.
    pub authority: Option<String>,
}

impl Voucher {
    /// The fleet's root itself.
    pub const ROOT: Self = Self { issuer: Issuer::Root, authority: None };
}

/// What the certificate of a site's authority says, read but not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFacts {
    /// The fleet.
    pub fleet: FleetId,
    /// The site for whose nodes it vouches.
    pub site: SiteName,
    /// When it, and every certificate under it, begins to be valid.
    pub not_before: Timestamp,
    /// When it ceases to be valid.
    pub not_after: Timestamp,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of its public key (its SubjectPublicKeyInfo): the same in a later certificate of the authority.
    pub public_key: Digest,
}

impl SiteFacts {
    /// Reads `certificate`, whose only name must be `fleet://<fleet>/site/<site>`.
    ///
    /// # Errors
    /// `Unauthenticated` if it is anything else.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = parse(certificate)?;
        let refused = || refused("the certificate is not that of a site's authority");
        let named = match fleet_uris(&parsed)?.as_slice() {
            [uri] => identity::after_scheme(uri).and_then(|rest| rest.split_once("/site/")),
            _ => None,
        };
        let (fleet, site) = named.ok_or_else(refused)?;
        Ok(Self {
            fleet: fleet.parse().map_err(|source| refused().with_source(source))?,
            site: site.parse().map_err(|_| refused())?,
            not_before: identity::timestamp(&parsed.validity().not_before),
            not_after: identity::timestamp(&parsed.validity().not_after),
            serial: identity::serial(&parsed),
            public_key: Digest::of(parsed.public_key().raw),
        })
    }
}

/// The name of the authority of `site` in `fleet`.
pub fn site_authority_name(fleet: FleetId, site: &SiteName) -> String {
    format!("{}/site/{site}", identity::root_name(fleet))
}

/// A chain as it was shown, without its leaf and its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Who vouches for the leaf, if the chain holds.
    pub voucher: Voucher,
    /// The certificate between leaf and root; what is verified must use this one and no other.
    pub authority: Option<CertificateDer<'a>>,
}

impl<'a> Chain<'a> {
    /// Reads who issued `leaf`, from what was `shown` with it, the root perhaps among that.
    ///
    /// # Errors
    /// `Unauthenticated` if more was shown than a chain of this fleet has.
    pub fn read(
        leaf: &CertificateDer<'_>,
        shown: &'a [CertificateDer<'_>],
        root: &CertificateDer<'_>,
    ) -> Result<Self, Error> {
        let mut between = shown.iter().filter(|certificate| certificate.as_ref() != root.as_ref());
        let authority = between.next();
        if between.next().is_some() {
            return Err(refused("more than one authority stands between the certificate and the root"));
        }
        let Some(authority) = authority else { return Ok(Self { voucher: Voucher::ROOT, authority: None }) };
        let (leaf, root_parsed, parsed) = (parse(leaf)?, parse(root)?, parse(authority)?);
        if is_issued_by(&leaf, &root_parsed) || !is_issued_by(&leaf, &parsed) {
            return Err(refused("an authority was shown that did not issue the certificate"));
        }
        let facts = SiteFacts::read(authority)?;
        if facts.fleet != identity::RootFacts::read(root)?.fleet {
            return Err(refused("the authority of the site is of another fleet"));
        }
        let voucher = Voucher { issuer: Issuer::Site(facts.site), authority: Some(facts.serial) };
        Ok(Self { voucher, authority: Some(CertificateDer::from(authority.as_ref())) })
    }

    /// What verification of the path is to use beside leaf and root.
    pub fn intermediates(&self) -> &[CertificateDer<'a>] {
        self.authority.as_slice()
    }
}

/// Whether `leaf` names the holder of `authority` as its issuer.
fn is_issued_by(leaf: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    leaf.issuer().as_raw() == authority.subject().as_raw()
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}
