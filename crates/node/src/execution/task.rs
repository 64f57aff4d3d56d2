//! The task of one running job: carries out what [`Course`] decides.
//!
//! It ends only when nothing of the job runs here any more, and says how it ended. Whoever starts it does so in a span
//! `job`; each run of an effect is in a span `task` of its own inside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use fleet_core::{Clock, NodeId, Timestamp};
use fleet_replication::command::{Next, Records};
use fleet_store::record::{Content, Payload, StopCause};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::event::{ErrorObject, Event, Outcome as EffectOutcome};

use super::course::{Act, Course, Start};
use super::mind::{self, Ended};
use super::thinker::{Thinker, Thought};
use crate::Error;
use crate::ports::{EffectContext, EffectReport, Effects, Interpreter, JobMachine, Lease, OwnJournal};
use crate::session::{EndKind, Pair};

/// What every execution of a node shares.
pub(crate) struct Surroundings {
    /// The node.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) node_name: Arc<str>,
    /// The clocks.
    pub(crate) clock: Arc<dyn Clock>,
    /// Runs effects.
    pub(crate) effects: Arc<dyn Effects>,
    /// Runs definitions.
    pub(crate) interpreter: Arc<dyn Interpreter>,
    /// Threads for it.
    pub(crate) thinker: Thinker,
    /// Where records are written down of jobs that may be finished cut off.
    pub(crate) own_journal: Arc<dyn OwnJournal>,
}

/// A job to run.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The job and fence.
    pub pair: Pair,
    /// Its definition, JSON.
    pub definition: Payload,
    /// Its input, JSON.
    pub input: Payload,
    /// Its journal so far: events as JSON.
    pub journal: Vec<Payload>,
    /// For how long it may be finished cut off, if it may.
    pub finish_within: Option<Duration>,
}

/// What an execution is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Records are committed.
    Committed {
        /// Length of the journal now.
        journal_len: u32,
        /// Whether the job has left this robot with them.
        is_over: bool,
    },
    /// Bring it to a stop.
    Stop(StopCause),
    /// The robot is cut off, and the job goes on all the same.
    CutOff,
    /// The job is bound to a live session again.
    Rejoined,
    /// The right to act is gone: break everything off.
    Abort,
}

/// Why the task stopped thinking.
enum Halt {
    Over(EndKind),
    /// The interpreter panicked, or a record could not be written.
    Broken(String),
}

struct Effect {
    path: EffectPath,
    started: Timestamp,
    report: EffectReport,
}

/// One execution under way.
struct Execution<'a> {
    around: &'a Surroundings,
    pair: Pair,
    finish_within: Duration,
    lease: Lease,
    send: &'a (dyn Fn(Box<Records>) + Send + Sync),
    /// The machine; away while it runs.
    machine: Option<Box<dyn JobMachine>>,
    course: Course,
    effects: FuturesUnordered<BoxFuture<'static, Effect>>,
    cancels: BTreeMap<EffectPath, watch::Sender<bool>>,
    /// Records being written down here; one write at a time.
    securing: Option<BoxFuture<'static, Result<(), fleet_core::Error>>>,
}

/// Runs `job` until it has left this robot; `send` takes records up to the leader. Dropping the sender of `control` aborts.
pub(crate) async fn run(
    job: Assigned,
    around: &Surroundings,
    lease: Lease,
    mut control: mpsc::Receiver<Control>,
    send: &(dyn Fn(Box<Records>) + Send + Sync),
) -> EndKind {
    let committed = u32::try_from(job.journal.len()).unwrap_or(u32::MAX);
    let mut execution = Execution {
        around,
        pair: job.pair,
        finish_within: job.finish_within.unwrap_or_default(),
        lease,
        send,
        machine: None,
        course: Course::new(around.node, job.pair.job, job.pair.fence, committed),
        effects: FuturesUnordered::new(),
        cancels: BTreeMap::new(),
        securing: None,
    };
    let halt = match execution.begin(job).await {
        Ok(()) => execution.go_on(&mut control).await,
        Err(halt) => halt,
    };
    execution.break_off_all().await;
    if matches!(halt, Halt::Over(EndKind::Finished)) && execution.course.has_secured() {
        forget(around, execution.pair).await;
    }
    match halt {
        Halt::Over(how) => how,
        Halt::Broken(reason) => {
            tracing::error!(job = %execution.pair.job, reason, "an execution broke");
            execution.fail(reason, &mut control).await
        }
    }
}

