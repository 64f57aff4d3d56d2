//! The jobs a robot has: those that run, and those that wait for the rest of their assignment.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use ractor::ActorRef;
use tokio::sync::mpsc;
use tracing::Instrument;

use fleet_core::{BootInstant, Digest, JobId};
use fleet_replication::command::Records;
use fleet_store::record::{Payload, StopCause};

use super::actor::RobotMessage;
use crate::execution::Unacknowledged;
use crate::execution::task::{self, Assigned, Control, Surroundings};
use crate::link::Assignment;
use crate::ports::Lease;
use crate::session::{EndKind, Pair};

/// What an execution may be told before it listens.
const CONTROL_DEPTH: usize = 16;

/// A job that runs.
#[derive(Debug)]
struct Running {
    pair: Pair,
    /// Dropped to abort it.
    control: Option<mpsc::Sender<Control>>,
    /// Records sent and not known to be committed.
    unacknowledged: Unacknowledged,
}

/// A job whose assignment is not complete yet.
#[derive(Debug)]
struct Incomplete {
    pair: Pair,
    digest: Digest,
    definition: Option<Payload>,
    input: Payload,
    journal: Vec<Payload>,
    journal_len: u32,
    asked_at: BootInstant,
}

/// The jobs of one robot.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: BTreeMap<JobId, Running>,
    incomplete: BTreeMap<JobId, Incomplete>,
}

impl Jobs {
    /// How many jobs there are.
    pub(super) fn len(&self) -> usize {
        self.running.len() + self.incomplete.len()
    }

    /// Whether `pair` runs.
    pub(super) fn has(&self, pair: Pair) -> bool {
        self.running.get(&pair.job).is_some_and(|running| running.pair == pair)
    }

    /// Takes an assignment in, or the rest of one. The job waits until it is complete.
    pub(super) fn take_in(&mut self, assignment: Assignment, definition: Option<Payload>, now: BootInstant) {
        let Assignment { pair, definition: digest, input, journal, journal_len, .. } = assignment;
        if self.running.contains_key(&pair.job) {
            return;
        }
        let incomplete = Incomplete { pair, digest, definition, input, journal, journal_len, asked_at: now };
        self.incomplete.insert(pair.job, incomplete);
    }

    /// Takes in more of a journal. What does not follow the records that are there is dropped.
    pub(super) fn take_in_journal(&mut self, pair: Pair, first: u32, records: Vec<Payload>) {
        if let Some(incomplete) = self.incomplete.get_mut(&pair.job)
            && incomplete.pair == pair
            && incomplete.journal.len() == first as usize
        {
            incomplete.journal.extend(records);
        }
    }

    /// The definition of `digest` is there now.
    pub(super) fn take_in_definition(&mut self, digest: Digest, text: &Payload) {
        for incomplete in self.incomplete.values_mut().filter(|incomplete| incomplete.digest == digest) {
            incomplete.definition = Some(text.clone());
        }
    }

    /// Takes the job out if its assignment is complete.
    pub(super) fn complete(&mut self, job: JobId) -> Option<Assigned> {
        let incomplete = self.incomplete.get(&job)?;
        let is_complete =
            incomplete.definition.is_some() && incomplete.journal.len() >= incomplete.journal_len as usize;
        let incomplete = is_complete.then(|| self.incomplete.remove(&job))??;
        let Incomplete { pair, definition, input, journal, .. } = incomplete;
        Some(Assigned { pair, definition: definition?, input, journal })
    }

    /// Jobs whose assignment has been incomplete for so long that it must be asked for again.
    pub(super) fn overdue(&mut self, now: BootInstant, after: std::time::Duration) -> Vec<Pair> {
        let mut overdue = Vec::new();
        for incomplete in self.incomplete.values_mut() {
            if now.saturating_since(incomplete.asked_at) >= after {
                incomplete.asked_at = now;
                overdue.push(incomplete.pair);
            }
        }
        overdue
    }

