//! What the cases share: effects on a temporary directory, requests, and a look at what is alive.

use std::fs;
use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use fleet_core::JobId;
use fleet_effects::{EffectContext, EffectReport, Effects, Lease, Options};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::effect::{Effect, ProcessRequest, ProcessReturn, Program};
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

/// A named case.
pub(crate) type Case = (&'static str, fn());

/// How long anything that must happen may take.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Effects, a job of their own, and a directory.
pub(crate) struct Fixture {
    pub(crate) effects: Effects,
    pub(crate) directory: TempDir,
    pub(crate) cancel: watch::Sender<bool>,
    pub(crate) context: EffectContext,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_lease(Lease::unlimited())
    }

    pub(crate) fn with_lease(lease: Lease) -> Self {
        Self::allowing(&Effect::CAPABILITIES, lease)
    }

    pub(crate) fn allowing(allowed: &[&str], lease: Lease) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            allowed: allowed.iter().map(|word| (*word).to_owned()).collect(),
            guard_dir: Some(directory.path().to_owned()),
            work_dir: Some(directory.path().to_owned()),
            environment: fleet_effects::BaseEnvironment {
                path: std::env::var("PATH").unwrap(),
                ..fleet_effects::BaseEnvironment::default()
            },
            ..Options::default()
        };
        let (cancel, cancelled) = watch::channel(false);
        let mut bytes = *JobId::generate().as_bytes();
        bytes[15] = NEXT.fetch_add(1, Ordering::Relaxed);
        let context = EffectContext {
            job_id: JobId::from_bytes(bytes),
            node_name: "node-a".to_owned(),
            path: EffectPath("do/0/it".to_owned()),
            cancelled,
            deadline: None,
            lease,
        };
        Self { effects: Effects::new(options).unwrap(), directory, cancel, context }
    }

    pub(crate) async fn run(&self, request: ProcessRequest) -> EffectReport {
        let effect = Effect::Process(request);
        tokio::time::timeout(BOUND, self.effects.run(self.context.clone(), &effect)).await.expect("the effect ends")
    }

    /// Processes of this fixture's effect that are alive, by the key in their environment.
    pub(crate) fn alive(&self) -> Vec<u32> {
        alive(&self.context.key())
    }

    /// Waits until the shell has written `name`.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        eventually(|| fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')), "the file is written").await;
        fs::read_to_string(&path).unwrap().trim().to_owned()
    }
}

/// A shell command.
pub(crate) fn shell(command: &str, returns: ProcessReturn) -> ProcessRequest {
    ProcessRequest {
        program: Program::Shell { command: command.to_owned() },
        arguments: Vec::new(),
        stdin: None,
        environment: Vec::new(),
        returns,
        awaits: true,
    }
}

pub(crate) fn ok(report: EffectReport) -> Value {
    match report.outcome {
        Outcome::Ok(value) => value,
        Outcome::Err(error) => panic!("{error:?}"),
    }
}

pub(crate) fn error(report: EffectReport) -> ErrorObject {
    match report.outcome {
        Outcome::Ok(value) => panic!("{value}"),
        Outcome::Err(error) => error,
    }
}

/// Runs an async case.
pub(crate) fn block_on(case: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(case);
}

/// Processes whose environment has the effect key `key`.
pub(crate) fn alive(key: &str) -> Vec<u32> {
    let wanted = format!("FLEET_EFFECT_KEY={key}");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            fs::read(format!("/proc/{process}/environ"))
                .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()))
        })
        .collect()
}

/// Waits until `condition` holds, looking again every few milliseconds.
pub(crate) async fn eventually(condition: impl Fn() -> bool, what: &str) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
