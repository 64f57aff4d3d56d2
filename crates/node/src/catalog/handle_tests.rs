//! Catalogs on stores: two of them come together, over power losses, and what is not sound is not taken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{ErrorKind, NodeId, SiteName, SystemClock};
use fleet_store::record::{CatalogContent, CatalogKey, Payload, SignedBy, WorkflowName};
use fleet_store::{MemoryDisk, Store};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::between::Between;
use super::driver::{CatalogPeers, Pace, run, sync};
use super::handle::Catalog;
use super::message::{Request, encode};
use super::row::{Signatures, signed_bytes};
use crate::ports::{KnownSite, KnownSites, SiteServer, SiteTopic, Sites};

/// Believes a signature that repeats what it covers.
struct Repeated;

impl Signatures for Repeated {
    fn is_valid(&self, signed_by: &SignedBy, _: &SiteName, bytes: &[u8]) -> bool {
        matches!(signed_by, SignedBy::Root(signature) if signature.as_slice() == bytes)
    }
}

fn open(store: Store) -> Catalog {
    Catalog::open(store, Arc::new(SystemClock), Arc::new(Repeated)).unwrap()
}

fn name(number: usize) -> WorkflowName {
    WorkflowName { namespace: "shop".to_owned(), name: format!("w{number}"), version: "1.0.0".to_owned() }
}

fn files(numbers: std::ops::Range<usize>) -> Vec<(WorkflowName, Vec<u8>)> {
    numbers.map(|number| (name(number), format!("file {number} {}", "x".repeat(900)).into_bytes())).collect()
}

fn asking(other: &Catalog) -> impl Fn(Payload) -> BoxFuture<'static, Result<Payload, fleet_core::Error>> {
    let other = other.clone();
    move |message| {
        let other = other.clone();
        async move { other.answer(&message).await }.boxed()
    }
}

fn root(catalog: &Catalog) -> u128 {
    catalog.replica().sums().root()
}

#[tokio::test]
async fn two_copies_of_ten_thousand_entries_come_together_and_a_loss_of_power_costs_nothing_that_was_told() {
    let disk = MemoryDisk::new();
    let (one, other) = (open(disk.open().unwrap()), open(Store::in_memory().unwrap()));
    for begin in (0..10_000).step_by(1_000) {
        let to = if begin < 9_000 { &one } else { &other };
        to.deploy(files(begin..begin + 1_000)).await.unwrap();
    }
    one.delete(name(17)).await.unwrap();
    sync(&one, Pace::SITE, asking(&other)).await.unwrap();
    assert_eq!(root(&one), root(&other));
    assert_eq!(other.workflows(None).len(), 9_999);
    assert_eq!(other.workflow("shop", "w4711", None).unwrap().1, files(4711..4712).remove(0).1);

    let again = open(disk.lose_power().open().unwrap());
    assert_eq!((root(&again), again.workflows(None)), (root(&one), one.workflows(None)));
    assert_eq!(*again.replica().seen(), *one.replica().seen());
    // Its next write is counted on.
    again.deploy(files(20_000..20_001)).await.unwrap();
    sync(&other, Pace::SITE, asking(&again)).await.unwrap();
    assert_eq!(other.workflows(None).len(), 10_000);
}

#[tokio::test]
async fn what_is_not_sound_is_not_taken_from_anybody() {
    let (sender, taker) = (open(Store::in_memory().unwrap()), open(Store::in_memory().unwrap()));
    sender.deploy(files(0..1)).await.unwrap();
    let key = CatalogKey::Workflow(name(0));
    let good = sender.load(&key).unwrap().unwrap();
    let CatalogContent::Workflow { digest, file_bytes, deflated } = good.content.clone() else { unreachable!() };
    let mut spoiled = deflated.as_slice().to_vec();
    spoiled.truncate(spoiled.len() - 1);
    let content =
        |deflated: Vec<u8>, file_bytes| CatalogContent::Workflow { digest, file_bytes, deflated: deflated.into() };
    let revoked = CatalogKey::RevokedNode(SiteName::default(), NodeId::generate());
    let revocation = |signed_by| fleet_store::record::CatalogEntry {
        content: CatalogContent::Revocation,
        signed_by,
        ..good.clone()
    };
    let with = |content| fleet_store::record::CatalogEntry { content, ..good.clone() };
    let deleted = CatalogContent::Deleted { digest };
    let bad = vec![
        (key.clone(), with(content(spoiled, file_bytes))),
        (key.clone(), with(content(deflated.as_slice().to_vec(), file_bytes + 1))),
        (key.clone(), with(CatalogContent::Revocation)),
        (key.clone(), fleet_store::record::CatalogEntry { number: 0, ..with(deleted.clone()) }),
        (revoked.clone(), revocation(SignedBy::Nobody)),
        (revoked.clone(), revocation(SignedBy::Root(Payload::from("forged")))),
        (revoked.clone(), with(deleted)),
        (CatalogKey::Acknowledgement(NodeId::generate()), with(CatalogContent::Acknowledgement(Default::default()))),
    ];
    let count = bad.len();
    let merge = taker.merge(bad).await.unwrap();
    assert_eq!(merge.not_taken.len(), count);
    assert_eq!((taker.workflows(None).len(), taker.revoked().len()), (0, 0));

    let signed = SignedBy::Root(signed_bytes(&revoked).into());
    taker.merge(vec![(revoked.clone(), revocation(signed)), (key, good)]).await.unwrap();
    assert_eq!((taker.workflows(None).len(), taker.revoked()), (1, vec![revoked]));
    for rubbish in
        [Payload::default(), Payload::from(vec![1]), Payload::from(vec![9, 1]), Payload::from(vec![1, 200, 3])]
    {
        let error = taker.answer(&rubbish).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::InvalidInput | ErrorKind::Unsupported), "{error}");
    }
    let trailing = [encode(&Request::Offer(Vec::new())).unwrap().as_slice(), &[0]].concat();
    assert!(taker.answer(&trailing.into()).await.is_err());
}