    /// Starts the execution of `job`.
    pub(super) fn start(
        &mut self,
        robot: &ActorRef<RobotMessage>,
        job: Assigned,
        around: &Arc<Surroundings>,
        lease: Lease,
    ) {
        let (sender, control) = mpsc::channel(CONTROL_DEPTH);
        let pair = job.pair;
        self.running
            .insert(pair.job, Running { pair, control: Some(sender), unacknowledged: Unacknowledged::default() });
        let (around, robot) = (Arc::clone(around), robot.clone());
        // The fence tells this assignment of the job from the ones before it; the workflow is told once it is read.
        let workflow = tracing::field::Empty;
        let span = tracing::info_span!("job", job = %pair.job, fence = %pair.fence, workflow);
        let run = async move {
            tracing::debug!("a job begins");
            let send = |records| tell(&robot, RobotMessage::Records(records));
            let execution = task::run(job, &around, lease, control, &send);
            let how = std::panic::AssertUnwindSafe(execution).catch_unwind().await.unwrap_or(EndKind::HandedBack);
            tracing::debug!(?how, "a job has left its robot");
            if how != EndKind::Finished {
                around.effects.end_job(pair.job).await;
            }
            tell(&robot, RobotMessage::Ended { pair, how });
        };
        tokio::spawn(run.instrument(span));
    }

    /// Remembers records until they are committed. `false` if the job does not run any more.
    pub(super) fn sending(&mut self, records: &Records) -> bool {
        let Some(running) = self.running.get_mut(&records.job) else { return false };
        if running.pair.fence != records.fence {
            return false;
        }
        running.unacknowledged.sending(records);
        true
    }

    /// What was sent and is not known to be committed.
    pub(super) fn unacknowledged(&self) -> Vec<Records> {
        self.running.values().filter_map(|running| running.unacknowledged.batch().cloned()).collect()
    }

    /// Records of `pair` are committed.
    pub(super) fn committed(&mut self, pair: Pair, journal_len: u32, is_over: bool) {
        if let Some(running) = self.running.get_mut(&pair.job).filter(|running| running.pair == pair) {
            running.unacknowledged.acknowledged(journal_len, is_over);
            tell_execution(running, Control::Committed { journal_len, is_over });
        }
    }

    /// Tells the execution of `pair` to stop. `false` if it does not run.
    pub(super) fn stop(&mut self, pair: Pair, cause: StopCause) -> bool {
        let Some(running) = self.running.get(&pair.job).filter(|running| running.pair == pair) else { return false };
        tell_execution(running, Control::Stop(cause));
        true
    }

    /// Tells every execution to stop.
    pub(super) fn stop_all(&self, cause: StopCause) {
        for running in self.running.values() {
            tell_execution(running, Control::Stop(cause));
        }
    }

    /// Aborts `pair`. `true` if nothing of it runs, so that no report will come.
    pub(super) fn abort(&mut self, pair: Pair) -> bool {
        match self.running.get_mut(&pair.job).filter(|running| running.pair == pair) {
            Some(running) => {
                running.control = None;
                false
            }
            None => {
                self.forget_incomplete(pair);
                true
            }
        }
    }

    /// Drops an assignment that is not complete. `true` if there was one.
    pub(super) fn forget_incomplete(&mut self, pair: Pair) -> bool {
        let is_there = self.incomplete.get(&pair.job).is_some_and(|incomplete| incomplete.pair == pair);
        is_there && self.incomplete.remove(&pair.job).is_some()
    }

    /// Drops every assignment that is not complete.
    pub(super) fn forget_all_incomplete(&mut self) -> Vec<Pair> {
        std::mem::take(&mut self.incomplete).into_values().map(|incomplete| incomplete.pair).collect()
    }

    /// The execution of `pair` has reported its end.
    pub(super) fn ended(&mut self, pair: Pair) {
        if self.running.get(&pair.job).is_some_and(|running| running.pair == pair) {
            self.running.remove(&pair.job);
        }
    }
}

/// An execution that does not listen gets the same again: stops are resent, and commits come one at a time.
fn tell_execution(running: &Running, control: Control) {
    if let Some(sender) = &running.control
        && sender.try_send(control).is_err()
    {
        tracing::debug!(job = %running.pair.job, "an execution is busy or over");
    }
}

fn tell(robot: &ActorRef<RobotMessage>, message: RobotMessage) {
    if robot.cast(message).is_err() {
        tracing::debug!("the robot is gone");
    }
}
