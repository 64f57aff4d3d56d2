//! What an execution does next, decided without doing it: which effects may start, what is sent to be committed, when the
//! job parks or lets go.
//!
//! Invariants: an effect starts only when every record before it is committed, or, while its robot is cut off with a job
//! that may be finished so, on this robot's disk; at most one batch of records is under way;
//! after the batch by which the job leaves this robot nothing starts any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use fleet_core::limits::{
    ENTRY_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX, INLINE_BYTES_MAX, JOURNAL_BYTES_MAX, OUTPUT_BYTES_MAX,
};
use fleet_core::{Fence, JobId, NodeId, Timestamp};
use fleet_replication::command::{Next, Records};
use fleet_store::record::{Content, JournalMark, JournalRecord, Payload, StopCause};
use fleet_workflow::machine::command::{Command, EffectPath, OnLost};
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{ErrorObject, Event};

use super::mind::Heard;
use crate::Error;

/// A wait shorter than this keeps its slot; parking costs three commits.
const PARK_MIN: Duration = Duration::from_millis(500);

/// How long the first word of a job waits for what it can ride with: an effect that ends sooner saves a commit. It says no
/// more than that the job runs here, and nothing waits for it.
const FIRST_WORD_DELAY: Duration = Duration::from_millis(20);

/// Most bytes of one batch's records that stay in the log entry: half an entry, so that an output and the frame fit too.
const BATCH_INLINE_BYTES_MAX: u64 = ENTRY_BYTES_MAX as u64 / 2;
/// Most bytes of one batch's records on the wire: half a message.
const BATCH_WIRE_BYTES_MAX: u64 = GRPC_MESSAGE_BYTES_MAX as u64 / 2;
// The interpreter depends on no crate of ours, so it has this bound of its own.
const _: () = assert!(fleet_workflow::machine::OUTPUT_BYTES_MAX == OUTPUT_BYTES_MAX);

/// What a record takes in an entry once its content is a blob.
const BLOB_NAME_BYTES: u64 = 128;

/// An effect to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Where it stands.
    pub path: EffectPath,
    /// JSON pointer of its task.
    pub task: String,
    /// What to run.
    pub effect: Effect,
    /// Wall time by which it must have ended.
    pub deadline: Option<Timestamp>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Start this effect, if the lease allows it.
    Start(Box<Start>),
    /// Break off the effect at this path, and drop what it reports.
    BreakOff(EffectPath),
    /// Send these records up and wait for their commit.
    Send(Box<Records>),
    /// Write these records down here: the group cannot be asked, and the job goes on.
    Secure {
        /// Position of the first.
        from: u32,
        /// The records.
        records: Vec<JournalRecord>,
    },
}

#[derive(Clone, Debug)]
struct Waiting {
    start: Start,
    /// Length of the journal that must be committed first.
    after: u32,
    record: StartRecord,
}

/// Whether the start of an effect is journaled before it begins (`onLost: fail`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartRecord {
    None,
    Needed,
    Written,
}

/// How the machine ended.
#[derive(Clone, Debug)]
enum End {
    Complete(Payload),
    Fail(Payload),
}

/// The course of one execution.
#[derive(Debug)]
pub struct Course {
    node: NodeId,
    job: JobId,
    fence: Fence,
    /// Records committed.
    committed: u32,
    /// Records written, committed or not.
    written: u32,
    /// What the next start has to wait for.
    gate: u32,
    /// Records that follow those committed.
    uncommitted: VecDeque<JournalRecord>,
    /// Bytes of their events.
    uncommitted_bytes: u64,
    /// Length of the journal when the batch under way is committed.
    sent: Option<u32>,
    /// Whether the robot is cut off and the job goes on by records written down here.
    is_cut_off: bool,
    /// Length of the journal as far as it was written down here, if it ever was.
    secured: u32,
    /// The same once what is being written down is on the disk.
    securing: Option<u32>,
    waiting: VecDeque<Waiting>,
    wanted: BTreeSet<EffectPath>,
    timers: BTreeMap<EffectPath, Timestamp>,
    broken_off: Vec<EffectPath>,
    /// Effects whose start is journaled and whose end is not.
    started: BTreeSet<EffectPath>,
    end: Option<End>,
    is_timed_out: bool,
    stop: Option<StopCause>,
    has_left: bool,
    /// Whether the group is still to be told that the job runs here.
    is_unannounced: bool,
    /// Until when the first word waits; `None` if it does not.
    silent_until: Option<Timestamp>,
}

