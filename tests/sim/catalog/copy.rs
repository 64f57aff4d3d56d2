//! One node's copy of the catalog: the production [`Catalog`], whole, on a simulated disk and a simulated clock.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_core::{BootInstant, Clock, Error, ErrorKind, NodeId, SiteName, Timestamp};
use fleet_node::catalog::{Catalog, Meeting, Signatures, signed_bytes};
use fleet_node::ports::CatalogRows;
use fleet_sim::{Dice, Disk};
use fleet_store::CatalogChange;
use fleet_store::record::{CatalogEntry, CatalogFacts, CatalogKey, SignedBy};

type Later<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything that a disk holds of the catalog.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) entries: BTreeMap<CatalogKey, CatalogEntry>,
    pub(super) facts: CatalogFacts,
}

impl Kept {
    pub(super) fn apply(&mut self, change: &CatalogChange) {
        self.entries.extend(change.put.iter().cloned());
        change.remove.iter().for_each(|key| drop(self.entries.remove(key)));
        if let Some(facts) = &change.facts {
            self.facts = facts.clone();
        }
    }
}

/// What goes wrong with a disk by design of a test: a planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Flaw {
    #[default]
    None,
    /// It says that it has what it did not sync.
    AcksBeforeSync,
    /// What is known beside the entries is not written with them.
    LosesFacts,
}

#[derive(Debug, Default)]
struct Platter {
    disk: Disk<CatalogChange>,
    /// What was acknowledged.
    kept: Kept,
    /// What was acknowledged since the judge looked, with what was there before.
    fresh: Vec<CatalogChange>,
    /// Written and not acknowledged when the power went.
    pending: Option<CatalogChange>,
    /// After how many more writes the power goes.
    writes_left: Option<usize>,
    is_off: bool,
    flaw: Flaw,
}

/// A node's disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    pub(super) node: NodeId,
    platter: Arc<Mutex<Platter>>,
}

impl Drive {
    pub(super) fn new(node: NodeId, flaw: Flaw) -> Self {
        Self { node, platter: Arc::new(Mutex::new(Platter { flaw, ..Platter::default() })) }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kept(&self) -> Kept {
        self.platter().kept.clone()
    }

    pub(super) fn take_fresh(&self) -> Vec<CatalogChange> {
        std::mem::take(&mut self.platter().fresh)
    }

    pub(super) fn is_off(&self) -> bool {
        self.platter().is_off
    }

    /// The power goes after `writes` more writes, before the last of them is synced.
    pub(super) fn lose_power_after(&self, writes: usize) {
        self.platter().writes_left = Some(writes);
    }

    pub(super) fn lose_power(&self, dice: &mut Dice) {
        let mut platter = self.platter();
        platter.disk.lose_power(dice);
        platter.is_off = true;
    }

    /// The disk as it is now, to be put back later.
    pub(super) fn snapshot(&self) -> (Disk<CatalogChange>, Kept) {
        let platter = self.platter();
        (platter.disk.clone(), platter.kept.clone())
    }

    pub(super) fn put_back(&self, (disk, kept): (Disk<CatalogChange>, Kept)) {
        let mut platter = self.platter();
        (platter.disk, platter.kept, platter.pending) = (disk, kept, None);
    }

    /// A process opens it. Gives the write that was under way when the power went and is there all the same; says what of the
    /// acknowledged is not as it was, if anything.
    pub(super) fn open(&self) -> Result<Option<CatalogChange>, String> {
        let mut platter = self.platter();
        (platter.is_off, platter.writes_left) = (false, None);
        let mut found = Kept::default();
        let records = platter.disk.open().map_err(|error| error.to_string())?;
        records.iter().for_each(|change| found.apply(change));
        let pending = platter.pending.take();
        if found == platter.kept {
            return Ok(None);
        }
        let mut with_pending = platter.kept.clone();
        pending.iter().for_each(|change| with_pending.apply(change));
        if found == with_pending {
            platter.kept = found;
            return Ok(pending);
        }
        Err(format!("acknowledged {:?}, found {:?}", brief(&platter.kept), brief(&found)))
    }

    /// What was written up to now is safe, where a flaw left that open.
    pub(super) fn sync(&self) {
        self.platter().disk.sync();
    }
}

fn brief(kept: &Kept) -> (usize, &CatalogFacts) {
    (kept.entries.len(), &kept.facts)
}

impl Platter {
    fn write(&mut self, change: CatalogChange) -> Result<(), Error> {
        let off = || Error::new(ErrorKind::Unavailable, "write to the catalog: the power is off");
        if self.is_off {
            return Err(off());
        }
        let mut written = change.clone();
        if self.flaw == Flaw::LosesFacts {
            written.facts = None;
        }
        self.disk.write(written).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        match &mut self.writes_left {
            Some(0) => {
                self.is_off = true;
                self.pending = Some(change);
                return Err(off());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if self.flaw != Flaw::AcksBeforeSync {
            self.disk.sync();
        }
        self.kept.apply(&change);
        self.fresh.push(change);
        Ok(())
    }
}

impl CatalogRows for Drive {
    fn node(&self) -> NodeId {
        self.node
    }

    fn facts(&self) -> Result<CatalogFacts, Error> {
        Ok(self.platter().kept.facts.clone())
    }

    fn each(&self, look: &mut dyn FnMut(CatalogKey, CatalogEntry)) -> Result<(), Error> {
        self.kept().entries.into_iter().for_each(|(key, entry)| look(key, entry));
        Ok(())
    }

    fn entry(&self, key: &CatalogKey) -> Result<Option<CatalogEntry>, Error> {
        Ok(self.platter().kept.entries.get(key).cloned())
    }

    fn write(&self, change: CatalogChange) -> Later<Result<(), Error>> {
        Box::pin(ready(self.platter().write(change)))
    }
}

/// The wall clock of a node, set at each of its steps.
#[derive(Debug, Default)]
pub(super) struct Watch {
    wall_ms: AtomicU64,
}

impl Watch {
    pub(super) fn set(&self, now: Timestamp) {
        self.wall_ms.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::Relaxed))
    }

    fn boot_now(&self) -> BootInstant {
        BootInstant::default()
    }
}

/// Believes a signature that repeats what it covers.
struct Repeated;

impl Signatures for Repeated {
    fn is_valid(&self, signed_by: &SignedBy, _: &SiteName, bytes: &[u8]) -> bool {
        matches!(signed_by, SignedBy::Root(signature) if signature.as_slice() == bytes)
    }
}

/// The signature of whoever may revoke `key`.
pub(super) fn signature(key: &CatalogKey) -> SignedBy {
    SignedBy::Root(signed_bytes(key).into())
}

/// A process with its copy.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) catalog: Catalog,
    pub(super) watch: Arc<Watch>,
    /// Comparisons under way, by the number of the question that is not answered.
    pub(super) meetings: BTreeMap<u64, Meeting>,
    /// Up to which of its writes the others were told.
    pub(super) told: u64,
    pub(super) turn: usize,
}

impl Copy {
    pub(super) fn open(drive: &Drive, now: Timestamp) -> Result<Self, Error> {
        let watch = Arc::new(Watch::default());
        watch.set(now);
        let catalog = Catalog::open(drive.clone(), Arc::<Watch>::clone(&watch), Arc::new(Repeated))?;
        Ok(Self { catalog, watch, meetings: BTreeMap::new(), told: 0, turn: 0 })
    }
}
