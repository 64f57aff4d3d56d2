//! Kills with SIGKILL: the leader, a follower, the robot's node, all at once; more than twenty in the gate's run.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;

use crate::harness::cluster::Cluster;
use crate::harness::history::History;
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::Recorder;
use crate::harness::seed::sized;
use crate::harness::{wait, workflows};
use crate::life::steps;

/// Enough for a lease, an election and the work on a busy machine.
const JOB_BOUND: Duration = Duration::from_secs(60);

/// One run of kills.
struct Run {
    cluster: Cluster,
    recorder: Recorder,
    history: History,
}

impl Run {
    async fn submit_many(&mut self, round: &str, count: usize) {
        let client = self.cluster.client();
        for number in 0..count {
            let prefix = format!("{round}-{number}-");
            let workflow = workflows::calls(&self.recorder.url(), &prefix, 3, 150);
            self.history.submit(&client, workflow, steps(&prefix, 3)).await;
        }
    }

    /// Notes who holds what, then kills the node.
    async fn kill(&mut self, index: usize) {
        self.history.note_holdings(&self.cluster.client()).await;
        let node = &mut self.cluster.nodes[index];
        self.history.note_disturbance(&node.name);
        node.kill();
    }

    async fn restart(&mut self, index: usize) {
        self.cluster.start_node(index);
        self.cluster.wait_until_answers(index).await;
    }

    async fn kill_the_leader(&mut self, round: usize) {
        self.submit_many(&format!("r{round}a"), 3).await;
        let leader = self.cluster.leader(&[0, 1, 2]).await;
        self.kill(leader).await;
        self.submit_many(&format!("r{round}b"), 3).await;
        self.restart(leader).await;
    }

    async fn kill_a_follower(&mut self, round: usize) {
        let leader = self.cluster.leader(&[0, 1, 2]).await;
        let follower = (leader + 1) % 3;
        self.kill(follower).await;
        self.submit_many(&format!("r{round}c"), 3).await;
        self.restart(follower).await;
    }

    /// Kills the node that runs a job, in the middle of the job's second effect.
    async fn kill_the_robot(&mut self, round: usize) {
        let client = self.cluster.client();
        let prefix = format!("r{round}robot");
        let workflow = workflows::calls(&self.recorder.url(), &prefix, 3, 400);
        let (job, _) = self.history.submit(&client, workflow, steps(&prefix, 3)).await;
        let second = format!("{prefix}1");
        wait::until("the second effect", JOB_BOUND, || async {
            let seen = self.recorder.of_step(&second).len();
            if seen > 0 { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let robot = self.cluster.index_of(&holder(&client, job).await);
        self.kill(robot).await;
        self.restart(robot).await;
    }

    async fn kill_all(&mut self, round: usize) {
        self.submit_many(&format!("r{round}d"), 2).await;
        for node in &mut self.cluster.nodes {
            self.history.note_disturbance(&node.name);
            node.kill();
        }
        for index in 0..3 {
            self.cluster.start_node(index);
        }
        self.cluster.leader(&[0, 1, 2]).await;
    }
}

/// Name of the node that has `job`.
async fn holder(client: &FleetClient, job: JobId) -> String {
    client
        .get_job(v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() })
        .await
        .expect("it exists")
        .node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_survives_the_death_of_leader_follower_robot_and_all() {
    let cluster = Cluster::start("kills", 3, 4).await;
    let mut run = Run { cluster, recorder: Recorder::start().await, history: History::default() };
    for round in 0..sized(1, 4, 40) {
        run.kill_the_leader(round).await;
        run.kill_a_follower(round).await;
        run.kill_the_robot(round).await;
        run.kill_all(round).await;
    }
    finish_and_judge(&run.cluster, &run.history, &run.recorder, JOB_BOUND).await;
    let (accepted, all) = (run.history.accepted(), run.history.submits.len());
    assert!(accepted * 10 >= all * 9, "only {accepted} of {all} were accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_other_robots_is_undisturbed_when_the_leader_dies() {
    let cluster = Cluster::start("blink", 3, 4).await;
    let mut run = Run { cluster, recorder: Recorder::start().await, history: History::default() };
    let client = run.cluster.client();
    for number in 0..6 {
        let prefix = format!("long{number}-");
        let workflow = workflows::calls(&run.recorder.url(), &prefix, 1, 6_000);
        run.history.submit(&client, workflow, steps(&prefix, 1)).await;
    }
    wait::until("all six effects to begin", JOB_BOUND, || async {
        let seen = run.recorder.requests().len();
        if seen == 6 { Ok(()) } else { Err(format!("{seen} began")) }
    })
    .await;
    let leader = run.cluster.leader(&[0, 1, 2]).await;
    run.kill(leader).await;
    let leader_name = &run.cluster.nodes[leader].name;
    let elsewhere = run.history.holdings.iter().filter(|holding| holding.node != *leader_name).count();
    assert!(elsewhere > 0, "every job runs on the leader: nothing can be shown");
    finish_and_judge(&run.cluster, &run.history, &run.recorder, JOB_BOUND).await;
}
