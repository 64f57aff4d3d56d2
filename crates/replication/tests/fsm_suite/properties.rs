//! Promises 1 to 4 at the level of the state: random commands, late, repeated and with stale fences, against the oracle.

use std::collections::BTreeMap;
use std::ops::Bound;

use fleet_core::{Fence, GroupId, JobId, Timestamp};
use fleet_replication::command::{Action, Command, Next, Outcome, Records, ReleaseCause, Submission};
use fleet_replication::fsm::{EntryPosition, apply};
use fleet_store::record::{CommandId, Content, Job, StopCause};
use fleet_store::state::jobs;
use fleet_store::{RawRow, StateRead, StateTransaction, Store, codec};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::select;

use crate::model::{LOST_MAX, Model};
use crate::test_site::{
    admission, check_consistency, complete, founding, job_id, journal_record, node_id, park, session, submission,
};

const JOBS: u8 = 2;

/// One command, before it is known which fences there are.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        job: u8,
        other: bool,
        /// The node of the robot that it names.
        to: Option<u8>,
    },
    Assign {
        job: u8,
        behind: u32,
        node: u8,
    },
    Record {
        job: u8,
        fence_back: usize,
        from_back: i64,
        texts: Vec<String>,
        next: Next,
    },
    Release {
        job: u8,
        fence_back: usize,
        cause: ReleaseCause,
    },
    Stop {
        job: u8,
        cause: StopCause,
    },
    Resume {
        job: u8,
    },
    Deliver {
        job: u8,
    },
    Fire,
    Hold(bool),
    /// The command that many before, once more, as it was.
    Repeat(usize),
}

