//! Founding a group anew from one replica, and what members of the old epoch make of it.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fleet_replication::recover;
use support::{GROUP, Site, applied_commands, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_voter_founds_the_group_anew_with_everything_it_has() {
    let mut site = Site::grow(3).await;
    for id in 1..=20 {
        site.write(id).await;
    }
    site.settle().await;
    let first = site.crash(0).await;
    site.crash(0).await;
    let last = site.nodes.remove(0);
    site.router.detach(last.id);
    last.group.shutdown().await;
    drop(last.group);
    let recovered = recover(&last.store, GROUP, |_| Ok(())).await.unwrap();
    assert_eq!(recovered.epoch, 2);
    last.store.close();
    let node = site.boot(last.disk.clone(), 1).await;
    assert_eq!(node.group.epoch(), 2, "the store remembers the epoch");
    site.nodes.push(node);
    site.write(21).await;
    assert_eq!(applied_commands(&site.nodes[0].store), (1..=21).collect::<Vec<_>>());
    assert_eq!(site.nodes[0].group.status().borrow().voters(), [site.nodes[0].id].into());

    // A voter of the old epoch comes back: nobody answers it, and it learns why.
    let old = site.boot(first, 1).await;
    let told = wait(|| old.group.status().borrow().superseded_by).await;
    assert_eq!(told, Some(2));
    assert_eq!(old.group.serving_term(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_a_state_founds_nothing() {
    let store = fleet_store::Store::in_memory().unwrap();
    let refused = recover(&store, GROUP, |_| Ok(())).await.unwrap_err();
    assert_eq!(refused.to_string(), "found the group anew: this replica has no state");
}
