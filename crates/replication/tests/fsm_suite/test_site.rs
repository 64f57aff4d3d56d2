//! A site's state in memory and short ways to propose to it, for every `fsm_*` suite.

use fleet_core::{Digest, Fence, GroupId, JobId, NodeId, SessionId, SiteName, Timestamp};
use fleet_replication::command::{
    Action, Command, Next, NodeAdmission, Outcome, Records, Refusal, ReleaseCause, Submission,
};
use fleet_replication::fsm::{Applied, EntryPosition, apply};
use fleet_store::record::{
    CommandId, Content, Founding, Job, JobSpec, JobState, JournalMark, JournalRecord, NodeProfile, Site, StopCause,
    WorkflowName,
};
use fleet_store::state::{jobs, listing, queue};
use fleet_store::{RawRow, StateRead, StateReader, Store};

/// The one workflow of these tests.
pub(crate) const DEFINITION: &str = r#"{"document":{"dsl":"1.0.3"}}"#;

/// A site of one founded group with a few nodes; time and log position advance with every entry.
pub(crate) struct TestSite {
    pub(crate) store: Store,
    pub(crate) group: GroupId,
    pub(crate) epoch: u64,
    pub(crate) index: u64,
    pub(crate) now: Timestamp,
    next_id: u128,
}

impl TestSite {
    /// A founded site with nodes 1 to 3.
    pub(crate) fn new() -> Self {
        let mut site = Self::empty();
        site.must(Action::Found(founding(site.group, false)));
        for number in 1..=3 {
            site.must(Action::PutNode(Box::new(admission(number))));
        }
        site
    }

    /// A site that nobody founded.
    pub(crate) fn empty() -> Self {
        let store = Store::in_memory().unwrap();
        let group = GroupId::from_bytes([9; 16]);
        Self { store, group, epoch: 1, index: 0, now: Timestamp(1_000), next_id: 0 }
    }

    /// A fresh command at the site's time.
    pub(crate) fn command(&mut self, action: Action) -> Command {
        self.next_id += 1;
        Command { id: CommandId(self.next_id), at: self.now, action }
    }

    /// Commits one entry.
    pub(crate) fn commit(&mut self, commands: Vec<Command>) -> Vec<Applied> {
        self.index += 1;
        let entry = EntryPosition { epoch: self.epoch, term: 1, index: self.index };
        self.store.apply(self.group, move |state| apply(state, entry, &commands)).wait().unwrap()
    }

    /// Commits one command alone.
    pub(crate) fn propose(&mut self, action: Action) -> Applied {
        self.now = Timestamp(self.now.0 + 1);
        let command = self.command(action);
        self.commit(vec![command]).remove(0)
    }

    /// Commits one command that must be accepted.
    pub(crate) fn must(&mut self, action: Action) -> Outcome {
        let text = format!("{action:?}");
        self.propose(action).outcome.accepted().unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
    }

    /// Commits one command that must be refused, changing no row.
    pub(crate) fn refused(&mut self, action: Action) -> Refusal {
        let before = self.rows();
        let applied = self.propose(action);
        assert!(applied.events.is_empty(), "{:?}", applied.events);
        assert_eq!(strip_latest(self.rows()), strip_latest(before), "a refused command changed rows");
        match applied.outcome {
            Outcome::Refused(refusal) => refusal,
            accepted => panic!("not refused: {accepted:?}"),
        }
    }

    pub(crate) fn reader(&self) -> StateReader {
        self.store.reader(self.group).unwrap()
    }

    pub(crate) fn job(&self, job: JobId) -> Job {
        jobs::job(&self.reader(), job).unwrap().unwrap()
    }

    pub(crate) fn state(&self, job: JobId) -> JobState {
        self.job(job).state
    }

    pub(crate) fn row(&self) -> Site {
        jobs::site(&self.reader()).unwrap()
    }