fn any_next() -> impl Strategy<Value = Next> {
    prop_oneof![
        4 => Just(Next::Continue),
        1 => Just(complete()),
        1 => Just(Next::Fail { error: Content::inline("{}") }),
        1 => Just(Next::TimeOut { error: Content::inline("{}") }),
        2 => Just(Next::HandBack),
        2 => (0_u64..160, 0_u32..2).prop_map(|(due, inbox_read)| match park(due) {
            Next::Park { wake_at, .. } => Next::Park { wake_at, inbox_read },
            other => other,
        }),
        1 => (0_u32..2).prop_map(|inbox_read| Next::Park { wake_at: None, inbox_read }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let job = || 0..JOBS;
    let fence_back = || prop_oneof![4 => Just(0_usize), 1 => 1_usize..3];
    let cause = select(vec![StopCause::Drain, StopCause::Pause, StopCause::TimeOut, StopCause::Cancel]);
    let release = select(vec![ReleaseCause::Lost, ReleaseCause::Gone, ReleaseCause::Stopped]);
    let texts = prop::collection::vec(select(vec!["a", "b", "+x", "-x", "+y"]).prop_map(str::to_owned), 0..3);
    prop_oneof![
        2 => (job(), prop::bool::weighted(0.1), prop::option::of(1_u8..5))
            .prop_map(|(job, other, to)| Step::Submit { job, other, to }),
        6 => (job(), prop_oneof![5 => Just(0_u32), 1 => Just(1)], 1_u8..4)
            .prop_map(|(job, behind, node)| Step::Assign { job, behind, node }),
        8 => (job(), fence_back(), prop_oneof![4 => Just(0_i64), 1 => -1_i64..3], texts, any_next())
            .prop_map(|(job, fence_back, from_back, texts, next)| {
                Step::Record { job, fence_back, from_back, texts, next }
            }),
        3 => (job(), fence_back(), release)
            .prop_map(|(job, fence_back, cause)| Step::Release { job, fence_back, cause }),
        2 => (job(), cause).prop_map(|(job, cause)| Step::Stop { job, cause }),
        2 => job().prop_map(|job| Step::Resume { job }),
        1 => job().prop_map(|job| Step::Deliver { job }),
        1 => Just(Step::Fire),
        1 => any::<bool>().prop_map(Step::Hold),
        4 => (1_usize..8).prop_map(Step::Repeat),
    ]
}

/// Turns steps into commands, and follows them with the oracle.
struct Run {
    models: BTreeMap<u8, Model>,
    /// Every fence that was minted for a job, oldest first.
    fences: BTreeMap<u8, Vec<Fence>>,
    /// What each step became.
    sent: Vec<Command>,
    held: bool,
    /// The rows of jobs that have ended, as they were then.
    ended: BTreeMap<u8, Vec<RawRow>>,
}

impl Run {
    fn new() -> Self {
        Self { models: BTreeMap::new(), fences: BTreeMap::new(), sent: Vec::new(), held: false, ended: BTreeMap::new() }
    }

    fn command(&self, number: usize, step: &Step) -> Command {
        let fence = |job: &u8, back: usize| {
            let fences = self.fences.get(job).map(Vec::as_slice).unwrap_or_default();
            fences.iter().rev().nth(back).copied().unwrap_or_default()
        };
        let action = match step {
            Step::Submit { job, other, to } => {
                let mut submission = submission(*job);
                submission.spec.lost_max = LOST_MAX;
                submission.priority = if *other { 20 } else { 10 };
                let submission = Box::new(submission);
                match to {
                    Some(node) => Action::SubmitAssigned { submission, session: session(*node, number as u64) },
                    None => Action::Submit(submission),
                }
            }
            Step::Assign { job, behind, node } => {
                let attempt = self.models.get(job).map_or(0, |model| model.attempt.saturating_sub(*behind));
                Action::Assign { job: job_id(*job), attempt, session: session(*node, number as u64) }
            }
            Step::Record { job, fence_back, from_back, texts, next } => {
                let length = self.models.get(job).map_or(0, |model| model.journal.len());
                let from = u32::try_from((length as i64 - from_back).max(0)).unwrap();
                let records = texts.iter().map(|text| journal_record(text)).collect();
                let (job, fence) = (job_id(*job), fence(job, *fence_back));
                Action::Record(Box::new(Records { job, fence, from, records, next: next.clone() }))
            }
            Step::Release { job, fence_back, cause } => {
                Action::Release { job: job_id(*job), fence: fence(job, *fence_back), cause: *cause }
            }
            Step::Stop { job, cause } => Action::Stop { job: job_id(*job), cause: *cause },
            Step::Resume { job } => Action::Resume { job: job_id(*job) },
            Step::Deliver { job } => Action::Deliver { job: job_id(*job), event: Content::inline("{}") },
            Step::Fire => Action::FireTimers,
            Step::Hold(true) => Action::Hold { awaited: Vec::new() },
            Step::Hold(false) => Action::EndHold,
            Step::Repeat(back) => match self.sent.len().checked_sub(*back) {
                Some(position) => return self.sent[position].clone(),
                None => Action::FireTimers,
            },
        };
        Command { id: CommandId(number as u128 + 1), at: Timestamp(number as u64), action }
    }

    /// Lets the oracle follow one command, and compares what came of it.
    fn follow(&mut self, command: &Command, outcome: &Outcome, here: Fence) {
        let accepted = !matches!(outcome, Outcome::Refused(_));
        let number = |job: &JobId| job.as_bytes()[0];
        let expected = match &command.action {
            Action::Submit(submission) => self.follow_submit(submission),
            Action::SubmitAssigned { submission, session } => {
                let is_new = !self.models.contains_key(&number(&submission.job));
                let accepted = self.follow_submit(submission);
                // Node 4 is nobody: the job is queued all the same.
                let is_assigned = is_new && !self.held && session.node != node_id(4);
                assert_eq!(matches!(outcome, Outcome::Assigned { .. }), is_assigned, "{command:?}: {outcome:?}");
                if is_assigned {
                    self.follow_assign(number(&submission.job), 0, outcome, here);
                }
                accepted
            }
            Action::Assign { job, attempt, .. } => self.follow_assign(number(job), *attempt, outcome, here),
            Action::Record(records) => {
                let texts: Vec<_> = records.records.iter().map(text_of).collect();
                self.models.get_mut(&number(&records.job)).is_some_and(|model| {
                    model.record(records.fence, records.from as usize, &texts, &records.next, command.at.0)
                })
            }
            Action::Release { job, fence, cause } => {
                self.models.get_mut(&number(job)).is_some_and(|model| model.release(*fence, *cause))
            }
            Action::Stop { job, cause } => {
                self.models.get_mut(&number(job)).is_some_and(|model| model.stop(command.id, *cause))
            }
            Action::Resume { job } => self.models.get_mut(&number(job)).is_some_and(|model| model.resume(command.id)),
            Action::Deliver { job, .. } => {
                self.models.get_mut(&number(job)).is_some_and(|model| model.deliver(command.id))
            }
            Action::FireTimers => {
                self.models.values_mut().for_each(|model| model.fire(command.at.0));
                true
            }
            Action::Hold { .. } | Action::EndHold => {
                self.held = matches!(command.action, Action::Hold { .. });
                true
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(accepted, expected, "{command:?}: {outcome:?}");
        self.sent.push(command.clone());
    }

    fn follow_submit(&mut self, submission: &Submission) -> bool {
        let first = self.sent.iter().find_map(|sent| match &sent.action {
            Action::Submit(earlier) | Action::SubmitAssigned { submission: earlier, .. } => {
                (earlier.job == submission.job).then_some(earlier.priority)
            }
            _ => None,
        });
        self.models.entry(submission.job.as_bytes()[0]).or_insert_with(Model::queued);
        first.is_none_or(|first| first == submission.priority)
    }

    fn follow_assign(&mut self, job: u8, attempt: u32, outcome: &Outcome, here: Fence) -> bool {
        let Some(model) = self.models.get_mut(&job) else {
            return false;
        };
        match outcome {
            Outcome::Assigned { fence, .. } if *fence == here => {
                assert!(!self.held, "assigned while held");
                let fences = self.fences.entry(job).or_default();
                assert!(fences.last().is_none_or(|last| *last < here), "fences of a job only grow");
                fences.push(here);
                model.assign(attempt, here)
            }
            Outcome::Assigned { fence, .. } => model.holder == Some(*fence),
            _ => !self.held && model.clone().assign(attempt, here),
        }
    }

    /// Compares every job with the oracle's, and ended ones with what they were at their end.
    fn compare(&mut self, state: &impl StateRead) {
        for (number, model) in &self.models {
            let id = job_id(*number);
            let job = jobs::job(state, id).unwrap().unwrap();
            let holder = job.assignment.map(|assignment| assignment.fence);
            let seen = (job.state, holder, job.stop, job.attempt, job.lost, job.inbox_length);
            let expected = (model.state, model.holder, model.stop, model.attempt, model.lost, model.inbox);
            assert_eq!(seen, expected, "job {number}");
            let journal = jobs::journal(state, id, 0, usize::MAX).unwrap();
            assert_eq!(journal.iter().map(text_of).collect::<Vec<_>>(), model.journal);
            if job.state.is_ended() {
                let rows = rows_of(state, id);
                assert_eq!(*self.ended.entry(*number).or_insert_with(|| rows.clone()), rows, "changed after its end");
            }
        }
    }
}

fn text_of(record: &fleet_store::record::JournalRecord) -> String {
    let Content::Inline(payload) = &record.event else {
        panic!("a blob");
    };
    let text = String::from_utf8(payload.as_slice().to_vec()).unwrap();
    if record.node.is_some() {
        return text;
    }
    let path = text.split('"').skip_while(|part| *part != "path").nth(2).unwrap();
    format!("lost {path}")
}

fn all_rows(state: &impl StateRead) -> Vec<RawRow> {
    let group = state.group();
    let mut end = group.as_bytes().to_vec();
    end.push(0xff);
    state.raw_range(Bound::Included(group.as_bytes()), &end, usize::MAX, false).unwrap()
}

/// Every row that names the job in its key or is its place in an index.
fn rows_of(state: &impl StateRead, job: JobId) -> Vec<RawRow> {
    let names = |bytes: &[u8]| bytes.windows(16).any(|window| window == job.as_bytes());
    all_rows(state).into_iter().filter(|(key, value)| names(key) || names(value)).collect()
}

/// Runs `steps` in entries of the given sizes; returns every row at the end.
fn run(steps: &[Step], sizes: &[usize], state: &mut StateTransaction<'_>) -> Vec<RawRow> {
    let mut run = Run::new();
    let mut setup = vec![Action::Found(founding(state.group(), false))];
    setup.extend((1..=3).map(|number| Action::PutNode(Box::new(admission(number)))));
    let setup: Vec<_> =
        setup.into_iter().map(|action| Command { id: CommandId(0), at: Timestamp(0), action }).collect();
    apply(state, EntryPosition { epoch: 1, term: 1, index: 1 }, &setup).unwrap();
    let (mut index, mut number) = (1, 0);
    for size in sizes.iter().cycle() {
        let taken = steps.iter().skip(number).take(*size).collect::<Vec<_>>();
        if taken.is_empty() {
            break;
        }
        index += 1;
        run.entry(&taken, number, index, state);
        number += taken.len();
    }
    all_rows(state)
}

impl Run {
    /// One entry. Commands are made before any of them is applied, like a proposer's.
    fn entry(&mut self, steps: &[&Step], number: usize, index: u64, state: &mut StateTransaction<'_>) {
        let commands: Vec<_> =
            steps.iter().enumerate().map(|(offset, step)| self.command(number + offset, step)).collect();
        let entry = EntryPosition { epoch: 1, term: 1, index };
        let applied = apply(state, entry, &commands).unwrap();
        for ((position, command), applied) in (0..).zip(&commands).zip(&applied) {
            self.follow(command, &applied.outcome, Fence::mint(1, index, position));
        }
        self.compare(state);
        check_consistency(state);
    }
}

/// Applies finished commands in entries of the given sizes.
fn replay(commands: &[Command], sizes: &[usize], state: &mut StateTransaction<'_>) -> Vec<RawRow> {
    let (mut index, mut rest) = (0, commands);
    for size in sizes.iter().cycle() {
        let (entry, later) = rest.split_at((*size).min(rest.len()));
        if entry.is_empty() {
            break;
        }
        index += 1;
        apply(state, EntryPosition { epoch: 1, term: 1, index }, entry).unwrap();
        rest = later;
    }
    all_rows(state)
}

fn in_store<T: Send + 'static>(work: impl FnOnce(&mut StateTransaction<'_>) -> T + Send + 'static) -> T {
    let store = Store::in_memory().unwrap();
    store.apply(GroupId::from_bytes([9; 16]), move |state| Ok(work(state))).wait().unwrap()
}

/// The rows with every fence taken out.
fn without_fences(rows: Vec<RawRow>) -> Vec<RawRow> {
    let blank = |(key, value): RawRow| {
        if key[16] != 2 {
            return (key, value);
        }
        let mut job: Job = codec::decode(&value).unwrap();
        if let Some(assignment) = &mut job.assignment {
            assignment.fence = Fence::default();
        }
        if let Some(settled) = &mut job.settled {
            settled.fence = Fence::default();
        }
        (key, codec::encode(&job).unwrap())
    };
    rows.into_iter().map(blank).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_follows_the_oracle_and_two_stores_agree_byte_for_byte(
        steps in prop::collection::vec(any_step(), 1..120),
        sizes in prop::collection::vec(1_usize..6, 1..8),
    ) {
        let (again, sizes_again) = (steps.clone(), sizes.clone());
        let first = in_store(move |state| run(&steps, &sizes, state));
        let second = in_store(move |state| run(&again, &sizes_again, state));
        assert_eq!(first, second);
    }

    #[test]
    fn how_commands_are_split_into_entries_changes_only_fences(
        steps in prop::collection::vec(any_step(), 1..120),
        sizes in prop::collection::vec(1_usize..9, 1..8),
    ) {
        // Steps that name a fence would name another one after another split, so they stay out.
        let mut run = Run::new();
        run.models = (0..JOBS).map(|job| (job, Model::queued())).collect();
        let mut commands = vec![Action::Found(founding(GroupId::from_bytes([9; 16]), false))];
        commands.extend((1..=3).map(|number| Action::PutNode(Box::new(admission(number)))));
        let mut commands: Vec<_> = commands
            .into_iter()
            .map(|action| Command { id: CommandId(0), at: Timestamp(0), action })
            .collect();
        for (number, step) in steps.iter().enumerate() {
            if !matches!(step, Step::Record { .. } | Step::Release { .. } | Step::Repeat(_)) {
                commands.push(run.command(number, step));
            }
        }
        let copy = commands.clone();
        let whole = in_store(move |state| { let size = copy.len(); replay(&copy, &[size], state) });
        let split = in_store(move |state| replay(&commands, &sizes, state));
        assert_eq!(without_fences(whole), without_fences(split));
    }
}
