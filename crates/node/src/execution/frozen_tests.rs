//! An execution whose process is stopped (SIGSTOP) and wakes when its lease is over. Nobody has told it yet: the robot
//! that would abort it was stopped too. All that holds it back is its own look at the clock.

use std::sync::Mutex;
use std::time::Duration;

use fleet_core::{BootInstant, Fence, JobId};
use fleet_workflow::machine::command::{Command, OnLost};
use fleet_workflow::machine::effect::Effect as WorkflowEffect;

use super::super::course::tests::start;
use super::*;

const LEASE_END: BootInstant = BootInstant(Duration::from_secs(100));
/// Calls of the job, in a row.
const CALLS: usize = 3;

/// Where the process is stopped. It sleeps longer than its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoppedWhile {
    Never,
    /// The machine takes in what has happened: its start, or the end of so many calls.
    Thinking(usize),
    /// The commit of the result of so many calls is on its way back.
    Committing(usize),
}

/// A clock that jumps past the lease when the process is stopped; it stands still else.
#[derive(Default)]
struct Sleep(Mutex<Duration>);

impl Sleep {
    fn long(&self) {
        *self.0.lock().unwrap() = Duration::from_secs(1_000);
    }
}

impl Clock for Sleep {
    fn now(&self) -> Timestamp {
        Timestamp(1).saturating_add(*self.0.lock().unwrap())
    }

    fn boot_now(&self) -> BootInstant {
        BootInstant(*self.0.lock().unwrap())
    }
}

/// Notes for each effect that is begun whether its lease was live.
#[derive(Default)]
struct Begun(Mutex<Vec<bool>>);

impl Effects for Begun {
    fn run(&self, _: WorkflowEffect, context: EffectContext) -> BoxFuture<'static, EffectReport> {
        self.0.lock().unwrap().push(context.lease.is_live());
        Box::pin(async { EffectReport::of(EffectOutcome::Ok(serde_json::Value::Null)) })
    }

    fn end_job(&self, _: JobId) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

struct Calls {
    stopped: StoppedWhile,
    clock: Arc<Sleep>,
}

struct CallsMachine {
    stopped: StoppedWhile,
    clock: Arc<Sleep>,
    heard: usize,
}

impl Interpreter for Calls {
    fn begin(&self, _: JobId, _: &[u8], _: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject> {
        Ok(Box::new(CallsMachine { stopped: self.stopped, clock: Arc::clone(&self.clock), heard: 0 }))
    }
}

impl JobMachine for CallsMachine {
    fn apply(&mut self, _: &Event) -> Vec<Command> {
        if self.stopped == StoppedWhile::Thinking(self.heard) {
            self.clock.long();
        }
        self.heard += 1;
        match self.heard {
            more if more <= CALLS => vec![start(&format!("/do/{more}"), OnLost::Retry)],
            _ => vec![Command::Complete { output: serde_json::Value::Null }],
        }
    }

    fn is_timed_out(&self) -> bool {
        false
    }

    fn workflow(&self) -> String {
        "test/calls:1.0.0".to_owned()
    }
}

/// Whether each effect that began had a live lease; the robot's abort comes once nothing else happens.
async fn begun(stopped: StoppedWhile) -> Vec<bool> {
    let clock = Arc::new(Sleep::default());
    let effects = Arc::new(Begun::default());
    let around = Surroundings {
        node: NodeId::generate(),
        node_name: Arc::from("one"),
        clock: Arc::<Sleep>::clone(&clock),
        effects: Arc::<Begun>::clone(&effects),
        interpreter: Arc::new(Calls { stopped, clock: Arc::clone(&clock) }),
        // Work runs on its caller's thread: once the execution waits, nothing is under way.
        thinker: Thinker::start(0, Duration::MAX).unwrap(),
        own_journal: Arc::new(fleet_store::Store::in_memory().unwrap()),
    };
    let (sender, control) = mpsc::channel(16);
    let committed = Mutex::new(0);
    let send = |records: Box<Records>| {
        let mut committed = committed.lock().unwrap();
        *committed += records.records.len();
        // The first record says that the job began; each after it is the end of a call.
        if stopped == StoppedWhile::Committing(committed.saturating_sub(1)) {
            clock.long();
        }
        let journal_len = u32::try_from(*committed).unwrap();
        sender.try_send(Control::Committed { journal_len, is_over: records.next != Next::Continue }).unwrap();
    };
    let (_keeper, end) = watch::channel(LEASE_END);
    let job = Assigned {
        pair: Pair { job: JobId::generate(), fence: Fence::mint(1, 5, 0) },
        definition: Payload::from("{}"),
        input: Payload::from("{}"),
        journal: Vec::new(),
        finish_within: None,
    };
    let lease = Lease::new(end, Arc::clone(&around.clock));
    let mut running = std::pin::pin!(run(job, &around, lease, control, &send));
    // Everything it waits for is there at once, but the abort: when it waits, it is held back.
    for _ in 0..100 {
        if futures_util::poll!(running.as_mut()).is_ready() {
            break;
        }
        tokio::task::yield_now().await;
    }
    effects.0.lock().unwrap().clone()
}

#[tokio::test]
async fn an_execution_that_wakes_after_its_lease_begins_nothing() {
    assert_eq!(begun(StoppedWhile::Never).await, [true; CALLS], "nothing holds back what has a lease");
    for calls in 0..CALLS {
        assert_eq!(begun(StoppedWhile::Thinking(calls)).await, vec![true; calls], "stopped while it thinks");
    }
    for calls in 1..CALLS {
        assert_eq!(
            begun(StoppedWhile::Committing(calls)).await,
            vec![true; calls],
            "stopped before the commit is known"
        );
    }
}