impl Course {
    /// The course of `job` under `fence` on `node`, whose journal has `journal_len` records.
    pub fn new(node: NodeId, job: JobId, fence: Fence, journal_len: u32) -> Self {
        Self {
            node,
            job,
            fence,
            committed: journal_len,
            written: journal_len,
            gate: 0,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            sent: None,
            is_cut_off: false,
            secured: 0,
            securing: None,
            waiting: VecDeque::new(),
            wanted: BTreeSet::new(),
            timers: BTreeMap::new(),
            broken_off: Vec::new(),
            started: BTreeSet::new(),
            end: None,
            is_timed_out: false,
            stop: None,
            has_left: false,
            is_unannounced: false,
            silent_until: None,
        }
    }

    /// Whether nothing was ever journaled: the job begins here.
    pub fn is_new(&self) -> bool {
        self.written == 0
    }

    /// The job goes on here after others had it: the group is told so, by a batch without records if there are none,
    /// because a holder's first word is what makes a job `running`.
    pub fn announce(&mut self) {
        self.is_unannounced = true;
    }

    /// An event of the journal is replayed. What the machine asked before it is settled by it.
    pub fn replayed(&mut self, event: &Event) {
        match event {
            Event::EffectEnded { path, .. } | Event::EffectLost { path, .. } => {
                self.started.remove(path);
                self.forget(path);
            }
            Event::EffectStarted { path, .. } => drop(self.started.insert(path.clone())),
            Event::TimerFired { path, .. } => drop(self.timers.remove(path)),
            Event::Started { .. } | Event::Overrun { .. } => {}
        }
    }

    /// An event happened here: its record goes to the journal. What the machine asks after it comes next.
    fn write(&mut self, event: &Event, record: JournalRecord) {
        self.append(record);
        if !matches!(event, Event::Started { .. }) {
            self.gate = self.written;
        }
        self.replayed(event);
    }

    fn append(&mut self, record: JournalRecord) {
        self.uncommitted_bytes += record.event.length();
        self.uncommitted.push_back(record);
        self.written += 1;
    }

    /// The machine has heard an event that happened here.
    pub fn heard(&mut self, heard: Heard) -> Result<(), Error> {
        let Heard { event, record, commands, is_timed_out } = heard;
        self.write(&event, record);
        self.asked(commands)?;
        self.is_timed_out = is_timed_out;
        Ok(())
    }

    /// The interpreter took too long. The job fails by a record that says so. What it was thinking about is not written:
    /// whoever replays the journal is not to get stuck in the same place.
    pub fn overran(&mut self, now: Timestamp) -> Result<(), Error> {
        self.waiting.clear();
        self.wanted.clear();
        self.timers.clear();
        let event = Event::Overrun { at_ms: now.0 };
        let record = self.record(&event)?;
        self.write(&event, record);
        self.fail(&ErrorObject::overrun())
    }

    /// Records committed, as far as this robot knows.
    pub fn committed_len(&self) -> u32 {
        self.committed
    }

    /// After the replay: effects that were begun and must not begin again, because nobody knows what came of them.
    pub fn lost_before(&self) -> Vec<EffectPath> {
        self.started.intersection(&self.wanted).cloned().collect()
    }

    /// Whether the workflow ended by its own timeout, as the machine says.
    pub fn timed_out(&mut self, is_timed_out: bool) {
        self.is_timed_out = is_timed_out;
    }

    /// The machine asked for these.
    pub fn asked(&mut self, commands: Vec<Command>) -> Result<(), Error> {
        for command in commands {
            match command {
                // It is asked for again when the journal is replayed.
                Command::Start { .. } if self.stop.is_some() => {}
                Command::Start { path, task, effect, on_lost, deadline_ms } => {
                    let start = Start { path: path.clone(), task, effect, deadline: deadline_ms.map(Timestamp) };
                    self.wanted.insert(path);
                    let record = if on_lost == OnLost::Fail { StartRecord::Needed } else { StartRecord::None };
                    self.waiting.push_back(Waiting { start, after: self.gate, record });
                }
                Command::Cancel { path } => {
                    let was_waiting = self.waiting.iter().any(|waiting| waiting.start.path == path);
                    self.forget(&path);
                    if !was_waiting {
                        self.broken_off.push(path);
                    }
                }
                Command::SetTimer { path, due_ms } => drop(self.timers.insert(path, Timestamp(due_ms))),
                Command::CancelTimer { path } => drop(self.timers.remove(&path)),
                Command::Complete { output } => {
                    self.end = Some(End::Complete(to_json("write the output", &output)?));
                }
                Command::Fail { error } => self.fail(&error)?,
            }
        }
        Ok(())
    }

    /// The job cannot be run: it fails with `error`.
    pub fn fail(&mut self, error: &ErrorObject) -> Result<(), Error> {
        self.end = Some(End::Fail(to_json("write an error", error)?));
        Ok(())
    }

