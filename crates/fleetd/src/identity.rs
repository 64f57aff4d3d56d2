//! What a data directory says about the node that lives in it: which fleet, which site, which group, under which name.
//!
//! The file is written once, as the last step of founding or joining, and then only when the gossip keys rotate. A
//! directory without it belongs to no fleet yet. It holds secrets: mode 0600.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use fleet_core::{Error, ErrorKind, FleetId, GroupId, NodeId, SiteName};
use fleet_store::record::{GossipKey, Keyring, Payload};
use serde::{Deserialize, Serialize};

use crate::platform;

/// Version of the file's format.
const FORMAT_VERSION: u32 = 1;
const FILE_NAME: &str = "identity.json";

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    version: u32,
    /// The fleet.
    pub fleet_id: FleetId,
    /// The node; the store has the same id, and a directory where they differ is refused.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: SiteName,
    /// Its site's group.
    pub group_id: GroupId,
    /// Epoch of the group when this was written.
    pub epoch: u64,
    /// Whether the fleet is a development fleet.
    pub dev: bool,
    /// `host:port` that other nodes use.
    pub advertise: String,
    /// Gossip keys; the first is the one to seal with.
    pub gossip_keys: Vec<StoredGossipKey>,
    /// Generation of the gossip keys; 0 where it was not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keyring_generation: u64,
    /// What the links of actors are derived from, where the gossip keys are not the first ones any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_secret: Option<[u8; 32]>,
    /// `host:port` of nodes known when this was written, to ask and to gossip with first.
    pub contacts: Vec<String>,
    /// The fleet's first site, whose authority is the root; `None`: it is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_site: Option<SiteName>,
}

/// A gossip key at rest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredGossipKey {
    /// Number of the key within its ring.
    pub key_id: u8,
    /// The key.
    pub key: [u8; 32],
}

impl std::fmt::Debug for StoredGossipKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredGossipKey({})", self.key_id)
    }
}

/// The parts of a new identity.
#[derive(Clone, Debug)]
pub struct NewIdentity {
    /// The fleet.
    pub fleet_id: FleetId,
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: SiteName,
    /// Its site's group.
    pub group_id: GroupId,
    /// Epoch of the group.
    pub epoch: u64,
    /// Whether the fleet is a development fleet.
    pub dev: bool,
    /// `host:port` that other nodes use.
    pub advertise: String,
    /// Gossip keys.
    pub gossip_keys: Vec<StoredGossipKey>,
    /// Their generation; 0 if that is not known.
    pub keyring_generation: u64,
    /// What the links of actors are derived from; `None`: the first gossip key.
    pub link_secret: Option<[u8; 32]>,
    /// Contacts.
    pub contacts: Vec<String>,
    /// The fleet's first site; `None`: this one.
    pub first_site: Option<SiteName>,
}

impl From<NewIdentity> for Identity {
    fn from(new: NewIdentity) -> Self {
        Self {
            version: FORMAT_VERSION,
            fleet_id: new.fleet_id,
            node_id: new.node_id,
            name: new.name,
            site: new.site,
            group_id: new.group_id,
            epoch: new.epoch,
            dev: new.dev,
            advertise: new.advertise,
            gossip_keys: new.gossip_keys,
            keyring_generation: new.keyring_generation,
            link_secret: new.link_secret,
            contacts: new.contacts,
            first_site: new.first_site,
        }
    }
}

impl Identity {
    /// What the links of actors within the site are derived from, for ever. At the first site it was the first gossip key,
    /// which a node that never saw a rotation still has; at any other it is [`Self::secret_between_sites`].
    pub fn link_secret(&self) -> Option<[u8; 32]> {
        self.link_secret.or_else(|| self.gossip_keys.first().map(|stored| stored.key))
    }

