//! Founding a group anew from one replica, and how members of the old epoch come back to it.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fleet_core::NodeId;
use fleet_replication::{recover, rejoin, unapplied};
use fleet_store::record::{Hold, Site as SiteRow};
use fleet_store::state::jobs;
use fleet_store::state::tables::SITE;
use fleet_store::{MemoryDisk, StateRead};
use support::{GROUP, Site, applied_commands, command, wait};

/// The facts that a recovery writes here.
fn facts() -> Vec<(String, Vec<u8>)> {
    vec![("recover".to_owned(), b"done".to_vec())]
}

/// Three voters, of which the last founds the group anew; the disks of the other two.
async fn recovered() -> (Site, [MemoryDisk; 2]) {
    let mut site = Site::grow(3).await;
    for id in 1..=20 {
        site.write(id).await;
    }
    site.settle().await;
    let disks = [site.crash(0).await, site.crash(0).await];
    let last = site.nodes.remove(0);
    site.router.detach(last.id);
    last.group.shutdown().await;
    drop(last.group);
    let recovered = recover(&last.store, GROUP, facts(), |_| Ok(())).await.unwrap();
    assert_eq!(recovered.epoch, 2);
    assert_eq!(last.store.meta("recover").unwrap(), Some(b"done".to_vec()), "no crash can come in between");
    last.store.close();
    let node = site.boot(last.disk.clone(), 1).await;
    let log = node.store.log_extent(GROUP).unwrap();
    let is_new = log.sizes.is_empty() || log.first > recovered.applied_index;
    assert!(is_new, "entries of the old epoch would call back its voters");
    assert_eq!(node.group.epoch(), 2, "the store remembers the epoch");
    site.nodes.push(node);
    site.write(21).await;
    (site, disks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_voter_founds_the_group_anew_with_everything_it_has() {
    let (site, [first, _]) = recovered().await;
    assert_eq!(applied_commands(&site.nodes[0].store), (1..=21).collect::<Vec<_>>());
    assert_eq!(site.nodes[0].group.status().borrow().voters(), [site.nodes[0].id].into());

    // A voter of the old epoch comes back: nobody answers it, and it learns why.
    let old = site.boot(first, 1).await;
    let told = wait(|| old.group.status().borrow().superseded_by).await;
    assert_eq!(told, Some(2));
    assert_eq!(old.group.serving_term(), None);
    assert_eq!(old.group.survey().await.superseded_by, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_of_the_old_epoch_come_back_as_strangers_and_vote_again() {
    let (mut site, disks) = recovered().await;
    for disk in disks {
        let old = site.boot(disk, 1).await;
        let told = wait(|| old.group.status().borrow().superseded_by).await;
        assert_eq!(told, Some(2));
        old.group.shutdown().await;
        site.router.detach(old.id);
        drop(old.group);
        rejoin(&old.store, GROUP, 2, Vec::new()).await.unwrap();
        assert!(applied_commands(&old.store).is_empty());
        old.store.close();
        let node = site.boot(old.disk.clone(), 1).await;
        assert_eq!(node.group.epoch(), 2);
        assert!(node.group.status().borrow().voters().is_empty(), "what it voted in the old epoch binds nobody");
        site.nodes.push(node);
    }
    site.tell_all_alive();
    site.wait_for("all vote again", |status| status.voters().len() == 3 && status.voter_sets.len() == 1).await;
    site.write(22).await;
    assert_eq!(site.settle().await, (1..=22).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_of_the_old_epoch_learns_of_the_new_one_from_its_leader() {
    let mut site = Site::grow(3).await;
    let learner = site.boot(MemoryDisk::new(), 1).await;
    site.nodes.push(learner);
    site.tell_all_alive();
    site.wait_for("the learner follows", |status| status.learners.len() == 1).await;
    site.write(1).await;
    site.settle().await;
    site.crash(0).await;
    site.crash(0).await;
    let last = site.nodes.remove(0);
    site.router.detach(last.id);
    last.group.shutdown().await;
    drop(last.group);
    recover(&last.store, GROUP, facts(), |_| Ok(())).await.unwrap();
    last.store.close();
    let node = site.boot(last.disk.clone(), 1).await;
    site.nodes.push(node);
    site.tell_all_alive();
    let told = wait(|| site.nodes[0].group.status().borrow().superseded_by).await;
    assert_eq!(told, Some(2), "{:#?}", site.statuses());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_voted_in_the_present_epoch_is_never_forgotten() {
    let site = Site::found().await;
    site.write(1).await;
    let node = &site.nodes[0];
    node.group.shutdown().await;
    rejoin(&node.store, GROUP, 1, facts()).await.unwrap();
    assert_eq!(applied_commands(&node.store), [1]);
    assert_eq!(node.store.meta("recover").unwrap(), Some(b"done".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_nobody_applied_can_still_be_read() {
    let mut site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    site.router.isolate(site.nodes[leader].id, site.ids());
    let lost = site.nodes[leader].group.propose(command(66), std::time::Duration::from_millis(100)).await;
    assert!(lost.is_err());
    let node = site.nodes.remove(leader);
    node.group.shutdown().await;
    let found = unapplied(&node.store, GROUP).unwrap();
    assert!(found.iter().any(|(_, command)| command.id.0 == 66), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_does_not_await_a_node_that_was_removed() {
    let site = Site::found().await;
    site.leader().await;
    let gone = NodeId::generate();
    let held = site.nodes[0].store.apply(GROUP, move |state| {
        let hold = Some(Hold { awaited: vec![gone], since: fleet_core::Timestamp(1) });
        state.put(&SITE, &(), &SiteRow { hold, ..SiteRow::default() })
    });
    held.await.unwrap();
    site.tell_all_alive();
    let told = wait(|| {
        let awaited = |row: SiteRow| row.hold.is_none();
        jobs::site(&site.nodes[0].store.reader(GROUP).unwrap()).ok().filter(|row| awaited(row.clone()))
    });
    assert!(told.await.is_some(), "the leader says for it that it has reconciled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_counts_who_answers_and_names_the_leader() {
    let mut site = Site::grow(3).await;
    let leader = site.leader().await;
    let follower = (leader + 1) % 3;
    let well = site.nodes[follower].group.survey().await;
    assert!(well.is_majority && well.answered.len() == 3, "{well:?}");
    assert_eq!(well.leader, Some(site.nodes[leader].id));
    let kept = site.nodes[follower].id;
    while site.nodes.len() > 1 {
        let place = site.nodes.iter().position(|node| node.id != kept).unwrap();
        site.crash(place).await;
    }
    let lost = wait(|| site.nodes[0].group.status().borrow().leader.is_none().then_some(())).await;
    assert!(lost.is_some());
    let alone = site.nodes[0].group.survey().await;
    assert!(!alone.is_majority && alone.answered == [kept].into(), "{alone:?}");
    assert_eq!(alone.leader, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_a_state_founds_nothing() {
    let store = fleet_store::Store::in_memory().unwrap();
    let refused = recover(&store, GROUP, facts(), |_| Ok(())).await.unwrap_err();
    assert_eq!(refused.to_string(), "found the group anew: this replica has no state");
    assert_eq!(store.meta("recover").unwrap(), None);
    assert!(store.reader(GROUP).unwrap().applied().unwrap().is_none());
}
