//! Who leads, when, and what a leader may do: the scenarios of the election rules as regression tests.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use std::time::Duration;

use fleet_core::timing::Timing;
use fleet_replication::autopilot::Change;
use tokio::time::Instant;

use fleet_store::state::tables::SITE;
use support::{GROUP, Site, applied_commands, command, command_of_version_2, is_not_leader, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_voter_serves_at_once_and_again_after_a_power_loss() {
    let mut site = Site::found().await;
    site.write(1).await;
    site.crash_and_restart(0).await;
    let restarted = Instant::now();
    site.write(2).await;
    assert!(restarted.elapsed() < Duration::from_millis(600), "nobody's lease is in its way");
    assert_eq!(applied_commands(&site.nodes[0].store), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_grows_to_three_voters_and_outlives_its_leader() {
    let mut site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    let old = site.nodes[leader].id;
    let died = Instant::now();
    site.crash(leader).await;
    site.leader_among(|node| node != old).await;
    assert!(died.elapsed() < Duration::from_millis(1_600), "the next leader serves after {:?}", died.elapsed());
    site.write(2).await;
    assert_eq!(site.settle().await, [1, 2]);
}

/// Scenario A: an election asked for while the leader is well changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_leader_is_not_deposed() {
    let site = Site::grow(3).await;
    let leader = site.leader().await;
    let term = site.nodes[leader].group.serving_term();
    // Gossip holds the leader down everywhere: a hint, no authority.
    let mut view = fleet_replication::SiteView::default();
    for node in &site.nodes {
        let down_since = (node.id == site.nodes[leader].id).then_some(fleet_core::BootInstant::default());
        view.nodes.push(fleet_replication::SiteNode { node: node.id, down_since, is_removed: false, commands: None });
    }
    for node in &site.nodes {
        node.group.observe(view.clone());
    }
    let until = Instant::now() + site.timing.group_lease * 3;
    let mut next = 1;
    while Instant::now() < until {
        site.write(next).await;
        next += 1;
    }
    assert_eq!(site.nodes[leader].group.serving_term(), term);
}

/// Scenario B: a leader that is cut off is replaced, serves nobody, and follows after healing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_fenced() {
    let site = Site::grow(3).await;
    site.write(1).await;
    let old = site.leader().await;
    let old_id = site.nodes[old].id;
    site.router.isolate(old_id, site.ids());
    let new = site.leader_among(|node| node != old_id).await;
    let lost = site.nodes[old].group.propose(command(66), Duration::from_millis(300)).await;
    assert!(lost.is_err(), "a command of a deposed leader is not acknowledged");
    assert!(is_not_leader(&site.nodes[old].group.confirm_leadership().await));
    assert!(site.nodes[new].group.propose(command(2), Duration::from_secs(2)).await.is_ok());
    let silent = wait(|| site.nodes[old].group.serving_term().is_none().then_some(())).await;
    assert!(silent.is_some(), "a leader without a quorum stops serving");
    site.router.heal();
    assert_eq!(site.settle().await, [1, 2]);
    assert!(site.nodes[new].group.serving_term().is_some(), "leaders are sticky");
}

/// Scenario C: a voter that was cut off for long does not depose the leader when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_comes_back_disturbs_nobody() {
    let site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    let term = site.nodes[leader].group.serving_term();
    let follower = (leader + 1) % 3;
    site.router.isolate(site.nodes[follower].id, site.ids());
    let until = Instant::now() + site.timing.group_lease * 3;
    let mut next = 2;
    while Instant::now() < until {
        site.write(next).await;
        next += 1;
    }
    site.router.heal();
    let commands = site.settle().await;
    assert_eq!(commands, (1..next).collect::<Vec<_>>());
    assert_eq!(site.nodes[leader].group.serving_term(), term, "the poll kept the cut-off voter from raising the term");
}