    /// What gossip between sites is sealed with: the same on every node of the fleet, and for ever. Nobody can tell from it
    /// what gossip within the first site is sealed with.
    pub fn secret_between_sites(&self) -> Option<[u8; 32]> {
        let secret = self.link_secret()?;
        if !self.keeps_registry() {
            return Some(secret);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let mut purpose = b"fleet between sites 1".to_vec();
        purpose.extend(self.fleet_id.as_bytes());
        hmac::sign(&key, &purpose).as_ref().try_into().ok()
    }

    /// The site whose nodes have their certificates from the fleet's root itself.
    pub fn first_site(&self) -> &SiteName {
        self.first_site.as_ref().unwrap_or(&self.site)
    }

    /// Whether this site's group keeps the fleet's registry of sites.
    pub fn keeps_registry(&self) -> bool {
        *self.first_site() == self.site
    }

    /// The gossip keys as the group keeps them.
    pub fn keyring(&self) -> Keyring {
        let keys = self.gossip_keys.iter();
        let keys = keys.map(|stored| GossipKey { key_id: stored.key_id, key: Payload::from(stored.key.to_vec()) });
        Keyring { generation: self.keyring_generation, keys: keys.collect() }
    }

    /// Writes it into the data directory `directory` so that a crash leaves either the old or the new one.
    ///
    /// # Errors
    /// `Internal` if the directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Internal, format!("write {}", directory.join(FILE_NAME).display()))
                .with_source(source)
        };
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        write_secret(directory, FILE_NAME, &text).map_err(|error| failed(error.into()))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A node's data directory, held by this process alone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens `path`, creating it if absent, with mode 0700 in either case, and locks it.
    ///
    /// # Errors
    /// `Conflict` if another process has it; `Internal` if it cannot be made or read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Internal, format!("open data directory {}", path.display()))
                .with_next_step("Check that the directory can be written, or choose another with --data-dir.")
                .with_source(source)
        };
        platform::create_private_dir(path).and_then(|()| platform::make_private(path)).map_err(failed)?;
        let lock = platform::create_secret(&path.join("lock"), false).map_err(failed)?;
        platform::lock(&lock).map_err(|source| {
            Error::new(ErrorKind::Conflict, format!("data directory {} is used by another fleetd", path.display()))
                .with_next_step("Stop that process, or choose another directory with --data-dir.")
                .with_source(source)
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the store.
    pub fn store_file(&self) -> PathBuf {
        self.path.join("fleet.redb")
    }

    /// The identity kept here, or `None` in a directory that belongs to no fleet.
    ///
    /// # Errors
    /// `Internal` if the file is there but cannot be understood.
    pub fn load_identity(&self) -> Result<Option<Identity>, Error> {
        let file = self.path.join(FILE_NAME);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::new(ErrorKind::Internal, format!("read {}", file.display())).with_source(error));
            }
        };
        let identity: Identity = serde_json::from_slice(&text).map_err(|source| {
            Error::new(ErrorKind::Internal, format!("read {}", file.display()))
                .with_next_step("The file is damaged. Restore it, or join again with an empty data directory.")
                .with_source(source)
        })?;
        if identity.version != FORMAT_VERSION {
            let message = format!("read {}: format {} is not known to this version", file.display(), identity.version);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Some(identity))
    }

    /// Writes the identity so that a crash leaves either the old or the new one.
    ///
    /// # Errors
    /// `Internal` if the directory cannot be written.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), Error> {
        identity.save(&self.path)
    }
}

/// Writes `content` to `name` in `directory` with mode 0600: a temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write_secret(directory: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = platform::create_secret(&temporary, true)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A node of a fleet of its own, with one gossip key and never told of a rotation.
    pub(crate) fn identity() -> Identity {
        NewIdentity {
            fleet_id: FleetId::generate(),
            node_id: NodeId::generate(),
            name: "alpha".to_owned(),
            site: SiteName::default(),
            group_id: GroupId::generate(),
            epoch: 1,
            dev: false,
            advertise: "alpha:7000".to_owned(),
            gossip_keys: vec![StoredGossipKey { key_id: 1, key: [7; 32] }],
            keyring_generation: 0,
            link_secret: None,
            contacts: Vec::new(),
            first_site: None,
        }
        .into()
    }

    #[test]
    fn an_identity_survives_and_is_secret() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDir::open(&root.path().join("a")).expect("it can be made");
        assert_eq!(directory.load_identity().expect("readable"), None);
        let identity = identity();
        directory.save_identity(&identity).expect("it can be written");
        assert_eq!(directory.load_identity().expect("readable"), Some(identity));
        let mode = fs::metadata(directory.path().join(FILE_NAME)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_others_can_read_is_closed_and_a_shared_one_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mode = |mode| fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).expect("it is ours");
        mode(0o755);
        drop(DataDir::open(root.path()).expect("it is free"));
        assert_eq!(fs::metadata(root.path()).expect("it is there").permissions().mode() & 0o777, 0o700);
        mode(0o1777);
        DataDir::open(root.path()).expect_err("all users share it");
        mode(0o700);
    }

    #[test]
    fn a_directory_has_one_owner() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let _held = DataDir::open(root.path()).expect("it is free");
        let error = DataDir::open(root.path()).expect_err("it is taken");
        assert_eq!(error.kind, ErrorKind::Conflict);
    }

    #[test]
    fn a_file_of_the_first_version_is_read_and_written_as_it_was() {
        let text = serde_json::to_string(&identity()).expect("it can be written");
        for later in ["keyringGeneration", "linkSecret", "firstSite"] {
            assert!(!text.contains(later), "{text}");
        }
        let read: Identity = serde_json::from_str(&text).expect("it can be read");
        assert_eq!(read.link_secret(), Some([7; 32]), "the first gossip key, before any rotation");
        let rotated = Identity {
            gossip_keys: vec![StoredGossipKey { key_id: 2, key: [8; 32] }],
            link_secret: read.link_secret(),
            keyring_generation: 4,
            ..read
        };
        let again: Identity = serde_json::from_slice(&serde_json::to_vec(&rotated).expect("written")).expect("read");
        assert_eq!((again.link_secret(), again.keyring_generation), (Some([7; 32]), 4));
    }

    #[test]
    fn what_other_sites_are_told_to_gossip_with_is_not_what_the_first_site_seals_with() {
        let first = identity();
        let told = first.secret_between_sites();
        assert_ne!(told, first.link_secret());
        let plant = Identity {
            first_site: Some(SiteName::default()),
            site: "plant".parse().expect("a name"),
            gossip_keys: vec![StoredGossipKey { key_id: 1, key: [9; 32] }],
            link_secret: told,
            ..first
        };
        assert_eq!(plant.secret_between_sites(), told, "both sites gossip with the same");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDir::open(root.path()).expect("it is free");
        fs::write(root.path().join(FILE_NAME), b"{\"version\":1}").expect("it can be written");
        assert_eq!(directory.load_identity().expect_err("damaged").kind, ErrorKind::Internal);
    }
}
