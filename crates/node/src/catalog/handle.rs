//! This node's copy of the catalog at work: plans are made on the copy in memory, written to the store, and true from then
//! on. A cheap handle.
//!
//! Invariants: changes are made one after the other, each on the copy that the one before left; what is told to anyone is
//! on this node's disk.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use fleet_core::limits::CATALOG_CLOCK_AHEAD_MAX;
use fleet_core::{Clock, Digest, Error, ErrorKind, NodeId, Timestamp};
use fleet_store::CatalogChange;
use fleet_store::record::{CatalogContent, CatalogEntry, CatalogKey, CatalogVector, Payload, SignedBy, WorkflowName};
use metrics::{counter, gauge};
use tokio::sync::{Mutex, Semaphore, watch};

use super::exchange::{Waiting, answer_compare, answer_exchange};
use super::message::{Answer, Exchange, Request, decode, encode, unpack};
use super::replica::{Exact, Kind, Merge, Replica};
use super::row::{self, FILES_BYTES_MAX, Row, Signatures};
use super::version;
use crate::ports::CatalogRows;

/// Most bytes of this node's own news that are offered at once; the rest is found by comparing.
const OFFER_BYTES_MAX: usize = 256 * 1024;
/// Most rows that are remembered as not taken yet, so that they are not sent again and again.
const WAITING_MAX: usize = 16_384;
/// Most messages whose rows are checked at once.
const CHECKS_MAX: usize = 4;

/// The catalog of one node.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

struct Shared {
    rows: Box<dyn CatalogRows>,
    clock: Arc<dyn Clock>,
    signatures: Arc<dyn Signatures>,
    replica: RwLock<Replica>,
    /// Rows that were not taken, and until when they would not be.
    waiting: std::sync::Mutex<BTreeMap<Exact, Timestamp>>,
    /// Held by whoever checks the rows of others.
    checks: Arc<Semaphore>,
    /// Held by whoever changes the copy.
    turn: Mutex<()>,
    /// Raised at every change.
    revision: watch::Sender<u64>,
}

/// A version of a workflow in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowRow {
    /// Its name.
    pub name: WorkflowName,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// Size of its file, bytes.
    pub file_bytes: u32,
    /// When it was deployed, by the clock of the node where that was.
    pub deployed_at: Timestamp,
    /// The node where that was.
    pub deployed_by: NodeId,
}

/// What a deployment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The workflow.
    pub name: WorkflowName,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Whether it was not there yet.
    pub is_new: bool,
}

impl Catalog {
    /// The catalog kept in `rows`, whose signatures are proved by `signatures`. Reads all of it: to be called on a thread
    /// that may wait.
    ///
    /// # Errors
    /// If the store failed, or holds what cannot be read.
    pub fn open(rows: impl CatalogRows, clock: Arc<dyn Clock>, signatures: Arc<dyn Signatures>) -> Result<Self, Error> {
        let mut replica = Replica::new(rows.node(), rows.facts()?);
        let mut unusable = None;
        rows.each(&mut |key, entry| {
            let row = CatalogChange { put: vec![(key, entry)], ..CatalogChange::default() };
            if let Err(error) = replica.apply(&row) {
                unusable.get_or_insert(error);
            }
        })?;
        if let Some(error) = unusable {
            return Err(error);
        }
        let shared = Shared {
            rows: Box::new(rows),
            clock,
            signatures,
            replica: RwLock::new(replica),
            waiting: std::sync::Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            turn: Mutex::new(()),
            revision: watch::Sender::new(0),
        };
        let catalog = Self { shared: Arc::new(shared) };
        catalog.measure();
        Ok(catalog)
    }

    /// The node whose copy it is.
    pub fn node(&self) -> NodeId {
        self.shared.rows.node()
    }

