//! Blobs lie on a majority's disks before anybody may name them, and are found from every node.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use bytes::Bytes;
use fleet_core::Digest;
use fleet_store::MemoryDisk;
use support::{Site, naming, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_on_a_majority_and_found_from_every_node() {
    let mut site = Site::grow(3).await;
    let leader = site.leader().await;
    let content = Bytes::from(vec![5; 300_000]);
    let digest = site.nodes[leader].group.put_blob(content.clone()).await.unwrap();
    let holders = site.nodes.iter().filter(|node| node.store.has_blob(digest).unwrap()).count();
    assert!(holders >= 2, "{holders} nodes have it");
    site.crash(leader).await;
    for node in &site.nodes {
        assert_eq!(node.group.blob(digest).await.unwrap(), Some(content.clone()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_no_majority_keeps_is_not_stored() {
    let site = Site::grow(3).await;
    let leader = site.leader().await;
    site.router.isolate(site.nodes[leader].id, site.ids());
    assert!(site.nodes[leader].group.put_blob(Bytes::from_static(b"lonely")).await.is_err());
    site.router.heal();
    let absent = site.nodes[leader].group.blob(Digest::of(b"never stored")).await.unwrap();
    assert_eq!(absent, None);
}

/// Stores `count` blobs of `bytes` bytes and commits a command that names each.
async fn store_named(site: &Site, first: u128, count: u8, bytes: usize) -> Vec<Digest> {
    let mut digests = Vec::new();
    for number in 0..count {
        let leader = site.leader().await;
        let content = Bytes::from(vec![number; bytes]);
        let digest = site.nodes[leader].group.put_blob(content).await.unwrap();
        site.write_command(naming(first + u128::from(number), digest)).await;
        digests.push(digest);
    }
    digests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_a_vote_holds_what_was_put_before() {
    let mut site = Site::found().await;
    let digests = store_named(&site, 1, 60, 200_000).await;
    for _ in 0..2 {
        let node = site.boot(MemoryDisk::new(), 1).await;
        site.nodes.push(node);
    }
    site.tell_all_alive();
    let votes = |site: &Site| site.nodes[0].group.status().borrow().voters().len() == 3;
    assert!(wait(|| votes(&site).then_some(())).await.is_some(), "{:#?}", site.statuses());
    for node in &site.nodes {
        let missing = node.store.missing_blobs(digests.clone()).unwrap();
        assert_eq!(missing, [], "a voter lacks blobs that jobs need");
    }
    site.wait_for("the change is finished", |status| status.voter_sets.len() == 1).await;
    site.crash(0).await;
    let leader = site.leader().await;
    assert!(site.nodes[leader].group.blob(digests[0]).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_missed_a_put_fetches_it_when_it_is_back() {
    let mut site = Site::grow(3).await;
    let away = (site.leader().await + 1) % 3;
    let disk = site.crash(away).await;
    let digests = store_named(&site, 1, 3, 50_000).await;
    let node = site.boot(disk, 1).await;
    assert_eq!(node.store.missing_blobs(digests.clone()).unwrap().len(), 3);
    let complete = wait(|| node.store.missing_blobs(digests.clone()).unwrap().is_empty().then_some(()));
    assert!(complete.await.is_some(), "{:#?}", node.group.status().borrow());
}