    /// Every row of the state, as bytes.
    pub(crate) fn rows(&self) -> Vec<RawRow> {
        use std::ops::Bound;
        let reader = self.reader();
        let mut end = self.group.as_bytes().to_vec();
        end.push(0xff);
        reader.raw_range(Bound::Included(self.group.as_bytes()), &end, usize::MAX, false).unwrap()
    }

    /// Submits job `number` with defaults.
    pub(crate) fn submit(&mut self, number: u8) -> JobId {
        self.must(Action::Submit(Box::new(submission(number))));
        job_id(number)
    }

    /// Assigns `job` to node `node` in its session `number`.
    pub(crate) fn assign(&mut self, job: JobId, node: u8, number: u64) -> Fence {
        let attempt = self.job(job).attempt;
        match self.must(Action::Assign { job, attempt, session: session(node, number) }) {
            Outcome::Assigned { fence, .. } => fence,
            other => panic!("{other:?}"),
        }
    }

    /// Brings a fresh job `number` into `state`; tells its fence where it has or had a holder.
    pub(crate) fn job_in(&mut self, number: u8, state: JobState) -> (JobId, Fence) {
        let job = self.submit(number);
        if state == JobState::Queued {
            return (job, Fence::default());
        }
        let fence = self.assign(job, 1, 1);
        match state {
            JobState::Assigned => {}
            JobState::Running => drop(self.must(record(job, fence, 0, &["a"], Next::Continue))),
            JobState::Waiting => drop(self.must(record(job, fence, 0, &["a"], park(self.now.0 + 1_000_000)))),
            JobState::Suspended => {
                self.must(Action::Stop { job, cause: StopCause::Pause });
                self.must(Action::Release { job, fence, cause: ReleaseCause::Stopped });
            }
            JobState::Stopping => drop(self.must(Action::Stop { job, cause: StopCause::Cancel })),
            JobState::Completed => drop(self.must(record(job, fence, 0, &["a"], complete()))),
            JobState::Failed => {
                self.must(record(job, fence, 0, &[], Next::Fail { error: Content::inline("{}") }));
            }
            JobState::Cancelled => {
                self.must(Action::Stop { job, cause: StopCause::Cancel });
                self.must(Action::Release { job, fence, cause: ReleaseCause::Lost });
            }
            JobState::TimedOut => {
                self.must(record(job, fence, 0, &[], Next::TimeOut { error: Content::inline("{}") }));
            }
            JobState::DeadLettered => {
                let mut fence = fence;
                for session in 2..=6 {
                    self.must(Action::Release { job, fence, cause: ReleaseCause::Lost });
                    fence = self.assign(job, 1, session);
                }
                self.must(Action::Release { job, fence, cause: ReleaseCause::Lost });
            }
            JobState::Queued | JobState::Transferring => unreachable!(),
        }
        assert_eq!(self.state(job), state);
        (job, fence)
    }
}

/// The rows without the site's, which notes the time of refused commands too.
pub(crate) fn strip_latest(mut rows: Vec<RawRow>) -> Vec<RawRow> {
    rows.retain(|(key, _)| key[16] != 1);
    rows
}

pub(crate) fn founding(group: GroupId, dev: bool) -> Founding {
    let founder = node_id(1);
    Founding { fleet: Default::default(), site: SiteName::default(), group, founder, dev }
}

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

pub(crate) fn job_id(number: u8) -> JobId {
    let mut bytes = [0x10; 16];
    bytes[0] = number;
    JobId::from_bytes(bytes)
}

pub(crate) fn session(node: u8, number: u64) -> SessionId {
    SessionId { node: node_id(node), boot: 1, number }
}

pub(crate) fn admission(number: u8) -> NodeAdmission {
    NodeAdmission { node: node_id(number), profile: profile(number), certificate: None, replaces: None }
}