#[tokio::test]
async fn files_that_are_small_deflated_come_in_as_many_messages_as_their_bytes_need() {
    let (one, other) = (open(Store::in_memory().unwrap()), open(Store::in_memory().unwrap()));
    let large = |number| (name(number), format!("{number}{}", "x".repeat(1_000_000)).into_bytes());
    one.deploy((0..40).map(large).collect()).await.unwrap();
    assert!(one.news(0).unwrap().0.is_none(), "too much for one offer");
    let rows = (0..40).map(|number| CatalogKey::Workflow(name(number)));
    let rows: Vec<_> = rows.map(|key| (key.clone(), one.load(&key).unwrap().unwrap())).collect();
    assert_eq!(other.merge(rows.clone()).await.unwrap_err().kind, ErrorKind::InvalidInput);
    assert_eq!(other.workflows(None).len(), 0);
    sync(&other, Pace::SITE, asking(&one)).await.unwrap();
    assert_eq!((root(&one), other.workflows(None).len()), (root(&other), 40));
    let third = open(Store::in_memory().unwrap());
    sync(&one, Pace::SITE, asking(&third)).await.unwrap();
    assert_eq!(root(&one), root(&third));
    // What says less than it is, is not inflated, nor taken.
    let (key, mut entry) = rows[0].clone();
    if let CatalogContent::Workflow { file_bytes, .. } = &mut entry.content {
        *file_bytes = 1;
    }
    let fourth = open(Store::in_memory().unwrap());
    assert_eq!(fourth.merge(vec![(key, entry)]).await.unwrap().not_taken.len(), 1);
}