    /// Raised at every change of what is here.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// Deploys `files`, validated workflow files by name: all of them or none.
    ///
    /// # Errors
    /// `Conflict` if one of these versions is or was another file, here or among `files`; `ResourceExhausted` past the
    /// bounds.
    pub async fn deploy(&self, files: Vec<(WorkflowName, Vec<u8>)>) -> Result<Vec<Deployed>, Error> {
        let mut digests: BTreeMap<WorkflowName, Digest> = BTreeMap::new();
        let mut contents = Vec::with_capacity(files.len());
        let mut names = Vec::with_capacity(files.len());
        for (name, file) in files {
            let digest = Digest::of(&file);
            match digests.insert(name.clone(), digest) {
                Some(other) if other != digest => {
                    let message = format!("deploy {name}: two different files are given for this version");
                    return Err(Error::new(ErrorKind::Conflict, message).with_next_step("Leave one of them out."));
                }
                Some(_) => {}
                None => contents.push((name.clone(), row::workflow(&file)?)),
            }
            names.push((name, digest));
        }
        let plan = move |replica: &Replica, now| {
            let change = replica.plan_deploy(contents, now)?;
            let is_new = |name: &WorkflowName| {
                change.put.iter().any(|(key, _)| matches!(key, CatalogKey::Workflow(put) if put == name))
            };
            let deployed = names.into_iter().map(|(name, digest)| Deployed { is_new: is_new(&name), digest, name });
            let deployed = deployed.collect();
            Ok((change, deployed))
        };
        self.change(plan).await
    }

    /// Deletes the workflow `name`.
    ///
    /// # Errors
    /// `NotFound` if it is not there.
    pub async fn delete(&self, name: WorkflowName) -> Result<(), Error> {
        self.change(move |replica, now| Ok((replica.plan_delete(&name, now)?, ()))).await
    }

