//! What applying costs: printed, not judged, because the machine's load is not ours. Run it optimised to compare:
//! `cargo test --release -p fleet-replication --test fsm_suite cost -- --nocapture`.

use std::time::{Duration, Instant};

use fleet_core::{Fence, GroupId, JobId, Timestamp};
use fleet_replication::command::{Action, Command, Outcome};
use fleet_replication::fsm::{EntryPosition, apply};
use fleet_store::Store;
use fleet_store::record::{CommandId, JobState};
use fleet_store::state::jobs;

use crate::test_site::{admission, complete, founding, record, session, submission};

const BATCHES: u64 = 40;
const JOBS_PER_BATCH: u64 = 64;

/// A store on disk whose applies are timed without their commits.
struct Timed {
    store: Store,
    group: GroupId,
    index: u64,
}

impl Timed {
    #[expect(clippy::disallowed_methods, reason = "measures how long applying takes")]
    fn apply(&mut self, actions: Vec<Action>) -> (Duration, Vec<Outcome>) {
        self.index += 1;
        let entry = EntryPosition { epoch: 1, term: 1, index: self.index };
        let index = self.index;
        let commands: Vec<_> = actions
            .into_iter()
            .map(|action| Command { id: CommandId(u128::from(index)), at: Timestamp(index), action })
            .collect();
        let work = move |state: &mut fleet_store::StateTransaction<'_>| {
            let start = Instant::now();
            let applied = apply(state, entry, &commands)?;
            Ok((start.elapsed(), applied.into_iter().map(|applied| applied.outcome).collect()))
        };
        self.store.apply(self.group, work).wait().unwrap()
    }
}

/// Random-looking ids, as clients make them.
fn job(number: u64) -> JobId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    JobId::from_bytes(bytes)
}

#[test]
fn cost_of_a_job_with_one_task() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.redb")).unwrap();
    let mut timed = Timed { store, group: GroupId::from_bytes([9; 16]), index: 0 };
    timed.apply(vec![Action::Found(founding(timed.group, false)), Action::PutNode(Box::new(admission(1)))]);
    let (mut submits, mut assigns, mut records) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for batch in 0..BATCHES {
        let jobs: Vec<_> = (0..JOBS_PER_BATCH).map(|number| job(batch * JOBS_PER_BATCH + number)).collect();
        let submit = |job: &JobId| {
            let mut submission = submission(1);
            submission.job = *job;
            Action::Submit(Box::new(submission))
        };
        submits += timed.apply(jobs.iter().map(submit).collect()).0;
        let assign = |job: &JobId| Action::Assign { job: *job, attempt: 0, session: session(1, 1) };
        let (spent, assigned) = timed.apply(jobs.iter().map(assign).collect());
        assigns += spent;
        let ends = jobs.iter().zip(assigned).map(|(job, outcome)| {
            let fence = match outcome {
                Outcome::Assigned { fence, .. } => fence,
                _ => Fence::default(),
            };
            record(*job, fence, 0, &["{\"event\":\"started\"}", "{\"event\":\"effectEnded\"}"], complete())
        });
        records += timed.apply(ends.collect()).0;
    }
    let count = BATCHES * JOBS_PER_BATCH;
    let site = jobs::site(&timed.store.reader(timed.group).unwrap()).unwrap();
    assert_eq!(site.counters.jobs_in(JobState::Completed), count);
    let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / count as f64;
    let whole = micros(submits + assigns + records);
    let (submit, assign, end) = (micros(submits), micros(assigns), micros(records));
    println!("apply: {whole:.1} us a job (submit {submit:.1}, assign {assign:.1}, record and complete {end:.1})");
}
