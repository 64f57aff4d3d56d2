//! A store that fails ends the group on its node; both open again.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use std::time::Duration;

use support::{Site, command, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_group_and_heals_when_space_returns() {
    let mut site = Site::found().await;
    site.write(1).await;
    let node = site.nodes.remove(0);
    node.disk.set_failing(true);
    let refused = node.group.propose(command(2), Duration::from_secs(2)).await;
    assert!(refused.is_err(), "nothing unsynced is acknowledged");
    let stopped = wait(|| node.group.status().borrow().is_stopped().then_some(())).await;
    assert!(stopped.is_some(), "{:?}", node.group.status().borrow());
    assert_eq!(node.group.serving_term(), None);
    assert!(node.store.is_poisoned());
    node.disk.set_failing(false);
    node.group.shutdown().await;
    drop(node.group);
    let node = site.boot(node.disk, 1).await;
    site.nodes.push(node);
    site.write(3).await;
    let applied = site.settle().await;
    assert!(applied == [1, 3] || applied == [1, 2, 3], "{applied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_fails_is_replaced() {
    let site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    let id = site.nodes[leader].id;
    site.nodes[leader].disk.set_failing(true);
    let _ = site.nodes[leader].group.propose(command(2), Duration::from_millis(200)).await;
    site.leader_among(|node| node != id).await;
}