impl Execution<'_> {
    /// Builds the machine and replays the journal.
    async fn begin(&mut self, job: Assigned) -> Result<(), Halt> {
        let interpreter = Arc::clone(&self.around.interpreter);
        let (node, now) = (self.around.node, self.around.clock.now());
        let begun = self.around.thinker.run(move |pulse| mind::begin(&*interpreter, &job, node, now, pulse)).await;
        if let Some((machine, course)) = self.thought(begun)? {
            tracing::Span::current().record("workflow", machine.workflow());
            (self.machine, self.course) = (Some(machine), course);
        }
        Ok(())
    }

    /// What came of thinking; `None` if it overran: the job fails by that, and nobody thinks for it any more.
    fn thought<T>(&mut self, thought: Thought<Result<T, Error>>) -> Result<Option<T>, Halt> {
        match thought {
            Thought::Done(result) => result.map(Some).map_err(broken),
            Thought::Panicked => Err(Halt::Broken("the interpreter panicked".to_owned())),
            Thought::Overran => {
                self.machine = Some(Box::new(Ended));
                self.course.overran(self.around.clock.now()).map_err(broken)?;
                self.cancel_all();
                Ok(None)
            }
        }
    }

    async fn go_on(&mut self, control: &mut mpsc::Receiver<Control>) -> Halt {
        loop {
            if let Err(halt) = self.carry_out().await {
                return halt;
            }
            let wait = self.course.next_look().map(|due| due.saturating_since(self.around.clock.now()));
            tokio::select! {
                told = control.recv() => {
                    if let Err(halt) = self.told(told.unwrap_or(Control::Abort)) {
                        return halt;
                    }
                    self.forget_delivered().await;
                }
                Some(ended) = self.effects.next(), if !self.effects.is_empty() => {
                    if let Err(halt) = self.effect_ended(ended).await {
                        return halt;
                    }
                }
                written = written(&mut self.securing), if self.securing.is_some() => {
                    self.securing = None;
                    if let Err(error) = written {
                        // Nothing may begin any more: what it would follow from may be lost.
                        tracing::error!(error = %fleet_core::error::chain(&error), "a job cut off cannot go on");
                        return Halt::Over(EndKind::HandedBack);
                    }
                    self.course.secured();
                }
                () = sleep(wait), if wait.is_some() => {}
            }
        }
    }

    /// What was written down here is forgotten once the group has it.
    async fn forget_delivered(&mut self) {
        if self.course.has_delivered() {
            forget(self.around, self.pair).await;
            self.course.forgotten();
        }
    }

    fn told(&mut self, control: Control) -> Result<(), Halt> {
        match control {
            Control::Abort => Err(Halt::Over(EndKind::Stopped)),
            Control::Committed { is_over: true, .. } => Err(Halt::Over(EndKind::Finished)),
            Control::Committed { journal_len, .. } => {
                self.course.committed(journal_len);
                Ok(())
            }
            Control::CutOff => {
                self.course.cut_off();
                Ok(())
            }
            Control::Rejoined => {
                self.course.rejoined();
                Ok(())
            }
            Control::Stop(cause) => {
                if self.course.stop(cause) {
                    self.cancel_all();
                }
                Ok(())
            }
        }
    }

    /// Fires what is due and does what may be done, until there is nothing more to do at once.
    async fn carry_out(&mut self) -> Result<(), Halt> {
        loop {
            let now = self.around.clock.now();
            let due = self.course.due_timers(now);
            if !due.is_empty() {
                let events = due.into_iter().map(|path| Event::TimerFired { path, at_ms: now.0 }).collect();
                self.think(events).await?;
                continue;
            }
            for act in self.course.next(now).map_err(broken)? {
                match act {
                    Act::Start(start) => self.start(*start, now),
                    Act::BreakOff(path) => {
                        if let Some(cancel) = self.cancels.get(&path) {
                            cancel.send_replace(true);
                        }
                    }
                    Act::Send(records) => {
                        // Once it is handed back it may run elsewhere: nothing of it may run on here.
                        if records.next == Next::HandBack {
                            self.around.effects.end_job(records.job).await;
                        }
                        (self.send)(records);
                    }
                    Act::Secure { from, records } => {
                        self.securing =
                            Some(self.around.own_journal.write(self.pair, self.finish_within, from, records));
                    }
                }
            }
            return Ok(());
        }
    }

    /// Starts an effect, if the lease allows it by the clock read now. If not, the session is over and an abort comes.
    fn start(&mut self, start: Start, now: Timestamp) {
        if !self.lease.is_live() {
            return;
        }
        let (cancel, cancelled) = watch::channel(false);
        let path = start.path.clone();
        self.cancels.insert(path.clone(), cancel);
        let span = tracing::info_span!("task", task = start.task, path = start.path.0);
        let context = EffectContext {
            job: self.pair.job,
            node: self.around.node,
            node_name: Arc::clone(&self.around.node_name),
            path: start.path,
            deadline: start.deadline,
            cancelled,
            lease: self.lease.clone(),
        };
        let run = self.around.effects.run(start.effect, context);
        let run = async move {
            tracing::debug!("an effect begins");
            let report = run.await;
            let outcome = match &report.outcome {
                Some(EffectOutcome::Ok(_)) => "result",
                Some(EffectOutcome::Err(_)) => "error",
                None => "broken off",
            };
            tracing::debug!(outcome, "an effect is over");
            Effect { path, started: now, report }
        };
        self.effects.push(Box::pin(run.instrument(span)));
    }

    async fn effect_ended(&mut self, ended: Effect) -> Result<(), Halt> {
        self.cancels.remove(&ended.path);
        if self.course.has_left() || !self.course.wants(&ended.path) {
            return Ok(());
        }
        let EffectReport { outcome, stdout_tail, stderr_tail } = ended.report;
        let Some(outcome) = outcome else {
            self.course.broke_off(&ended.path);
            return Ok(());
        };
        let event = Event::EffectEnded {
            path: ended.path,
            started_ms: ended.started.0,
            at_ms: self.around.clock.now().0,
            outcome,
            stdout_tail,
            stderr_tail,
        };
        self.think(vec![event]).await
    }

    /// Lets the machine hear events that happened here.
    async fn think(&mut self, events: Vec<Event>) -> Result<(), Halt> {
        let Some(mut machine) = self.machine.take() else { return Ok(()) };
        let node = self.around.node;
        let thought = self.around.thinker.run(move |pulse| {
            let heard = mind::hear(&mut *machine, node, events, pulse)?;
            Ok::<_, Error>((machine, heard))
        });
        let thought = thought.await;
        if let Some((machine, heard)) = self.thought(thought)? {
            self.machine = Some(machine);
            heard.into_iter().try_for_each(|heard| self.course.heard(heard)).map_err(broken)?;
        }
        Ok(())
    }

    /// Fails the job: it would break on every robot.
    async fn fail(&mut self, reason: String, control: &mut mpsc::Receiver<Control>) -> EndKind {
        let error = ErrorObject::standard("runtime", 500, "the job cannot be run", reason);
        let Ok(error) = serde_json::to_vec(&error) else { return EndKind::HandedBack };
        let next = Next::Fail { error: Content::inline(error) };
        let Pair { job, fence } = self.pair;
        let from = self.course.committed_len();
        (self.send)(Box::new(Records { job, fence, from, records: Vec::new(), next }));
        loop {
            match control.recv().await {
                None | Some(Control::Abort) => return EndKind::Stopped,
                Some(Control::Committed { is_over: true, .. }) => return EndKind::Finished,
                Some(_) => {}
            }
        }
    }

    fn cancel_all(&self) {
        for cancel in self.cancels.values() {
            cancel.send_replace(true);
        }
    }

    async fn break_off_all(&mut self) {
        self.cancel_all();
        while self.effects.next().await.is_some() {}
    }
}

fn broken(error: Error) -> Halt {
    Halt::Broken(error.to_string())
}

async fn forget(around: &Surroundings, pair: Pair) {
    if let Err(error) = around.own_journal.forget(pair).await {
        // It is delivered again after the next start, and found to be there.
        tracing::warn!(job = %pair.job, error = %fleet_core::error::chain(&error), "a delivered journal stays here");
    }
}

async fn written(
    securing: &mut Option<BoxFuture<'static, Result<(), fleet_core::Error>>>,
) -> Result<(), fleet_core::Error> {
    match securing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

async fn sleep(wait: Option<Duration>) {
    tokio::time::sleep(wait.unwrap_or_default()).await;
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "frozen_tests.rs"]
mod frozen_tests;
