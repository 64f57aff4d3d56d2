//! Many clients against one node with the real group on a real disk: every job ends exactly once, and how fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use fleet_core::limits::ENDED_JOBS_KEPT;
use fleet_core::timing::Timing;
use fleet_core::{Clock, FleetId, JobId, NodeId, SiteName, SystemClock};
use fleet_node::link::RobotReport;
use fleet_node::ports::{EffectContext, EffectReport, Effects, Group as _};
use fleet_node::{JobRequest, Node, NodeConfig, NodePorts, SiteGroup};
use fleet_replication::command::{Action, NodeAdmission};
use fleet_replication::{CallError, CallFuture, Group, GroupConfig, GroupNetwork, fsm};
use fleet_sim::TestSize;
use fleet_store::Store;
use fleet_store::record::{Founding, JobState, NodeProfile, Payload};
use fleet_store::state::jobs;
use fleet_workflow::machine::effect::Effect;

use crate::support::{GROUP, TestLink, definition_of, done, no_sites};
use crate::words::Words;

/// There is nobody else.
struct Alone;

impl GroupNetwork for Alone {
    fn call(&self, _: NodeId, _: bytes::Bytes, _: std::time::Duration) -> CallFuture<'_> {
        async { Err(CallError::Unreachable("there is nobody else".to_owned())) }.boxed()
    }
}

/// Effects that end at once, and are counted.
#[derive(Default)]
struct Counted {
    runs: AtomicU64,
}

impl Effects for Counted {
    fn run(&self, _: Effect, _: EffectContext) -> BoxFuture<'static, EffectReport> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        async { EffectReport::of(done()) }.boxed()
    }

    fn end_job(&self, _: JobId) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

async fn start(group: &Group, effects: &Arc<Counted>) -> Node {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    group.found().await.unwrap();
    let port = Arc::new(SiteGroup::new(group.clone(), Arc::clone(&clock), fleet_store::Store::in_memory().unwrap(), 0));
    port.standing().wait_for(|standing| standing.serving.is_some()).await.unwrap();
    let node = group.node();
    let founding =
        Founding { fleet: FleetId::generate(), site: SiteName::default(), group: GROUP, founder: node, dev: true };
    port.propose(Action::Found(founding)).await.unwrap().accepted().unwrap();
    let profile = NodeProfile {
        name: "alone".to_owned(),
        site: SiteName::default(),
        address: "127.0.0.1:7000".to_owned(),
        http_address: "127.0.0.1:8000".to_owned(),
        tags: Vec::new(),
        slots: 128,
        capabilities: vec!["http".to_owned()],
        version: "0".to_owned(),
    };
    let admission = NodeAdmission { node, profile, certificate: None, replaces: None };
    port.propose(Action::PutNode(Box::new(admission))).await.unwrap().accepted().unwrap();
    let robot = RobotReport {
        node_name: "alone".to_owned(),
        slots: 128,
        tags: Vec::new(),
        capabilities: vec!["http".to_owned()],
        is_draining: false,
    };
    let config = NodeConfig {
        node,
        boot: 1,
        timing: Timing::LAN,
        robot,
        guards_gone: true,
        ended_jobs_kept: ENDED_JOBS_KEPT,
        interpreter_threads: 2,
    };
    let ports = NodePorts {
        clock,
        group: port,
        effects: Arc::clone(effects) as Arc<dyn Effects>,
        robot_link: Arc::new(TestLink::default()),
        interpreter: Arc::new(Words),
        sites: no_sites(),
        own_journal: Arc::new(fleet_store::Store::in_memory().unwrap()),
    };
    Node::start(config, ports).await.unwrap()
}

fn request() -> JobRequest {
    let (definition, spec) = definition_of("call");
    JobRequest { job: JobId::generate(), spec, site: None, priority: 10, input: Payload::from("{}"), definition }
}

/// Submits a job and waits until it has completed.
async fn one_job(node: &Node, group: &Group) {
    let request = request();
    let mut changes = node.watch(request.job);
    let job = node.submit(request).await.unwrap();
    loop {
        let row = jobs::job(&group.reader().unwrap(), job).unwrap().unwrap();
        if row.state.is_ended() {
            assert_eq!((row.state, row.attempt), (JobState::Completed, 1));
            return;
        }
        assert!(changes.changed().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_many_clients_ends_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("fleet.redb")).unwrap();
    let config = GroupConfig {
        store,
        group: GROUP,
        epoch: 1,
        timing: Timing::LAN,
        clock: Arc::new(SystemClock),
        network: Arc::new(Alone),
        apply_commands: fsm::apply,
    };
    let group = Group::open(config).await.unwrap();
    let effects = Arc::new(Counted::default());
    let node = start(&group, &effects).await;
    let (clients, jobs_each) = (128, TestSize::from_env().choose(4, 40, 400));
    one_job(&node, &group).await;
    let begun = std::time::Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (node, group) = (node.clone(), group.clone());
            tokio::spawn(async move {
                for _ in 0..jobs_each {
                    one_job(&node, &group).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let jobs = clients * jobs_each;
    println!("{jobs} one-task jobs, {:.0} a second", jobs as f64 / begun.elapsed().as_secs_f64());
    assert_eq!(effects.runs.load(Ordering::Relaxed), jobs + 1);
    assert_eq!(node.stop(std::time::Duration::from_secs(2)).await, 0);
    group.shutdown().await;
}
