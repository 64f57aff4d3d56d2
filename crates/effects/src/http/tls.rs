//! Whom the HTTP client trusts: the public authorities, and those the operator added.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// TLS settings that trust the public roots and the certificates in `extra_authorities_pem`.
pub(crate) fn client_config(extra_authorities_pem: &[u8]) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (position, certificate) in CertificateDer::pem_slice_iter(extra_authorities_pem).enumerate() {
        let certificate = certificate
            .map_err(|error| Error::Authority { position, source: rustls::Error::General(error.to_string()) })?;
        roots.add(certificate).map_err(|source| Error::Authority { position, source })?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_authority_that_is_no_certificate_is_refused() {
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(pem), Err(Error::Authority { position: 0, .. })));
        assert!(client_config(b"").is_ok());
    }
}
