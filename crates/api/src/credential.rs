//! An operator's credential: one JSON file with the fleet's root certificate, a client certificate, its key, and where
//! the fleet can be reached. Reading the environment is the binaries' part: places come in as arguments.
//!
//! Invariants: a file that others can read is refused; a file is written whole or not at all, readable by its owner only.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleet_core::{Error, ErrorKind, FleetId};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::platform;
use crate::tls::{CertificateCell, ClientTls, Trust};

/// The format this version writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Where `fleetctl` looks below the home directory.
pub const DEFAULT_PATH: &str = ".config/fleet/credential.json";
/// Largest credential file read, bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What an operator needs to talk to a fleet.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credential {
    /// The format, [`FORMAT_VERSION`].
    pub version: u32,
    /// The fleet.
    pub fleet_id: FleetId,
    /// The holder, as the certificate names it.
    pub admin_id: Uuid,
    /// The fleet's root certificate, PEM.
    pub ca: String,
    /// The holder's certificate chain, leaf first, PEM.
    pub certificate: String,
    /// The key of the leaf, PKCS #8 PEM.
    pub key: String,
    /// `host:port` of nodes, tried in order.
    pub endpoints: Vec<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("fleet_id", &self.fleet_id)
            .field("admin_id", &self.admin_id)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Reads the credential in the file `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_private(path)?;
        Self::parse(&text).map_err(|error| {
            Error::new(error.kind, format!("{} is not a usable credential: {error}", path.display()))
                .with_next_step("Copy `admin.json` again from the data directory of the founding node.")
        })
    }

    /// The credential in `text`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refused = |message: String| Error::new(ErrorKind::InvalidInput, message);
        let value: serde_json::Value = serde_json::from_str(text).map_err(|source| refused(source.to_string()))?;
        match value.get("version").map(serde_json::Value::as_u64) {
            Some(Some(version)) if version == u64::from(FORMAT_VERSION) => {}
            Some(Some(version)) => {
                return Err(Error::new(ErrorKind::Unsupported, format!("its format {version} is not known here")));
            }
            _ => return Err(refused("it has no version".to_owned())),
        }
        let credential: Self = serde_json::from_value(value).map_err(|source| refused(source.to_string()))?;
        credential.client_tls()?;
        Ok(credential)
    }

    /// Writes the credential to `path`, for its owner only, replacing what was there.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source: io::Error| {
            Error::new(ErrorKind::Internal, format!("write the credential {}", path.display())).with_source(source)
        };
        let mut text = serde_json::to_string_pretty(self).map_err(|source| failed(source.into()))?;
        text.push('\n');
        write_private(path, text.as_bytes()).map_err(failed)
    }

    /// TLS with this credential towards any node of its fleet.
    pub fn client_tls(&self) -> Result<ClientTls, Error> {
        let root = CertificateDer::from_pem_slice(self.ca.as_bytes()).map_err(|source| unusable("ca", source))?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|source| unusable("certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|source| unusable("key", source))?;
        let mut tls = ClientTls::new(Trust::Root(root));
        tls.certificate = Some(CertificateCell::new(chain, key)?);
        Ok(tls)
    }
}

fn unusable(field: &str, source: rustls_pki_types::pem::Error) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("`{field}` is not PEM of the right kind: {source}"))
}

/// The file to read: the one a flag names, else the one the environment names, else the default below `home` if it is
/// there. `None` means that there is no credential.
pub fn locate(flag: Option<&Path>, environment: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let named = flag.or(environment).map(Path::to_path_buf);
    named.or_else(|| home.map(|home| home.join(DEFAULT_PATH)).filter(|path| path.exists()))
}

/// Reads the text of `path`, a file with a secret, which nobody but its owner may be able to read.
pub fn read_private(path: &Path) -> Result<String, Error> {
    let failed = |source: io::Error| {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidInput,
        };
        Error::new(kind, format!("read {}", path.display())).with_source(source)
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if platform::readable_by_others(&metadata) {
        return Err(Error::new(ErrorKind::PermissionDenied, format!("{} can be read by others", path.display()))
            .with_next_step(format!("Run `chmod 600 {}`.", path.display())));
    }
    if metadata.len() > FILE_BYTES_MAX {
        let message = format!("{} is too large: at most {FILE_BYTES_MAX} bytes are read", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Writes `bytes` to `path` for its owner only: to a new file beside it, synced, then moved into place.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
    name.push(format!(".{}", Uuid::new_v4().simple()));
    let fresh = directory.join(name);
    let written = platform::write_new_private(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The move failed; what it would have moved is of no use. A failure to remove it changes nothing.
        let _ = fs::remove_file(&fresh);
        return written;
    }
    platform::sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn credential() -> Credential {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        Credential {
            version: FORMAT_VERSION,
            fleet_id: FleetId::generate(),
            admin_id: Uuid::now_v7(),
            ca: certificate.clone(),
            certificate,
            key: key.serialize_pem(),
            endpoints: vec!["10.0.0.7:7000".to_owned()],
        }
    }

    #[test]
    fn a_credential_survives_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.json");
        for _ in 0..2 {
            let credential = credential();
            credential.write(&path).unwrap();
            assert_eq!(Credential::read(&path).unwrap(), credential);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        let text = fs::read_to_string(&path).unwrap();
        for key in
            ["\"version\": 1", "\"fleetId\"", "\"adminId\"", "\"ca\"", "\"certificate\"", "\"key\"", "\"endpoints\""]
        {
            assert!(text.contains(key), "{key}");
        }
        assert!(!format!("{:?}", credential()).contains("PRIVATE"));
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.json");
        credential().write(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = Credential::read(&path).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::PermissionDenied, "{mode:o}");
            assert!(refusal.next_step.unwrap().contains("chmod 600"));
        }
    }

    #[test]
    fn files_that_are_no_credential_are_refused_with_the_reason() {
        let good = serde_json::to_value(credential()).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            changed[key] = value;
            changed.to_string()
        };
        let without = |key: &str| {
            let mut changed = good.clone();
            changed.as_object_mut().unwrap().remove(key);
            changed.to_string()
        };
        let other = credential();
        for (text, expected) in [
            (String::new(), "EOF"),
            ("{".to_owned(), "EOF"),
            ("[]".to_owned(), "no version"),
            ("{}".to_owned(), "no version"),
            (with("version", "1".into()), "no version"),
            (with("version", 2.into()), "format 2"),
            (without("ca"), "ca"),
            (without("key"), "key"),
            (without("endpoints"), "endpoints"),
            (with("more", 1.into()), "more"),
            (with("fleetId", "x".into()), "UUID"),
            (with("ca", "x".into()), "`ca`"),
            (with("key", "x".into()), "`key`"),
            (with("certificate", "".into()), "chain is empty"),
            (with("key", other.key.into()), "do not belong together"),
        ] {
            let refusal = Credential::parse(&text).expect_err(&text);
            let message = fleet_core::error::chain(&refusal);
            assert!(message.contains(expected), "{expected}: {message}");
            assert!(matches!(refusal.kind, ErrorKind::InvalidInput | ErrorKind::Unsupported), "{message}");
        }
    }

    #[test]
    fn the_flag_wins_then_the_environment_then_the_home() {
        let home = tempfile::tempdir().unwrap();
        let (flag, environment) = (Path::new("/flag"), Path::new("/environment"));
        assert_eq!(locate(Some(flag), Some(environment), Some(home.path())), Some(flag.to_path_buf()));
        assert_eq!(locate(None, Some(environment), Some(home.path())), Some(environment.to_path_buf()));
        assert_eq!(locate(None, None, Some(home.path())), None, "there is no file");
        let path = home.path().join(DEFAULT_PATH);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        credential().write(&path).unwrap();
        assert_eq!(locate(None, None, Some(home.path())), Some(path));
        assert_eq!(locate(None, None, None), None);
    }
}
