//! A process that runs effects and is killed or stopped: what it started must not run on.

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fleet_core::{Clock, JobId, SystemClock};
use fleet_effects::{EffectContext, Effects, Lease, Options, guard};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::effect::{Effect, ProcessReturn};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::fixture::{BOUND, Case, alive, block_on, eventually, shell};

/// First argument of a starter.
pub(crate) const WORD: &str = "starter";
/// What it runs: a loop, and one that left the session and ignores what can be ignored.
const COMMAND: &str =
    "(setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.05; done' &); while :; do sleep 0.05; done";

pub(crate) const CASES: &[Case] = &[
    ("sigkill_of_the_starter_ends_its_work", || block_on(sigkill_of_the_starter_ends_its_work())),
    ("sigstop_of_the_starter_ends_its_work_at_the_lease", || block_on(sigstop_ends_its_work_at_the_lease())),
];

/// Runs [`COMMAND`] for job `arguments[0]` in directory `arguments[1]`, renewing a lease of `arguments[2]` ms four
/// times in it.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let job_id: JobId = arguments.next().unwrap().parse().unwrap();
    let directory = arguments.next().unwrap();
    let length = Duration::from_millis(arguments.next().unwrap().parse().unwrap());
    block_on(async move {
        let allowed = ["shell".to_owned()].into();
        let options = Options { allowed, guard_dir: Some(directory.into()), ..Options::default() };
        let effects = Effects::new(options).unwrap();
        let (keeper, lease) = Lease::until(SystemClock.boot_now().saturating_add(length));
        let (_cancel, cancelled) = watch::channel(false);
        let path = EffectPath("p".to_owned());
        let context = EffectContext { job_id, node_name: "n".to_owned(), path, cancelled, deadline: None, lease };
        let effect = Effect::Process(shell(COMMAND, ProcessReturn::None));
        let renew = async {
            loop {
                tokio::time::sleep(length / 4).await;
                keeper.renew(SystemClock.boot_now().saturating_add(length));
            }
        };
        tokio::select! {
            report = effects.run(context, &effect) => panic!("{report:?}"),
            () = renew => {}
        }
    });
    ExitCode::SUCCESS
}

/// A starter in a process of its own, killed when dropped.
struct Starter {
    process: Child,
    key: String,
    directory: tempfile::TempDir,
}

impl Starter {
    fn start(lease_ms: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let job_id = JobId::generate().to_string();
        let process = Command::new(std::env::current_exe().unwrap())
            .args([WORD, &job_id, directory.path().to_str().unwrap(), &lease_ms.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, key: format!("{job_id}/p"), directory }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    async fn is_at_work(&self) {
        eventually(|| alive(&self.key).len() >= 3, "the work has begun").await;
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn sigkill_of_the_starter_ends_its_work() {
    let starter = Starter::start(600_000);
    starter.is_at_work().await;
    let killed = Instant::now();
    starter.signal(Signal::KILL);
    guard::wait_until_gone(starter.directory.path(), BOUND).await.unwrap();
    assert!(alive(&starter.key).is_empty(), "guards let go of the lock only when nothing is left");
    assert!(killed.elapsed() < Duration::from_secs(5), "the pipe's end is enough, long before the lease's");
}

async fn sigstop_ends_its_work_at_the_lease() {
    let starter = Starter::start(1_600);
    starter.is_at_work().await;
    // It outlives its first lease, because it is renewed.
    let renewed = Instant::now();
    eventually(|| renewed.elapsed() > Duration::from_millis(2_000), "time passes").await;
    assert!(alive(&starter.key).len() >= 3);
    let stopped = Instant::now();
    starter.signal(Signal::STOP);
    guard_gone(&starter).await;
    // The lease was renewed at most 400 ms before, and the kill needs some time of its own.
    let elapsed = stopped.elapsed();
    assert!((Duration::from_millis(1_100)..Duration::from_millis(3_500)).contains(&elapsed), "{elapsed:?}");
}

/// Nothing is left of the work. The guard itself still tries to tell its stopped starter.
async fn guard_gone(starter: &Starter) {
    eventually(|| alive(&starter.key).is_empty(), "the work is gone").await;
}
