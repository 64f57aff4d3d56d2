//! The jobs a robot has: those that run, and those that wait for the rest of their assignment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::ActorRef;
use tokio::sync::{mpsc, watch};
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
    /// The lease of a job that may be finished cut off; others have that of their session.
    lease: Option<JobLease>,
    /// Whether it goes on cut off.
    is_cut_off: bool,
    /// Whether its execution knows that.
    is_told: bool,
    /// The highest stop that its execution was told.
    stop_told: Option<StopCause>,
    /// Journal length and whether the job is over, as committed, that its execution was too busy to hear.
    commit_untold: Option<(u32, bool)>,
    /// Whether it ever went on cut off, so that records of it may be written down here.
    was_cut_off: bool,
}

/// The keeper of the lease of one job. Dropped, it ends the lease: nobody would renew or end it any more.
#[derive(Debug)]
pub(super) struct JobLease(watch::Sender<BootInstant>);

impl JobLease {
    /// A lease that ends at `end`, and what watches it.
    pub(super) fn until(end: BootInstant) -> (Self, watch::Receiver<BootInstant>) {
        let (sender, receiver) = watch::channel(end);
        (Self(sender), receiver)
    }

    /// Moves the end to `end` if that is later; at zero the lease is over at once.
    fn renew(&self, end: BootInstant) {
        self.0.send_if_modified(|current| {
            let is_other = end == BootInstant::default() && *current != end || end > *current;
            if is_other {
                *current = end;
            }
            is_other
        });
    }
}

impl Drop for JobLease {
    fn drop(&mut self) {
        self.0.send_replace(BootInstant::default());
    }
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
    finish_within: Option<Duration>,
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
    pub(super) fn take_in(
        &mut self,
        assignment: Assignment,
        finish_within: Option<Duration>,
        definition: Option<Payload>,
        now: BootInstant,
    ) {
        let Assignment { pair, definition: digest, input, journal, journal_len, .. } = assignment;
        if self.running.contains_key(&pair.job) {
            return;
        }
        let incomplete =
            Incomplete { pair, digest, definition, input, journal, journal_len, finish_within, asked_at: now };
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
        let Incomplete { pair, definition, input, journal, finish_within, .. } = incomplete;
        Some(Assigned { pair, definition: definition?, input, journal, finish_within })
    }

