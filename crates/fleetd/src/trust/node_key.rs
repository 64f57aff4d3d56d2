//! A node's key and certificate in its data directory: one file, `node.pem`, with the key first and, once there is one,
//! the chain, leaf first, root last. And `sealing.key`, which opens what was sealed for this node.
//!
//! Invariants: mode 0600; the key is on the disk before it is used, so that a join that is repeated shows the same key;
//! key and certificate change together.

use std::path::{Path, PathBuf};

use fleet_api::credential::{read_private, write_private};
use fleet_api::tls::CertificateCell;
use fleet_core::{Error, ErrorKind};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::trust::authority::to_pem;
use crate::trust::sealing::SealingKey;

const KEY_FILE: &str = "node.pem";
const SEALING_FILE: &str = "sealing.key";
/// First word of the sealing key's file: the version of its format.
const SEALING_FORMAT: &str = "fleet-sealing-1";

/// A node's key, and its certificate once it has one.
pub struct NodeKey {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
}

impl NodeKey {
    /// A new key without a certificate.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| Error::new(ErrorKind::Internal, "make a node key").with_source(source))?;
        Ok(Self { key, chain: Vec::new() })
    }

    /// The key in the data directory `directory`; a new one, already kept there, if there is none.
    pub fn load_or_generate(directory: &Path) -> Result<Self, Error> {
        match read_private(&directory.join(KEY_FILE)) {
            Ok(text) => Self::parse(&text, &directory.join(KEY_FILE)),
            Err(error) if error.kind == ErrorKind::NotFound => {
                let fresh = Self::generate()?;
                fresh.save(directory)?;
                Ok(fresh)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps key and chain in the data directory `directory`.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        let text = self.key.serialize_pem() + &to_pem(&self.chain);
        write(directory.join(KEY_FILE), text.as_bytes())
    }

    /// The same key with the certificate it was given.
    ///
    /// # Errors
    /// `InvalidInput` if the certificate is for another key.
    pub fn with_chain(self, chain: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let key = Self { key: self.key, chain };
        key.cell()?;
        Ok(key)
    }

    /// A request for a certificate for this key, DER. The name in the certificate is the issuer's choice.
    pub fn signing_request(&self) -> Result<Vec<u8>, Error> {
        let request = CertificateParams::default().serialize_request(&self.key).map_err(|source| {
            Error::new(ErrorKind::Internal, "make a certificate signing request").with_source(source)
        })?;
        Ok(request.der().to_vec())
    }

    /// The chain, leaf first, root last; empty before the first certificate.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The fleet's root, if there is a certificate.
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    /// The key, PKCS #8 PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Key and chain as TLS takes them.
    ///
    /// # Errors
    /// `InvalidInput` if there is no certificate or it is for another key.
    pub fn cell(&self) -> Result<CertificateCell, Error> {
        CertificateCell::new(self.chain.clone(), self.private_key())
    }

    /// Puts key and chain into `cell`, in the place of older ones.
    pub fn install(&self, cell: &CertificateCell) -> Result<(), Error> {
        cell.replace(self.chain.clone(), self.private_key())
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Internal, format!("read {}", path.display()))
                .with_next_step("The file is damaged. Restore it, or join again with an empty data directory.")
                .with_source(source)
        };
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(first_block(text), &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| damaged(source.into()))?;
        let chain = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| damaged(source.into()))?;
        let loaded = Self { key, chain };
        if !loaded.chain.is_empty() {
            loaded.cell().map_err(|source| damaged(source.into()))?;
        }
        Ok(loaded)
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// The sealing key in the data directory `directory`; a new one, already kept there, if there is none.
pub fn load_or_generate_sealing_key(directory: &Path) -> Result<SealingKey, Error> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    let path = directory.join(SEALING_FILE);
    match read_private(&path) {
        Ok(text) => {
            let encoded = text.trim().strip_prefix(SEALING_FORMAT).map(str::trim);
            let bytes = encoded.and_then(|encoded| engine.decode(encoded).ok()).map(zeroize::Zeroizing::new);
            let bytes = bytes.ok_or_else(|| {
                Error::new(ErrorKind::Internal, format!("read {}: its format is not known", path.display()))
            })?;
            SealingKey::from_bytes(&bytes)
        }
        Err(error) if error.kind == ErrorKind::NotFound => {
            let fresh = SealingKey::generate()?;
            let text = format!("{SEALING_FORMAT} {}\n", engine.encode(fresh.to_bytes()?.as_slice()));
            write(path, text.as_bytes())?;
            Ok(fresh)
        }
        Err(error) => Err(error),
    }
}

/// The first PEM block of `text`: the key.
fn first_block(text: &str) -> &str {
    match text.find("-----BEGIN CERTIFICATE-----") {
        Some(end) => &text[..end],
        None => text,
    }
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<(), Error> {
    write_private(&path, bytes)
        .map_err(|source| Error::new(ErrorKind::Internal, format!("write {}", path.display())).with_source(source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fleet_core::{FleetId, NodeId, Timestamp};

    use super::*;
    use crate::trust::authority::{Authority, SigningRequest};

    #[test]
    fn key_and_chain_survive_and_are_secret() {
        let directory = tempfile::tempdir().unwrap();
        let first = NodeKey::load_or_generate(directory.path()).unwrap();
        let again = NodeKey::load_or_generate(directory.path()).unwrap();
        assert_eq!(first.key_pem(), again.key_pem(), "a second start must show the same key");
        let authority = Authority::found(FleetId::generate(), Timestamp(1_800_000_000_000)).unwrap();
        let request = SigningRequest::parse(&again.signing_request().unwrap()).unwrap();
        let issued = authority.issue_node(&request, NodeId::generate(), Timestamp(1_800_000_000_000)).unwrap();
        again.with_chain(issued.chain.clone()).unwrap().save(directory.path()).unwrap();
        let loaded = NodeKey::load_or_generate(directory.path()).unwrap();
        assert_eq!(loaded.chain(), issued.chain);
        assert_eq!(loaded.root(), Some(authority.root()));
        load_or_generate_sealing_key(directory.path()).unwrap();
        for name in [KEY_FILE, SEALING_FILE] {
            let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let authority = Authority::found(FleetId::generate(), Timestamp(1_800_000_000_000)).unwrap();
        let other = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&other.signing_request().unwrap()).unwrap();
        let issued = authority.issue_node(&request, NodeId::generate(), Timestamp(1_800_000_000_000)).unwrap();
        let refusal = NodeKey::generate().unwrap().with_chain(issued.chain).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::InvalidInput);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_damaged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        NodeKey::load_or_generate(directory.path()).unwrap();
        let path = directory.path().join(KEY_FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(NodeKey::load_or_generate(directory.path()).unwrap_err().kind, ErrorKind::PermissionDenied);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "nothing").unwrap();
        assert_eq!(NodeKey::load_or_generate(directory.path()).unwrap_err().kind, ErrorKind::Internal);
    }

    #[test]
    fn the_sealing_key_is_the_same_at_every_start() {
        let directory = tempfile::tempdir().unwrap();
        let first = load_or_generate_sealing_key(directory.path()).unwrap();
        let again = load_or_generate_sealing_key(directory.path()).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        std::fs::write(directory.path().join(SEALING_FILE), "fleet-sealing-2 AAAA").unwrap();
        assert_eq!(load_or_generate_sealing_key(directory.path()).unwrap_err().kind, ErrorKind::Internal);
    }
}