    /// The leader wants the job stopped. Returns whether running effects are to be broken off. What waits does not begin,
    /// except, at a pause, where the journal says already that it does: handed back now, it would count as lost.
    pub fn stop(&mut self, cause: StopCause) -> bool {
        self.stop = self.stop.max(Some(cause));
        let breaks_off = self.stop != Some(StopCause::Pause);
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.record == StartRecord::Written && !breaks_off {
                self.waiting.push_back(waiting);
            } else {
                self.wanted.remove(&waiting.start.path);
            }
        }
        breaks_off
    }

    /// Whether the batch by which the job leaves this robot was sent.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// An effect was broken off: there is no result to journal. Unless the job is to stop, that was the end of the lease:
    /// then the effect stays wanted, so that nothing is said of the job before the abort comes. Without it the job would look
    /// like one that waits for an event, and a leader that had not closed the session yet would park it for good.
    pub fn broke_off(&mut self, path: &EffectPath) {
        if self.stop.is_some() {
            self.forget(path);
        }
    }

    /// Whether the effect at `path` is still wanted.
    pub fn wants(&self, path: &EffectPath) -> bool {
        self.wanted.contains(path)
    }

    /// The records sent are committed.
    pub fn committed(&mut self, journal_len: u32) {
        if self.sent.is_some_and(|sent| journal_len >= sent) {
            let known = journal_len.saturating_sub(self.committed) as usize;
            let known = self.uncommitted.drain(..known.min(self.uncommitted.len()));
            self.uncommitted_bytes -= known.map(|record| record.event.length()).sum::<u64>();
            self.committed = journal_len;
            self.sent = None;
        }
    }

    /// The robot is cut off, and the job may go on: from now on an effect starts once every record before it is written down
    /// here. It does not park, because nobody here would wake it.
    pub fn cut_off(&mut self) {
        self.is_cut_off = true;
    }

    /// The robot is cut off no more: effects wait for commits again.
    pub fn rejoined(&mut self) {
        self.is_cut_off = false;
    }

    /// The records given to be written down are on the disk.
    pub fn secured(&mut self) {
        self.secured = self.securing.take().unwrap_or(self.secured);
    }

    /// Whether the group has everything that was written down here.
    pub fn has_delivered(&self) -> bool {
        self.secured > 0 && self.committed >= self.secured && self.securing.is_none() && !self.is_cut_off
    }

    /// Whether anything may be written down here.
    pub fn has_secured(&self) -> bool {
        self.secured > 0 || self.securing.is_some()
    }

    /// What was written down here is forgotten.
    pub fn forgotten(&mut self) {
        self.secured = 0;
    }

    /// Length of the journal that no crash of this robot takes back.
    fn safe(&self) -> u32 {
        self.committed.max(self.secured)
    }

    /// What is to be written down here.
    fn secure(&mut self) -> Option<Act> {
        let from = self.safe();
        if !self.is_cut_off || self.securing.is_some() || from >= self.written {
            return None;
        }
        let known = (from - self.committed) as usize;
        self.securing = Some(self.written);
        Some(Act::Secure { from, records: self.uncommitted.iter().skip(known).cloned().collect() })
    }

    /// When to look again, if nothing happens before.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.next_timer().into_iter().chain(self.silent_until).min()
    }

    /// When the earliest timer is due that is waited for here.
    fn next_timer(&self) -> Option<Timestamp> {
        if self.end.is_some() || self.stop.is_some() || self.has_left {
            return None;
        }
        self.timers.values().min().copied()
    }

    /// The timers that are due at `now`, in the order of their paths.
    pub fn due_timers(&self, now: Timestamp) -> Vec<EffectPath> {
        if self.next_timer().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let due = self.timers.iter().filter(|(_, due)| **due <= now);
        due.map(|(path, _)| path.clone()).collect()
    }

    /// What to do now.
    pub fn next(&mut self, now: Timestamp) -> Result<Vec<Act>, Error> {
        let mut acts: Vec<Act> = self.broken_off.drain(..).map(Act::BreakOff).collect();
        if self.has_left {
            acts.extend(self.secure());
            return Ok(acts);
        }
        self.start_what_may(now, &mut acts)?;
        acts.extend(self.secure());
        if self.sent.is_none() && !self.waits_with_first_word(now) {
            let length = batch_length(&self.uncommitted);
            let records: Vec<JournalRecord> = self.uncommitted.iter().take(length).cloned().collect();
            let left = self.uncommitted.len() - length;
            // The end goes with the last records only.
            let next = if left == 0 { self.way_on(now) } else { Next::Continue };
            if next != Next::Continue || !records.is_empty() || self.is_unannounced {
                self.is_unannounced = false;
                self.has_left = next != Next::Continue;
                let from = self.committed;
                let left = u32::try_from(left).unwrap_or(u32::MAX);
                self.sent = Some(self.written.saturating_sub(left));
                acts.push(Act::Send(Box::new(Records { job: self.job, fence: self.fence, from, records, next })));
            }
        }
        Ok(acts)
    }

    /// Starts what waits for no commit. An effect with `onLost: fail` first has its start committed.
    fn start_what_may(&mut self, now: Timestamp, acts: &mut Vec<Act>) -> Result<(), Error> {
        let safe = self.safe();
        // What a robot may write down by itself is bounded as what the group takes: past it the job waits to be delivered.
        let is_full = self.is_cut_off && self.uncommitted_bytes > JOURNAL_BYTES_MAX;
        for mut waiting in std::mem::take(&mut self.waiting) {
            if waiting.after > safe || is_full {
                self.waiting.push_back(waiting);
            } else if waiting.record == StartRecord::Needed {
                let started = Event::EffectStarted { path: waiting.start.path.clone(), at_ms: now.0 };
                let record = self.record(&started)?;
                self.append(record);
                waiting.after = self.written;
                waiting.record = StartRecord::Written;
                self.waiting.push_back(waiting);
            } else {
                acts.push(Act::Start(Box::new(waiting.start)));
            }
        }
        Ok(())
    }

    /// Whether nothing is to be said yet but that the job runs here, and something may come that takes this along.
    fn waits_with_first_word(&mut self, now: Timestamp) -> bool {
        let has_more = self.gate > 0 || self.uncommitted.iter().any(|record| record.mark != JournalMark::Plain);
        let is_first_word = self.committed == 0 && !self.uncommitted.is_empty() || self.is_unannounced;
        if has_more || !is_first_word || self.stop.is_some() || self.way_on(now) != Next::Continue {
            self.silent_until = None;
            return false;
        }
        let until = *self.silent_until.get_or_insert(now.saturating_add(FIRST_WORD_DELAY));
        // A clock that was set back does not make it wait longer.
        if now < until && until <= now.saturating_add(FIRST_WORD_DELAY) {
            return true;
        }
        self.silent_until = None;
        false
    }

    fn way_on(&self, now: Timestamp) -> Next {
        let is_idle = self.wanted.is_empty();
        match &self.end {
            Some(End::Complete(output)) => Next::Complete { output: Content::Inline(output.clone()) },
            Some(End::Fail(error)) if self.is_timed_out => Next::TimeOut { error: Content::Inline(error.clone()) },
            Some(End::Fail(error)) => Next::Fail { error: Content::Inline(error.clone()) },
            None if !is_idle => Next::Continue,
            None if self.stop.is_some() => Next::HandBack,
            None if self.is_cut_off => Next::Continue,
            None => {
                let wake_at = self.timers.values().min().copied();
                match wake_at {
                    Some(due) if due < now.saturating_add(PARK_MIN) => Next::Continue,
                    _ => Next::Park { wake_at, inbox_read: 0 },
                }
            }
        }
    }

    fn record(&self, event: &Event) -> Result<JournalRecord, Error> {
        JournalRecord::of_event(Some(self.node), event).map_err(Error::store("write a record"))
    }

    fn forget(&mut self, path: &EffectPath) {
        self.wanted.remove(path);
        self.waiting.retain(|waiting| waiting.start.path != *path);
    }
}

