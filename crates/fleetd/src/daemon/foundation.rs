//! What a node founds its site with: the key of the site's authority above all. It waits in a file of the data directory
//! until the group has it sealed and the founder was greeted; then the file is removed.
//!
//! For a site after the first, a second file comes before it: the new authority's key and the new group's id, kept before
//! the registry is asked, so that a founder that tries again asks for the same.

use fleet_core::{Error, ErrorKind, GroupId, SiteName};
use fleet_replication::command::SiteNote;
use fleet_store::record::FoundingToken;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::identity::{DataDir, write_secret};
use crate::trust::authority::Authority;
use crate::trust::site_key::SiteKey;

const FOUNDATION_FILE: &str = "founding.json";
const PENDING_FILE: &str = "founding-asked.json";
/// Version of the files' format.
const FORMAT_VERSION: u32 = 1;

/// What a node founds its site with.
#[derive(Debug)]
pub(super) struct Foundation {
    /// The site's authority.
    pub(super) authority: Authority,
    /// What is left of the token that the founder showed to the registry.
    pub(super) token: Option<FoundingToken>,
    /// The other sites of the fleet, as the registry told them.
    pub(super) sites: Vec<SiteNote>,
}

#[derive(Serialize, Deserialize)]
struct FoundationFile {
    version: u32,
    root: Vec<u8>,
    key: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    site: Option<LaterSite>,
}

/// What only a site after the first has.
#[derive(Serialize, Deserialize)]
struct LaterSite {
    authority: Vec<u8>,
    token: Option<FoundingToken>,
    sites: Vec<SiteNote>,
}

impl Foundation {
    /// Keeps it in the data directory.
    ///
    /// # Errors
    /// `Internal` if the directory cannot be written.
    pub(super) fn save(&self, directory: &DataDir) -> Result<(), Error> {
        let site = match self.authority.chain() {
            [own, _root] => {
                Some(LaterSite { authority: own.to_vec(), token: self.token.clone(), sites: self.sites.clone() })
            }
            _ => None,
        };
        let (root, key) = (self.authority.root().to_vec(), self.authority.key().to_vec());
        save(directory, FOUNDATION_FILE, &FoundationFile { version: FORMAT_VERSION, root, key, site })
    }

    /// What the data directory keeps of it, if there is something.
    ///
    /// # Errors
    /// `Internal` if the file is there and cannot be read, `InvalidInput` if its parts do not belong together.
    pub(super) fn load(directory: &DataDir) -> Result<Option<Self>, Error> {
        let Some(file) = load::<FoundationFile>(directory, FOUNDATION_FILE)? else { return Ok(None) };
        let root = file.root.into();
        let Some(site) = file.site else {
            let authority = Authority::from_parts(vec![root], &file.key)?;
            return Ok(Some(Self { authority, token: None, sites: Vec::new() }));
        };
        let authority = Authority::from_parts(vec![site.authority.into(), root], &file.key)?;
        Ok(Some(Self { authority, token: site.token, sites: site.sites }))
    }

    /// Whether the data directory keeps one: the site is not founded yet, or its founder was not greeted.
    pub(super) fn is_kept(directory: &DataDir) -> bool {
        directory.path().join(FOUNDATION_FILE).exists()
    }

    /// Removes it from the data directory, once the group has the key and the founder was greeted.
    ///
    /// # Errors
    /// `Internal` if it cannot be removed.
    pub(super) fn forget(directory: &DataDir) -> Result<(), Error> {
        remove(directory, FOUNDATION_FILE)
    }
}

/// What a node asks the registry to record: a site of which it has the key.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingSite {
    version: u32,
    /// The site.
    pub(super) site: SiteName,
    /// The group that will agree on its log.
    pub(super) group: GroupId,
    key: Vec<u8>,
}

impl PendingSite {
    /// A new one, kept in the data directory before anybody hears of it.
    ///
    /// # Errors
    /// `Internal` if the directory cannot be written.
    pub(super) fn begin(directory: &DataDir, site: SiteName) -> Result<Self, Error> {
        let key = SiteKey::generate()?.to_bytes().to_vec();
        let pending = Self { version: FORMAT_VERSION, site, group: GroupId::generate(), key };
        save(directory, PENDING_FILE, &pending)?;
        Ok(pending)
    }

    /// What the data directory keeps of an earlier try for `site`.
    ///
    /// # Errors
    /// `Internal` if the file is there and cannot be read.
    pub(super) fn load(directory: &DataDir, site: Option<&SiteName>) -> Result<Option<Self>, Error> {
        let pending = load::<Self>(directory, PENDING_FILE)?;
        Ok(pending.filter(|pending| Some(&pending.site) == site))
    }

    /// The key of the site's authority.
    ///
    /// # Errors
    /// `InvalidInput` if it is damaged.
    pub(super) fn key(&self) -> Result<SiteKey, Error> {
        SiteKey::from_bytes(&self.key)
    }

    /// Removes it from the data directory, once the node belongs to a site.
    ///
    /// # Errors
    /// `Internal` if it cannot be removed.
    pub(super) fn forget(directory: &DataDir) -> Result<(), Error> {
        remove(directory, PENDING_FILE)
    }
}

fn save(directory: &DataDir, name: &str, content: &impl Serialize) -> Result<(), Error> {
    let failed = || Error::new(ErrorKind::Internal, format!("write {}", directory.path().join(name).display()));
    let text = serde_json::to_vec(content).map_err(|source| failed().with_source(source))?;
    write_secret(directory.path(), name, &text).map_err(|source| failed().with_source(source))
}

fn load<T: DeserializeOwned>(directory: &DataDir, name: &str) -> Result<Option<T>, Error> {
    let file = directory.path().join(name);
    let failed = || Error::new(ErrorKind::Internal, format!("read {}", file.display()));
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| failed().with_source(source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed().with_source(error)),
    }
}

fn remove(directory: &DataDir, name: &str) -> Result<(), Error> {
    let file = directory.path().join(name);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::Internal, format!("remove {}", file.display())).with_source(error))
        }
        _ => Ok(()),
    }
}
