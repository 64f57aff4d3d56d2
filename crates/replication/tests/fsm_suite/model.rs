//! What the design says about one job, as a small machine of its own: the oracle of the property tests.
//!
//! It knows states, holders, losses and lengths, not rows. It is written from the design's sentences, not from the code.

use fleet_core::Fence;
use fleet_replication::command::{Next, ReleaseCause};
use fleet_store::record::{CommandId, JobState, StopCause};

/// How often a robot may be lost in these tests.
pub(crate) const LOST_MAX: u32 = 1;

/// A job as the oracle sees it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) state: JobState,
    pub(crate) holder: Option<Fence>,
    pub(crate) stop: Option<StopCause>,
    pub(crate) attempt: u32,
    pub(crate) lost: u32,
    pub(crate) journal: Vec<String>,
    pub(crate) inbox: u32,
    wake_ms: Option<u64>,
    in_flight: Vec<String>,
    last: Option<(Fence, usize)>,
    obeyed: Vec<CommandId>,
}

impl Model {
    pub(crate) fn queued() -> Self {
        Self {
            state: JobState::Queued,
            holder: None,
            stop: None,
            attempt: 0,
            lost: 0,
            journal: Vec::new(),
            inbox: 0,
            wake_ms: None,
            in_flight: Vec::new(),
            last: None,
            obeyed: Vec::new(),
        }
    }

    fn settle(&mut self, state: JobState) {
        self.state = state;
        self.holder = None;
        self.stop = None;
        self.wake_ms = None;
        if state.is_ended() {
            self.in_flight.clear();
        }
        for path in std::mem::take(&mut self.in_flight) {
            self.journal.push(format!("lost {path}"));
        }
    }

    /// Whether this command of an operator or sender is new to the job; remembers it.
    fn obeys(&mut self, id: CommandId) {
        self.obeyed.push(id);
        if self.obeyed.len() > 8 {
            self.obeyed.remove(0);
        }
    }

    /// Only a queued job is assigned, and only with the right count of attempts.
    pub(crate) fn assign(&mut self, attempt: u32, fence: Fence) -> bool {
        if self.state != JobState::Queued || self.attempt != attempt {
            return false;
        }
        assert_eq!(self.holder, None, "two holders");
        self.state = JobState::Assigned;
        self.attempt += 1;
        self.holder = Some(fence);
        true
    }

    /// Only the holder records; a repeat of its last word is known and changes nothing.
    pub(crate) fn record(&mut self, fence: Fence, from: usize, texts: &[String], next: &Next, now_ms: u64) -> bool {
        let end = from + texts.len();
        if self.last.is_some_and(|(last, length)| last == fence && end <= length) {
            return true;
        }
        if self.holder != Some(fence) || from > self.journal.len() {
            return false;
        }
        for text in texts.iter().skip(self.journal.len() - from) {
            self.journal.push(text.clone());
            if let Some(path) = text.strip_prefix('+') {
                if !self.in_flight.iter().any(|started| started == path) {
                    self.in_flight.push(path.to_owned());
                }
            } else if let Some(path) = text.strip_prefix('-') {
                self.in_flight.retain(|started| started != path);
            }
        }
        if self.state == JobState::Assigned {
            self.state = JobState::Running;
        }
        if *next == Next::Continue {
            return true;
        }
        self.last = Some((fence, self.journal.len()));
        match next {
            Next::Continue => {}
            Next::Complete { .. } => self.settle(JobState::Completed),
            Next::Fail { .. } => self.settle(JobState::Failed),
            Next::TimeOut { .. } => self.settle(JobState::TimedOut),
            Next::HandBack => self.settle(self.target()),
            Next::Park { wake_at, inbox_read } => {
                let due = wake_at.is_some_and(|wake_at| wake_at.0 <= now_ms);
                let state = match self.stop {
                    None | Some(StopCause::Drain) if due || self.inbox > *inbox_read => JobState::Queued,
                    None | Some(StopCause::Drain) => JobState::Waiting,
                    Some(_) => self.target(),
                };
                self.settle(state);
                self.wake_ms = wake_at.map(|wake_at| wake_at.0).filter(|_| state == JobState::Waiting);
            }
        }
        true
    }

    /// Where a job goes whose holder let go of it.
    fn target(&self) -> JobState {
        match self.stop {
            None | Some(StopCause::Drain) => JobState::Queued,
            Some(StopCause::Pause) => JobState::Suspended,
            Some(StopCause::TimeOut) => JobState::TimedOut,
            Some(StopCause::Cancel) => JobState::Cancelled,
        }
    }

    /// Only the holder's own fence is released; too many losses end the job, unless it was to end anyway.
    pub(crate) fn release(&mut self, fence: Fence, cause: ReleaseCause) -> bool {
        if self.holder != Some(fence) {
            return false;
        }
        let mut state = self.target();
        if cause == ReleaseCause::Lost {
            self.lost += 1;
            if self.lost > LOST_MAX && !state.is_ended() {
                state = JobState::DeadLettered;
            }
        }
        self.settle(state);
        true
    }

    /// A stop ends or suspends at once where nobody holds the job; else the job is stopping.
    pub(crate) fn stop(&mut self, id: CommandId, cause: StopCause) -> bool {
        let there = match cause {
            StopCause::Drain => None,
            StopCause::Pause => Some(JobState::Suspended),
            StopCause::TimeOut => Some(JobState::TimedOut),
            StopCause::Cancel => Some(JobState::Cancelled),
        };
        if self.obeyed.contains(&id) || there == Some(self.state) {
            return true;
        }
        if self.state.is_ended() {
            return false;
        }
        if self.holder.is_some() {
            self.state = JobState::Stopping;
            self.stop = self.stop.max(Some(cause));
        } else if let Some(state) = there {
            self.settle(state);
        }
        if matches!(cause, StopCause::Pause | StopCause::Cancel) {
            self.obeys(id);
        }
        true
    }

    /// Resuming takes a pause back, also one that is under way.
    pub(crate) fn resume(&mut self, id: CommandId) -> bool {
        if self.obeyed.contains(&id) {
            return true;
        }
        match (self.state, self.stop) {
            (JobState::Suspended, _) => self.settle(JobState::Queued),
            (_, Some(StopCause::Pause)) => self.stop = Some(StopCause::Drain),
            _ => return false,
        }
        self.obeys(id);
        true
    }

    /// An event wakes a parked job.
    pub(crate) fn deliver(&mut self, id: CommandId) -> bool {
        if self.obeyed.contains(&id) {
            return true;
        }
        if self.state.is_ended() {
            return false;
        }
        self.inbox += 1;
        if self.state == JobState::Waiting {
            self.settle(JobState::Queued);
        }
        self.obeys(id);
        true
    }

    /// A due timer wakes a parked job.
    pub(crate) fn fire(&mut self, now_ms: u64) {
        if self.wake_ms.is_some_and(|due| due <= now_ms) {
            self.settle(JobState::Queued);
        }
    }
}