    /// Jobs whose assignment has been incomplete for so long that it must be asked for again.
    pub(super) fn overdue(&mut self, now: BootInstant, after: Duration) -> Vec<Pair> {
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
        keeper: Option<JobLease>,
    ) {
        let (sender, control) = mpsc::channel(CONTROL_DEPTH);
        let pair = job.pair;
        let running = Running {
            pair,
            control: Some(sender),
            unacknowledged: Unacknowledged::default(),
            lease: keeper,
            is_cut_off: false,
            is_told: true,
            stop_told: None,
            commit_untold: None,
            was_cut_off: false,
        };
        self.running.insert(pair.job, running);
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

    /// `pair` goes on cut off from now on, or does so no more. `false` if it does not run.
    pub(super) fn set_cut_off(&mut self, pair: Pair, is_cut_off: bool) -> bool {
        let Some(running) = self.running.get_mut(&pair.job).filter(|running| running.pair == pair) else {
            return false;
        };
        running.is_told = running.is_cut_off == is_cut_off && running.is_told;
        running.is_cut_off = is_cut_off;
        running.was_cut_off |= is_cut_off;
        tell_position(running);
        true
    }

    /// Tells executions again that were too busy to hear what is committed, or whether they are cut off.
    pub(super) fn tell_positions(&mut self) {
        for running in self.running.values_mut() {
            tell_commit(running);
            tell_position(running);
        }
    }

    /// Moves the ends of the leases of jobs that may be finished cut off.
    pub(super) fn renew_leases(&self, acts_until: impl Fn(Pair) -> BootInstant) {
        for running in self.running.values() {
            if let Some(lease) = &running.lease {
                lease.renew(acts_until(running.pair));
            }
        }
    }

    /// What was sent for `pair` and is not known to be committed.
    pub(super) fn unacknowledged_of(&self, pair: Pair) -> Option<Records> {
        let running = self.running.get(&pair.job).filter(|running| running.pair == pair)?;
        running.unacknowledged.batch().cloned()
    }

    /// What was sent and is not known to be committed.
    pub(super) fn unacknowledged(&self) -> Vec<Records> {
        self.running.values().filter_map(|running| running.unacknowledged.batch().cloned()).collect()
    }

    /// Records of `pair` are committed.
    pub(super) fn committed(&mut self, pair: Pair, journal_len: u32, is_over: bool) {
        if let Some(running) = self.running.get_mut(&pair.job).filter(|running| running.pair == pair) {
            running.unacknowledged.acknowledged(journal_len, is_over);
            let (len, over) = running.commit_untold.unwrap_or_default();
            running.commit_untold = Some((len.max(journal_len), over || is_over));
            tell_commit(running);
        }
    }

    /// Tells the execution of `pair` to stop. `false` if it does not run.
    pub(super) fn stop(&mut self, pair: Pair, cause: StopCause) -> bool {
        let Some(running) = self.running.get_mut(&pair.job).filter(|running| running.pair == pair) else {
            return false;
        };
        tell_stop(running, cause);
        true
    }

    /// Tells every execution to stop.
    pub(super) fn stop_all(&mut self, cause: StopCause) {
        for running in self.running.values_mut() {
            tell_stop(running, cause);
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

    /// The execution of `pair` has reported its end. Whether records of it may be written down here.
    pub(super) fn ended(&mut self, pair: Pair) -> bool {
        let is_there = self.running.get(&pair.job).is_some_and(|running| running.pair == pair);
        let ended = is_there.then(|| self.running.remove(&pair.job)).flatten();
        ended.is_some_and(|running| running.was_cut_off)
    }
}

fn tell_position(running: &mut Running) {
    if !running.is_told
        && let Some(sender) = &running.control
    {
        let control = if running.is_cut_off { Control::CutOff } else { Control::Rejoined };
        running.is_told = sender.try_send(control).is_ok();
    }
}

/// Nothing else tells of this commit again: what does not fit is kept for the next tick.
fn tell_commit(running: &mut Running) {
    if let Some((journal_len, is_over)) = running.commit_untold
        && tell_execution(running, Control::Committed { journal_len, is_over })
    {
        running.commit_untold = None;
    }
}

/// Stops are resent until the job has left, so one that does not fit comes again; one that was told takes no more room.
fn tell_stop(running: &mut Running, cause: StopCause) {
    if running.stop_told < Some(cause) && tell_execution(running, Control::Stop(cause)) {
        running.stop_told = Some(cause);
    }
}

/// Whether the execution will hear of it.
fn tell_execution(running: &Running, control: Control) -> bool {
    let is_told = running.control.as_ref().is_some_and(|sender| sender.try_send(control).is_ok());
    if !is_told {
        tracing::debug!(job = %running.pair.job, "an execution is busy or over");
    }
    is_told
}

fn tell(robot: &ActorRef<RobotMessage>, message: RobotMessage) {
    if robot.cast(message).is_err() {
        tracing::debug!("the robot is gone");
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::Fence;

    use super::*;

    #[test]
    fn a_busy_execution_hears_each_stop_once_and_of_its_commit_once_it_listens() {
        let pair = Pair { job: JobId::from_bytes([1; 16]), fence: Fence::mint(1, 1, 1) };
        let (sender, mut control) = mpsc::channel(CONTROL_DEPTH);
        let running = Running {
            pair,
            control: Some(sender.clone()),
            unacknowledged: Unacknowledged::default(),
            lease: None,
            is_cut_off: false,
            is_told: true,
            stop_told: None,
            commit_untold: None,
            was_cut_off: false,
        };
        let mut jobs = Jobs { running: BTreeMap::from([(pair.job, running)]), ..Jobs::default() };
        for cause in [StopCause::Pause, StopCause::Cancel, StopCause::Pause, StopCause::Cancel] {
            assert!(jobs.stop(pair, cause));
        }
        jobs.stop_all(StopCause::Cancel);
        assert_eq!(control.len(), 2, "a repeat takes no room");
        while sender.try_send(Control::Rejoined).is_ok() {}
        jobs.committed(pair, 3, true);
        jobs.tell_positions();
        let mut heard = Vec::new();
        while let Ok(told) = control.try_recv() {
            heard.push(told);
        }
        assert_eq!(heard[..2], [Control::Stop(StopCause::Pause), Control::Stop(StopCause::Cancel)]);
        assert!(!heard.iter().any(|told| matches!(told, Control::Committed { .. })));
        jobs.tell_positions();
        assert_eq!(control.try_recv(), Ok(Control::Committed { journal_len: 3, is_over: true }));
        jobs.tell_positions();
        assert!(control.try_recv().is_err(), "it is told once");
    }
}
