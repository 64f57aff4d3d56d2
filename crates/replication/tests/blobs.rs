//! Blobs lie on a majority's disks before anybody may name them, and are found from every node.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use bytes::Bytes;
use fleet_core::Digest;
use support::Site;

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