/// Waits, wherever it is asked, until it is let on.
struct Slow {
    asked: std::sync::mpsc::SyncSender<()>,
    on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Signatures for Slow {
    fn is_valid(&self, _: &SignedBy, _: &SiteName, _: &[u8]) -> bool {
        self.asked.send(()).unwrap();
        self.on.lock().unwrap().recv().is_ok()
    }
}

#[tokio::test]
async fn rows_are_checked_beside_the_runtime_and_few_at_once() {
    let (asked, was_asked) = std::sync::mpsc::sync_channel(6);
    let (let_on, on) = std::sync::mpsc::sync_channel(6);
    let slow = Slow { asked, on: std::sync::Mutex::new(on) };
    let catalog = Catalog::open(Store::in_memory().unwrap(), Arc::new(SystemClock), Arc::new(slow)).unwrap();
    let signer = open(Store::in_memory().unwrap());
    let key = CatalogKey::RevokedNode(SiteName::default(), NodeId::generate());
    signer.revoke(vec![(key.clone(), SignedBy::Nobody)]).await.unwrap();
    let row = (key.clone(), signer.load(&key).unwrap().unwrap());
    let merges: Vec<_> = (0..6)
        .map(|_| {
            let (catalog, row) = (catalog.clone(), row.clone());
            tokio::spawn(async move { catalog.merge(vec![row]).await.map(|_| ()) })
        })
        .collect();
    // This runtime has one thread, which goes on while they wait.
    let was_asked = tokio::task::spawn_blocking(move || {
        (0..4).for_each(|_| was_asked.recv().unwrap());
        was_asked
    });
    let was_asked = was_asked.await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(was_asked.try_recv().is_err(), "four are at work, and no more");
    (0..6).for_each(|_| let_on.send(()).unwrap());
    for merge in merges {
        merge.await.unwrap().unwrap();
    }
    assert_eq!(was_asked.try_iter().count(), 2);
}

#[tokio::test]
async fn all_files_of_a_deployment_are_taken_or_none() {
    let catalog = open(Store::in_memory().unwrap());
    catalog.deploy(files(1..2)).await.unwrap();
    let mut mixed = files(0..3);
    mixed[1].1.push(b'!');
    assert_eq!(catalog.deploy(mixed).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(catalog.workflows(None).len(), 1);
    let mut twice = files(5..6);
    twice.push((name(5), b"other".to_vec()));
    assert_eq!(catalog.deploy(twice).await.unwrap_err().kind, ErrorKind::Conflict);
    let deployed = catalog.deploy(files(0..3)).await.unwrap();
    assert_eq!(deployed.iter().map(|one| one.is_new).collect::<Vec<_>>(), [true, false, true]);
}

/// Copies of one site that reach each other, each with its driver.
#[derive(Clone)]
struct Room(Arc<Vec<Catalog>>, usize);

impl CatalogPeers for Room {
    fn others(&self) -> Vec<NodeId> {
        (0..self.0.len()).filter(|index| *index != self.1).map(|index| node(&self.0, index)).collect()
    }

    fn members(&self) -> Option<BTreeSet<NodeId>> {
        Some((0..self.0.len()).map(|index| node(&self.0, index)).collect())
    }

    fn ask(&self, to: NodeId, message: Payload) -> BoxFuture<'static, Result<Payload, fleet_core::Error>> {
        let index = (0..self.0.len()).find(|index| node(&self.0, *index) == to).unwrap();
        asking(&self.0[index])(message)
    }
}

fn node(catalogs: &[Catalog], index: usize) -> NodeId {
    catalogs[index].node()
}

/// Waits until `is_true` after some change of `catalog`.
async fn until(catalog: &Catalog, is_true: impl Fn() -> bool) {
    let mut changes = catalog.changes();
    let wait = async {
        while !is_true() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes to that");
}

#[tokio::test]
async fn the_copies_of_a_site_hear_of_news_and_forget_deletions() {
    let catalogs: Vec<Catalog> = (0..3).map(|_| open(Store::in_memory().unwrap())).collect();
    let catalogs = Arc::new(catalogs);
    let pace = Pace { every: Duration::from_millis(10), rest: Duration::from_secs(3_600), ..Pace::SITE };
    let drivers: Vec<_> = (0..3)
        .map(|index| tokio::spawn(run(catalogs[index].clone(), Arc::new(Room(Arc::clone(&catalogs), index)), pace)))
        .collect();
    catalogs[0].deploy(files(0..5)).await.unwrap();
    for catalog in catalogs.iter() {
        until(catalog, || catalog.workflows(None).len() == 5).await;
    }
    catalogs[1].delete(name(3)).await.unwrap();
    for catalog in catalogs.iter() {
        until(catalog, || catalog.workflows(None).len() == 4 && catalog.replica().deletions_waiting() == 0).await;
    }
    drivers.iter().for_each(|driver| driver.abort());
}

/// Two sites with a link that is there or not.
struct Link {
    other: Between,
    own: SiteName,
    known: watch::Sender<Arc<KnownSites>>,
}

impl Sites for Link {
    fn ask(
        &self,
        _: SiteName,
        topic: SiteTopic,
        message: Payload,
    ) -> BoxFuture<'static, Result<Payload, fleet_core::Error>> {
        assert_eq!(topic, SiteTopic::Catalog);
        self.other.answer(self.own.clone(), message)
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        self.known.subscribe()
    }
}

#[tokio::test]
async fn the_catalogs_of_two_sites_come_together_whoever_writes() {
    let sites: [SiteName; 2] = ["office", "plant"].map(|name| name.parse().unwrap());
    let catalogs = [open(Store::in_memory().unwrap()), open(Store::in_memory().unwrap())];
    let between = [0, 1].map(|index| Between::new(catalogs[index].clone(), sites[index].clone()));
    let mut drivers = Vec::new();
    for (index, other) in [(0, 1), (1, 0)] {
        let known =
            KnownSite { group: fleet_core::GroupId::generate(), is_linked: true, heard_at: None, robots: Vec::new() };
        let known = watch::Sender::new(Arc::new(KnownSites::from([(sites[other].clone(), known)])));
        let link = Arc::new(Link { other: between[other].clone(), own: sites[index].clone(), known });
        drivers.push(tokio::spawn(between[index].clone().run(link, || true)));
    }
    for writer in [0, 1] {
        catalogs[writer].deploy(files(writer * 100..writer * 100 + 50)).await.unwrap();
        for catalog in &catalogs {
            until(catalog, || catalog.workflows(None).len() == 50 * (writer + 1)).await;
        }
    }
    drivers.iter().for_each(|driver| driver.abort());
}