    /// Revokes what `keys` say, each with who vouches for it. What is revoked already stays as it is.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn revoke(&self, keys: Vec<(CatalogKey, SignedBy)>) -> Result<(), Error> {
        self.change(move |replica, now| Ok((replica.plan_revoke(keys, now), ()))).await
    }

    /// What is revoked.
    pub fn revoked(&self) -> Vec<CatalogKey> {
        self.replica().revoked().cloned().collect()
    }

    /// The workflows of `namespace`, of all if it is `None`: by namespace and name, the highest version first.
    pub fn workflows(&self, namespace: Option<&str>) -> Vec<WorkflowRow> {
        let replica = self.replica();
        let all = replica.heads().filter_map(|(key, head)| match (key, &head.kind) {
            (CatalogKey::Workflow(name), Kind::Workflow { digest, file_bytes })
                if namespace.is_none_or(|namespace| name.namespace == namespace) =>
            {
                Some(WorkflowRow {
                    name: name.clone(),
                    digest: *digest,
                    file_bytes: *file_bytes,
                    deployed_at: head.stamp.time.at,
                    deployed_by: head.stamp.node,
                })
            }
            _ => None,
        });
        let mut rows: Vec<WorkflowRow> = all.collect();
        rows.sort_by(|one, other| order(&one.name, &other.name));
        rows
    }

    /// The workflow `namespace/name`, in `version` or in its highest, with its file.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<(WorkflowRow, Vec<u8>), Error> {
        let missing = || {
            let version = version.map(|version| format!(":{version}")).unwrap_or_default();
            Error::new(ErrorKind::NotFound, format!("workflow `{namespace}/{name}{version}` is not in the catalog"))
                .with_next_step("`fleetctl workflow list` shows what this node knows.")
        };
        let mut rows = self.workflows(Some(namespace)).into_iter();
        let is_it =
            |row: &WorkflowRow| row.name.name == name && version.is_none_or(|version| row.name.version == version);
        let found = rows.find(is_it).ok_or_else(missing)?;
        let file = self.file(&found.name)?.ok_or_else(missing)?;
        Ok((found, file))
    }

    /// The file of exactly this version, if it is here.
    ///
    /// # Errors
    /// If the store failed.
    pub fn file(&self, name: &WorkflowName) -> Result<Option<Vec<u8>>, Error> {
        match self.load(&CatalogKey::Workflow(name.clone()))?.map(|entry| entry.content) {
            Some(CatalogContent::Workflow { deflated, .. }) => row::inflate(&deflated).map(Some),
            _ => Ok(None),
        }
    }

    /// Answers a message of another node.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` if it cannot be read; otherwise if the store failed.
    pub async fn answer(&self, message: &Payload) -> Result<Payload, Error> {
        let answer = match decode(message)? {
            Request::Compare { root, bits, seen, outlived } => {
                self.learn(seen.clone()).await?;
                let (answer, is_same) = answer_compare(&self.replica(), root, bits);
                if is_same {
                    self.adopt(seen, outlived).await?;
                }
                answer
            }
            Request::Exchange(mut exchange) => {
                self.drop_gone(&exchange.gone).await?;
                let merge = self.merge(std::mem::take(&mut exchange.rows)).await?;
                self.exchanged(&exchange, &merge.gone)?
            }
            Request::Offer(rows) => {
                self.merge(rows).await?;
                Answer::Taken
            }
        };
        encode(&answer)
    }

    fn exchanged(&self, exchange: &Exchange, gone: &[Exact]) -> Result<Answer, Error> {
        answer_exchange(&self.replica(), exchange, gone, &self.waiting(), &|key| self.load(key))
    }

    /// What is not taken yet.
    pub(super) fn waiting(&self) -> Waiting {
        let now = self.shared.clock.now();
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, until| now < *until);
        waiting.keys().copied().collect()
    }

    /// Notes rows that are not taken, as far as there is room: others will come again.
    fn wait_for(&self, rows: impl Iterator<Item = (Exact, Timestamp)>) {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (exact, until) in rows {
            if waiting.len() < WAITING_MAX {
                waiting.insert(exact, until);
            }
        }
    }

    /// The copy as it is now. To be let go before anything is awaited.
    pub(super) fn replica(&self) -> RwLockReadGuard<'_, Replica> {
        self.shared.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn load(&self, key: &CatalogKey) -> Result<Option<CatalogEntry>, Error> {
        self.shared.rows.entry(key)
    }

    /// Tells what is acceptable of `rows` from the names of what is not, on a thread that may take its time.
    async fn checked(&self, rows: Vec<Row>) -> Result<(Vec<Row>, Vec<Exact>), Error> {
        if row::file_bytes(&rows) > FILES_BYTES_MAX as u64 {
            let message =
                format!("take rows of the catalog: their files have more than {FILES_BYTES_MAX} bytes together");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Internal, "check rows of the catalog").with_source(source)
        };
        let place = Arc::clone(&self.shared.checks).acquire_owned().await.map_err(|source| failed(source.into()))?;
        let signatures = Arc::clone(&self.shared.signatures);
        let check = move || {
            // Kept until the work is done, even if nobody waits for it any more.
            let _place = place;
            let (good, bad): (Vec<Row>, Vec<Row>) =
                rows.into_iter().partition(|row| row::is_acceptable(row, &*signatures));
            let mut names = Vec::with_capacity(bad.len());
            for (key, entry) in &bad {
                let (digest, _) = row::measure(key, entry)?;
                names.push((row::hash_of(key), super::sums::short(digest)));
            }
            Ok((good, names))
        };
        tokio::task::spawn_blocking(check).await.map_err(|source| failed(source.into()))?
    }

    /// Takes what is acceptable of `rows`.
    ///
    /// # Errors
    /// `InvalidInput` if their files are too large together; otherwise if the store failed.
    pub(super) async fn merge(&self, rows: Vec<Row>) -> Result<Merge, Error> {
        if rows.is_empty() {
            return Ok(Merge::default());
        }
        let came = rows.len();
        let (good, bad_names) = self.checked(rows).await?;
        let plan = move |replica: &Replica, now| {
            let mut merge = replica.plan_merge(good, now)?;
            let change = std::mem::take(&mut merge.change);
            Ok((change, merge))
        };
        let mut merge = self.change(plan).await?;
        let later = self.shared.clock.now().saturating_add(CATALOG_CLOCK_AHEAD_MAX);
        self.wait_for(merge.waiting.iter().copied().chain(bad_names.iter().map(|exact| (*exact, later))));
        let refused = bad_names.len() + merge.unbelievable;
        merge.not_taken.extend(bad_names);
        counter!("fleet_catalog_rows_received_total").increment(came as u64);
        counter!("fleet_catalog_rows_refused_total").increment(refused as u64);
        counter!("fleet_catalog_rows_held_back_total").increment(merge.held_back as u64);
        counter!("fleet_catalog_conflicts_total").increment(merge.conflicts.len() as u64);
        for name in &merge.conflicts {
            tracing::warn!(workflow = %name, "two different files were deployed as this version; one of them is lost");
        }
        if refused > 0 || merge.no_room > 0 {
            tracing::warn!(refused, no_room = merge.no_room, "rows of the catalog were not taken");
        }
        Ok(merge)
    }

    /// Drops what another copy says was outlived.
    pub(super) async fn drop_gone(&self, gone: &Payload) -> Result<(), Error> {
        let gone: Vec<Exact> = unpack(gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.change(move |replica, _| Ok((replica.plan_drop(&gone), ()))).await
    }

    /// Takes over what another copy with the same entries has seen.
    pub(super) async fn adopt(&self, seen: CatalogVector, outlived: u64) -> Result<(), Error> {
        self.change(move |replica, now| Ok((replica.plan_adopt(&seen, outlived, now), ()))).await
    }

    /// Takes over how many of this node's own writes another copy has seen, which has other entries perhaps.
    async fn learn(&self, seen: CatalogVector) -> Result<(), Error> {
        self.change(move |replica, now| Ok((replica.plan_learn(&seen, now), ()))).await
    }

    /// Acknowledges deletions that are new here, and forgets those that all of `members` know.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn look_after(&self, members: BTreeSet<NodeId>) -> Result<(), Error> {
        self.change(|replica, now| Ok((replica.plan_inherit(now), ()))).await?;
        self.change(|replica, now| Ok((replica.plan_acknowledge(now), ()))).await?;
        self.change(move |replica, _| Ok((replica.plan_forget(&members), ()))).await
    }

    /// This node's own writes above number `after`, as one offer, and the highest number among them; nothing where there
    /// are none, or more than fit.
    ///
    /// # Errors
    /// If the store failed.
    pub fn news(&self, after: u64) -> Result<(Option<Payload>, u64), Error> {
        let (mut keys, mut last, mut bytes, mut file_bytes) = (Vec::new(), after, 0, 0);
        {
            let replica = self.replica();
            for (number, key) in replica.own_after(after) {
                last = number;
                let Some(head) = replica.head(key) else { continue };
                bytes += head.bytes;
                file_bytes += head.file_bytes();
                if bytes <= OFFER_BYTES_MAX && file_bytes <= FILES_BYTES_MAX {
                    keys.push(key.clone());
                }
            }
        }
        if keys.is_empty() || bytes > OFFER_BYTES_MAX || file_bytes > FILES_BYTES_MAX {
            return Ok((None, last));
        }
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(entry) = self.load(&key)? {
                rows.push((key, entry));
            }
        }
        Ok((Some(encode(&Request::Offer(rows))?), last))
    }

    /// Makes the change that `plan` comes to. It is made whole even if nobody waits for it any more: a copy must never know
    /// less than its store.
    async fn change<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&Replica, Timestamp) -> Result<(CatalogChange, T), Error> + Send + 'static,
    ) -> Result<T, Error> {
        let catalog = self.clone();
        let made = tokio::spawn(async move { catalog.change_in_turn(plan).await });
        made.await.map_err(|source| Error::new(ErrorKind::Internal, "change the catalog").with_source(source))?
    }

    async fn change_in_turn<T>(
        &self,
        plan: impl FnOnce(&Replica, Timestamp) -> Result<(CatalogChange, T), Error>,
    ) -> Result<T, Error> {
        let _turn = self.shared.turn.lock().await;
        let (change, result) = plan(&self.replica(), self.shared.clock.now())?;
        if change.is_empty() {
            return Ok(result);
        }
        self.shared.rows.write(change.clone()).await?;
        self.shared.replica.write().unwrap_or_else(PoisonError::into_inner).apply(&change)?;
        self.measure();
        self.shared.revision.send_modify(|revision| *revision += 1);
        Ok(result)
    }

    fn measure(&self) {
        let replica = self.replica();
        gauge!("fleet_catalog_entries").set(replica.len() as f64);
        gauge!("fleet_catalog_bytes").set(replica.bytes() as f64);
        gauge!("fleet_catalog_revocations").set(replica.revoked().count() as f64);
        gauge!("fleet_catalog_deletions_waiting").set(replica.deletions_waiting() as f64);
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("entries", &self.replica().len()).finish_non_exhaustive()
    }
}

/// The order of workflows: by namespace and name, the highest version first.
pub fn order(one: &WorkflowName, other: &WorkflowName) -> Ordering {
    (&one.namespace, &one.name)
        .cmp(&(&other.namespace, &other.name))
        .then_with(|| version::compare(&other.version, &one.version))
}