/// Scenario D: a voter whose log is behind does not win, whatever gossip prefers; another one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_with_an_old_log_does_not_win() {
    let mut site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    let leader_id = site.nodes[leader].id;
    let behind = site.nodes[(leader + 1) % 3].id;
    site.router.isolate(behind, site.ids());
    site.write(2).await;
    site.router.heal();
    // The leader must not bring the one that is behind up to date: cut only that direction, then let it die.
    site.router.cut(leader_id, behind);
    site.crash(leader).await;
    let new = site.leader_among(|_| true).await;
    let voices = applied_commands(&site.nodes[new].store);
    assert_eq!(voices, [1, 2], "whoever leads has every acknowledged command");
    site.write(3).await;
    assert_eq!(site.settle().await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_restarted_within_its_lease_reads_nothing_before_its_first_entry() {
    // Long leases, so that a slow machine does not end one in between.
    let timing = Timing {
        group_lease: Timing::LAN.group_lease * 8,
        election_min: Timing::LAN.election_min * 8,
        robot_lease: Timing::LAN.robot_lease * 8,
        ..Timing::LAN
    };
    let mut site = Site::grow_with(3, timing).await;
    site.write(1).await;
    let leader = site.leader().await;
    let id = site.nodes[leader].id;
    let index = site.nodes[leader].group.confirm_leadership().await.unwrap().index;
    // The others told this run when an earlier leader was heard; that must not bind them against its next run.
    site.nodes[leader].group.takeover_time().await.unwrap();
    // The others do not answer it, so its own first entry cannot commit.
    site.router.isolate(id, site.ids());
    site.crash_and_restart(leader).await;
    let restarted = &site.nodes[leader].group;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        assert_eq!(restarted.serving_term(), None, "it serves before its first entry is applied");
        assert!(is_not_leader(&restarted.confirm_leadership().await));
    }
    site.router.heal();
    let now = site.leader().await;
    assert_eq!(now, leader, "it resumes its term, for nobody's lease was over");
    assert!(site.nodes[now].group.confirm_leadership().await.unwrap().index > index);
    site.write(2).await;
    assert_eq!(site.settle().await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_at_its_old_address_does_not_vote_for_its_old_self() {
    let mut site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    let wiped = (leader + 1) % 3;
    let old_id = site.nodes[wiped].id;
    site.crash(wiped).await;
    // A new node answers where the old one did.
    let node = site.boot(fleet_store::MemoryDisk::new(), 1).await;
    site.router.attach(old_id, node.group.clone());
    site.write(2).await;
    // Without the leader only one of three voters is left: no majority, whatever the wiped node hears.
    let leader = site.leader().await;
    site.crash(leader).await;
    let until = Instant::now() + site.timing.group_lease * 4;
    while Instant::now() < until {
        assert!(site.nodes.iter().all(|node| node.group.serving_term().is_none()), "a wiped node gave its old vote");
        tokio::time::sleep(site.timing.watchdog_tick).await;
    }
    assert!(applied_commands(&node.store).is_empty(), "it took nothing that was meant for its old self");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_learns_when_the_last_one_was_heard() {
    let mut site = Site::grow(3).await;
    site.write(1).await;
    let leader = site.leader().await;
    let founded = site.nodes[leader].group.takeover_time().await.unwrap();
    let clock = fleet_core::SystemClock;
    site.crash(leader).await;
    let died = fleet_core::Clock::boot_now(&clock);
    let new = site.leader().await;
    let heard = site.nodes[new].group.takeover_time().await.unwrap();
    // A message that was on its way when the leader died counts from when it was taken up.
    let late = heard.saturating_since(died);
    assert!(late < site.timing.watchdog_tick, "somebody heard the old leader {late:?} after its death");
    assert!(heard > founded);
    assert!(died.saturating_since(heard) < site.timing.group_lease, "a follower heard it shortly before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_round_confirms_for_all_who_wait() {
    let site = Site::grow(3).await;
    let leader = site.leader().await;
    let group = &site.nodes[leader].group;
    let questions = (0..200).map(|_| {
        tokio::spawn({
            let group = group.clone();
            async move { group.confirm_leadership().await }
        })
    });
    for question in questions.collect::<Vec<_>>() {
        assert_eq!(question.await.unwrap().unwrap().term, group.serving_term().unwrap());
    }
    let follower = (leader + 1) % 3;
    assert!(is_not_leader(&site.nodes[follower].group.confirm_leadership().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_learner_gets_the_state_as_a_snapshot_and_the_rest_from_the_log() {
    let mut site = Site::grow(3).await;
    for id in 1..=300 {
        site.write(id).await;
    }
    let late = site.boot(fleet_store::MemoryDisk::new(), 1).await;
    let leader = site.leader().await;
    site.nodes[leader].group.shorten_log().await.unwrap();
    site.nodes[leader].group.change_membership(Change::AddLearner(late.id)).await.unwrap();
    site.nodes.push(late);
    site.write(301).await;
    assert_eq!(site.settle().await, (1..=301).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durations_that_would_cost_robots_their_lease_are_refused() {
    let timing = Timing { rank_step_of_five: Timing::LAN.rank_step_of_three, ..Timing::LAN };
    let refused = Site::open_with(timing).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "open the group: with 5 voters the group lease, watchdog tick, rank steps, 150ms of work and two robot \
         heartbeats are 2.1s, not less than the robot lease less its margin, 1.98s"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_above_the_gate_is_refused_whoever_proposes_it() {
    let site = Site::found().await;
    let group = &site.nodes[site.leader().await].group;
    let newer = command_of_version_2(7);
    let refused = group.propose(newer.clone(), Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(refused.kind(), fleet_core::ErrorKind::FailedPrecondition, "{refused}");
    assert!(applied_commands(&site.nodes[0].store).is_empty());
    let raised = site.nodes[0].store.apply(GROUP, |state| {
        let gate = fleet_replication::command::SUBMIT_ASSIGNED_VERSION;
        state.put(&SITE, &(), &fleet_store::record::Site { gate, ..Default::default() })
    });
    raised.await.unwrap();
    group.propose(newer, Duration::from_secs(2)).await.unwrap();
    assert_eq!(applied_commands(&site.nodes[0].store), [7]);
}