pub(crate) fn profile(number: u8) -> NodeProfile {
    NodeProfile {
        name: format!("node-{number}"),
        site: SiteName::default(),
        address: format!("127.0.0.{number}:7000"),
        http_address: format!("127.0.0.{number}:8000"),
        tags: Vec::new(),
        slots: 4,
        capabilities: vec!["http".to_owned()],
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn submission(number: u8) -> Submission {
    let workflow = WorkflowName { namespace: "tests".to_owned(), name: "one".to_owned(), version: "1.0.0".to_owned() };
    let spec = JobSpec {
        workflow,
        definition: Digest::of(DEFINITION.as_bytes()),
        interpreter: 1,
        site: SiteName::default(),
        tags: Vec::new(),
        capabilities: vec!["http".to_owned()],
        lost_max: 5,
        finish_within_ms: None,
        retry_of: None,
    };
    let input = Content::inline("{}");
    Submission { job: job_id(number), spec, priority: 10, input, definition: Some(Content::inline(DEFINITION)) }
}

/// A holder's records, one for each text; `+path` begins an effect and `-path` ends it.
pub(crate) fn record(job: JobId, fence: Fence, from: u32, texts: &[&str], next: Next) -> Action {
    let records = texts.iter().map(|text| journal_record(text)).collect();
    Action::Record(Box::new(Records { job, fence, from, records, next }))
}

pub(crate) fn journal_record(text: &str) -> JournalRecord {
    let mark = match text.as_bytes().first() {
        Some(b'+') => JournalMark::EffectStarted(text[1..].to_owned()),
        Some(b'-') => JournalMark::EffectEnded(text[1..].to_owned()),
        _ => JournalMark::Plain,
    };
    JournalRecord { node: Some(node_id(1)), mark, event: Content::inline(text.as_bytes().to_vec()) }
}

pub(crate) fn park(wake_at_ms: u64) -> Next {
    Next::Park { wake_at: Some(Timestamp(wake_at_ms)), inbox_read: 0 }
}

pub(crate) fn complete() -> Next {
    Next::Complete { output: Content::inline(r#"{"done":true}"#) }
}

/// Recounts what is kept of moves; returns the jobs that live elsewhere.
fn check_moves(reader: &impl StateRead, rows: &[(JobId, Job)]) -> Vec<JobId> {
    use fleet_store::state::index::mirror_key;
    use fleet_store::state::tables::{CANCELS, MIRRORS_BY_STATE, MOVES, ORIGINS, OUTBOX, REPORTS};
    let all = usize::MAX;
    let moves = reader.scan(&MOVES, &(), None, all).unwrap();
    let state_of = |id: &JobId| rows.iter().find(|(job, _)| job == id).map(|(_, job)| job.state);
    let under_way: Vec<_> = moves.iter().filter(|(_, moved)| moved.mirror.is_none()).collect();
    let transferring = rows.iter().filter(|(_, job)| job.state == JobState::Transferring).count();
    assert_eq!(under_way.len(), transferring, "a move for each job under way");
    for (id, moved) in &moves {
        let expected = if moved.mirror.is_none() { Some(JobState::Transferring) } else { None };
        assert_eq!(state_of(id), expected, "{moved:?}");
    }
    let mut outbox: Vec<_> = under_way.iter().map(|(id, moved)| ((moved.to.group, moved.number), *id)).collect();
    outbox.sort_unstable();
    let kept: Vec<_> = reader.scan(&OUTBOX, &(), None, all).unwrap();
    assert_eq!(kept.iter().map(|(key, row)| (*key, row.job)).collect::<Vec<_>>(), outbox);
    let mut index: Vec<_> =
        moves.iter().filter_map(|(id, moved)| Some((mirror_key(moved.mirror.as_ref()?), *id))).collect();
    index.sort_unstable();
    assert_eq!(reader.scan(&MIRRORS_BY_STATE, &(), None, all).unwrap(), index);
    for ((group, number), row) in reader.scan(&CANCELS, &(), None, all).unwrap() {
        let moved = &moves.iter().find(|(id, _)| *id == row.job).unwrap().1;
        assert_eq!((moved.to.group, moved.number), (group, number));
        assert!(moved.mirror.as_ref().is_some_and(|mirror| !mirror.standing.state.is_ended()));
    }
    let origins = reader.scan(&ORIGINS, &(), None, all).unwrap();
    let mut pending: Vec<_> =
        origins.iter().filter_map(|((job, group), origin)| Some(((*group, origin.pending?), *job))).collect();
    pending.sort_unstable();
    let reports = reader.scan(&REPORTS, &(), None, all).unwrap();
    assert_eq!(reports.iter().map(|(key, row)| (*key, row.job)).collect::<Vec<_>>(), pending);
    moves.into_iter().filter(|(_, moved)| moved.mirror.is_some()).map(|(id, _)| id).collect()
}

/// Recounts everything that is kept besides the job rows and compares.
pub(crate) fn check_consistency(reader: &impl StateRead) {
    use fleet_store::state::index::{state_key, timer_due};
    use fleet_store::state::tables::{DEFINITION_USES, JOB_ENDINGS, JOB_SPECS, JOBS, JOBS_BY_STATE, JOURNAL, TIMERS};
    let all = usize::MAX;
    let rows = reader.scan(&JOBS, &(), None, all).unwrap();
    let mut index: Vec<_> = rows.iter().map(|(id, job)| (state_key(job), *id)).collect();
    index.sort_unstable();
    assert_eq!(reader.scan(&JOBS_BY_STATE, &(), None, all).unwrap(), index, "each job in exactly one place");
    let mut timers: Vec<_> = rows.iter().filter_map(|(id, job)| Some(((timer_due(job)?, *id), ()))).collect();
    timers.sort_unstable();
    assert_eq!(reader.scan(&TIMERS, &(), None, all).unwrap(), timers, "timers of waiting jobs");
    let site = jobs::site(reader).unwrap();
    let mut journaled = 0;
    for state in JobState::ALL {
        let counted = rows.iter().filter(|(_, job)| job.state == state).count();
        assert_eq!(site.counters.jobs_in(state), counted as u64, "count of {state}");
        assert_eq!(queue::jobs_in(reader, state, None, all).unwrap().len(), counted);
    }
    for (id, job) in &rows {
        assert_eq!(job.assignment.is_some(), job.state.has_holder(), "{job:?}");
        assert_eq!(job.stop.is_some(), job.state == JobState::Stopping, "{job:?}");
        assert_eq!(job.ended_at.is_some(), job.state.is_ended(), "{job:?}");
        assert!(!job.state.is_ended() || job.in_flight.is_empty(), "{job:?}");
        let journal = reader.scan(&JOURNAL, id, None, all).unwrap();
        assert_eq!(journal.len(), job.journal_length as usize);
        let bytes: u64 = journal.iter().map(|(_, record)| record.event.length()).sum();
        assert_eq!(bytes, job.journal_bytes);
        journaled += journal.len() as u64;
        assert!(reader.get(&JOB_SPECS, id).unwrap().is_some());
        let leaves = matches!(job.state, JobState::Completed | JobState::Failed);
        assert!(!leaves || reader.get(&JOB_ENDINGS, id).unwrap().is_some(), "{job:?}");
    }
    assert_eq!(site.counters.journaled, journaled);
    let uses: u64 = reader.scan(&DEFINITION_USES, &(), None, all).unwrap().iter().map(|(_, uses)| uses.jobs).sum();
    let mirrors = check_moves(reader, &rows);
    assert_eq!(uses, (rows.len() + mirrors.len()) as u64);
    let page = listing::list(reader, &listing::Filter::default(), None, all).unwrap();
    assert!(page.jobs.is_sorted_by(|(_, first, _), (_, second, _)| first.number() > second.number()));
    assert_eq!(page.jobs.len(), rows.len() + mirrors.len());
}
