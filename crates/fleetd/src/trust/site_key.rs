//! The key of a site's authority with the founder, before there is a certificate for it: the root signs a request and never
//! sees the key.

use fleet_core::{Error, ErrorKind};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::trust::authority::Authority;

/// A key without its certificate.
pub struct SiteKey(KeyPair);

impl SiteKey {
    /// A new key.
    ///
    /// # Errors
    /// `Internal` if there is no randomness.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| {
            Error::new(ErrorKind::Internal, "make the key of a site's authority").with_source(source)
        })?;
        Ok(Self(key))
    }

    /// The key in `bytes`, PKCS #8.
    ///
    /// # Errors
    /// `InvalidInput` if they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let key = PrivatePkcs8KeyDer::from(bytes);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| {
            Error::new(ErrorKind::InvalidInput, "read the key of a site's authority").with_source(source)
        })?;
        Ok(Self(key))
    }

    /// The key, PKCS #8.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    /// A request for its certificate, DER. The name in the certificate is the issuer's choice.
    ///
    /// # Errors
    /// `Internal` if it cannot be made.
    pub fn signing_request(&self) -> Result<Vec<u8>, Error> {
        let request = CertificateParams::default().serialize_request(&self.0).map_err(|source| {
            Error::new(ErrorKind::Internal, "ask for the certificate of a site's authority").with_source(source)
        })?;
        Ok(request.der().to_vec())
    }

    /// The authority with its `chain`: its own certificate first, the root last.
    ///
    /// # Errors
    /// `InvalidInput` if the certificate is for another key.
    pub fn into_authority(self, chain: Vec<CertificateDer<'static>>) -> Result<Authority, Error> {
        Authority::from_parts(chain, &self.to_bytes())
    }
}

impl std::fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteKey").finish_non_exhaustive()
    }
}