/// How many of `records` go into one batch, at least one: what stays inline must fit into a log entry beside an output,
/// and all of it into a message.
pub(crate) fn batch_length<'a>(records: impl IntoIterator<Item = &'a JournalRecord>) -> usize {
    let (mut inline_bytes, mut wire_bytes) = (0_u64, 0_u64);
    let mut fits = |record: &JournalRecord| {
        let length = record.event.length();
        // The path of an effect that is deep inside is long, and stands beside the event.
        let beside = match &record.mark {
            JournalMark::Plain => 0,
            JournalMark::EffectStarted(path) | JournalMark::EffectEnded(path) => path.len() as u64,
        };
        wire_bytes += length + beside;
        inline_bytes += beside + if length > INLINE_BYTES_MAX as u64 { BLOB_NAME_BYTES } else { length };
        inline_bytes <= BATCH_INLINE_BYTES_MAX && wire_bytes <= BATCH_WIRE_BYTES_MAX
    };
    // Of records too large for any batch one goes alone.
    records.into_iter().enumerate().take_while(|(index, record)| fits(record) || *index == 0).count()
}

fn to_json(operation: &'static str, value: &impl Serialize) -> Result<Payload, Error> {
    serde_json::to_vec(value).map(Payload::from).map_err(Error::json(operation))
}

#[cfg(test)]
#[path = "course_tests.rs"]
pub(super) mod tests;
