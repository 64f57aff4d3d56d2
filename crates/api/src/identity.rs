//! Who a certificate speaks for: one URI in its subject alternative name, `fleet://<fleet>/node/<id>` or
//! `fleet://<fleet>/admin/<id>`. Not a verification: the chain is checked elsewhere, before this name means anything.
//!
//! Invariant: a certificate names exactly one subject of exactly one fleet, or it names nobody.

use std::fmt;
use std::str::FromStr;

use fleet_core::{Error, ErrorKind, FleetId, NodeId, Timestamp};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

const SCHEME: &str = "fleet://";

/// Who holds a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A node of the fleet.
    Node(NodeId),
    /// The holder of an operator's credential.
    Admin(Uuid),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Admin(id) => write!(f, "admin/{id}"),
        }
    }
}

impl FromStr for Subject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::new(ErrorKind::InvalidInput, format!("`{text}` names neither a node nor an admin"));
        let (role, id) = text.split_once('/').ok_or_else(refused)?;
        match role {
            "node" => id.parse().map(Self::Node).map_err(|source| refused().with_source(source)),
            "admin" => id.parse().map(Self::Admin).map_err(|source| refused().with_source(source)),
            _ => Err(refused()),
        }
    }
}

/// The name in a certificate: a subject and its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateName {
    /// The fleet that vouches.
    pub fleet: FleetId,
    /// The holder.
    pub subject: Subject,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.fleet, self.subject)
    }
}

impl FromStr for CertificateName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::new(ErrorKind::Unauthenticated, format!("`{text}` is not the name of a fleet member"));
        let (fleet, subject) = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(refused)?;
        Ok(Self {
            fleet: fleet.parse().map_err(|source| refused().with_source(source))?,
            subject: subject.parse().map_err(|source: Error| refused().with_source(source))?,
        })
    }
}

/// What a certificate says, read but not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Who holds its key.
    pub name: CertificateName,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ceases to be valid.
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// Reads `certificate`, which must name exactly one member of a fleet.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = parse(certificate)?;
        let name = match fleet_uris(&parsed)?.as_slice() {
            [uri] => uri.parse()?,
            [] => return Err(unnamed("the certificate names no member of a fleet")),
            _ => return Err(unnamed("the certificate names more than one member of a fleet")),
        };
        let validity = parsed.validity();
        Ok(Self {
            name,
            serial: serial(&parsed),
            not_before: timestamp(&validity.not_before),
            not_after: timestamp(&validity.not_after),
        })
    }
}

/// The serial number of a certificate, lower-case hexadecimal.
pub(crate) fn serial(certificate: &X509Certificate<'_>) -> String {
    certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a fleet's root certificate says, read but not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFacts {
    /// The fleet.
    pub fleet: FleetId,
    /// When the root, and every certificate under it, begins to be valid.
    pub not_before: Timestamp,
    /// When it ceases to be valid.
    pub not_after: Timestamp,
}

impl RootFacts {
    /// Reads `certificate`, whose only name must be `fleet://<fleet>`.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = parse(certificate)?;
        let fleet = match fleet_uris(&parsed)?.as_slice() {
            [uri] => uri[SCHEME.len()..].parse().ok(),
            _ => None,
        };
        Ok(Self {
            fleet: fleet.ok_or_else(|| unnamed("the certificate is not the root of a fleet"))?,
            not_before: timestamp(&parsed.validity().not_before),
            not_after: timestamp(&parsed.validity().not_after),
        })
    }
}

/// The name of the root certificate of `fleet`.
pub fn root_name(fleet: FleetId) -> String {
    format!("{SCHEME}{fleet}")
}

/// What follows the scheme in the name of a member, an authority or a fleet.
pub(crate) fn after_scheme(uri: &str) -> Option<&str> {
    uri.strip_prefix(SCHEME)
}

pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|source| unnamed("the certificate is not valid X.509").with_source(source))?;
    Ok(parsed)
}

pub(crate) fn fleet_uris<'a>(parsed: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, Error> {
    let names = parsed
        .subject_alternative_name()
        .map_err(|source| unnamed("the certificate has a malformed alternative name").with_source(source))?;
    Ok(names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        })
        .collect())
}

fn unnamed(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

pub(crate) fn timestamp(time: &ASN1Time) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp()).unwrap_or_default().saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_they_were_written() {
        let fleet = FleetId::generate();
        for subject in [Subject::Node(NodeId::generate()), Subject::Admin(Uuid::now_v7())] {
            let name = CertificateName { fleet, subject };
            assert_eq!(name.to_string().parse::<CertificateName>().unwrap(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        let id = Uuid::nil();
        for text in [
            String::new(),
            "fleet://".to_owned(),
            format!("fleet://{id}"),
            format!("fleet://{id}/node"),
            format!("fleet://{id}/node/1"),
            format!("fleet://{id}/robot/{id}"),
            format!("fleet://x/node/{id}"),
            format!("fleet://{id}/node/{id}/more"),
            format!("spiffe://{id}/node/{id}"),
        ] {
            let refusal = text.parse::<CertificateName>().unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "{text}");
        }
    }
}
