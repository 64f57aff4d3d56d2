//! Forgetting: everything of a job goes, nothing of another, and never more in one entry than the bound.

use fleet_core::limits::FORGOTTEN_ROWS_PER_ENTRY_MAX;
use fleet_core::{Digest, Timestamp};
use fleet_replication::command::{Action, Next, Outcome};
use fleet_store::RawRow;
use fleet_store::record::{Content, JobState};
use fleet_store::state::jobs;
use fleet_store::state::tables::SITE;

use crate::test_site::{TestSite, check_consistency, complete, job_id, journal_record, record, submission};

/// All rows but the site's, whose counters remember what was.
fn rows(site: &TestSite) -> Vec<RawRow> {
    let mut rows = site.rows();
    rows.retain(|(key, _)| key[16] != SITE.number());
    rows
}

fn forget(site: &mut TestSite, before: u64) -> (u32, bool) {
    match site.must(Action::Forget { before: Timestamp(before) }) {
        Outcome::Forgotten { jobs, more } => (jobs, more),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_row_of_an_old_ended_job_goes_and_no_other() {
    let mut site = TestSite::new();
    let empty = rows(&site);
    let digest = Digest::of(b"large");
    let blob = Content::Blob { digest, length: 70_000 };
    let mut with_blob = submission(9);
    with_blob.input = blob.clone();
    site.must(Action::Submit(Box::new(with_blob)));
    let fence = site.assign(job_id(9), 1, 1);
    site.must(Action::Deliver { job: job_id(9), event: blob.clone() });
    site.must(record(job_id(9), fence, 0, &["a"], Next::Complete { output: blob }));
    assert_eq!(jobs::blob_uses(&site.reader(), digest).unwrap(), 3);
    let ended =
        [JobState::Completed, JobState::Failed, JobState::Cancelled, JobState::TimedOut, JobState::DeadLettered];
    for (number, state) in (10..).zip(ended) {
        site.job_in(number, state);
    }
    let live = [JobState::Queued, JobState::Assigned, JobState::Running, JobState::Waiting, JobState::Suspended];
    let live: Vec<_> = (20..).zip(live).map(|(number, state)| site.job_in(number, state).0).collect();
    let before = site.now.0 + 1;
    let (late, _) = {
        site.now = Timestamp(before + 100);
        site.job_in(30, JobState::Completed)
    };
    assert_eq!(forget(&mut site, before), (6, false));
    check_consistency(&site.reader());
    assert_eq!(site.state(late), JobState::Completed, "it ended later");
    assert_eq!(jobs::blob_uses(&site.reader(), digest).unwrap(), 0, "its blob may be swept");
    assert_eq!(forget(&mut site, before), (0, false), "a repeat finds nothing");

    for job in &live {
        site.must(Action::Stop { job: *job, cause: fleet_store::record::StopCause::Cancel });
        if let Some(assignment) = site.job(*job).assignment {
            let cause = fleet_replication::command::ReleaseCause::Stopped;
            site.must(Action::Release { job: *job, fence: assignment.fence, cause });
        }
    }
    let after_all = site.now.0 + 1;
    assert_eq!(forget(&mut site, after_all), (6, false));
    assert_eq!(rows(&site), empty, "nothing of any job is left, its definition neither");
}

#[test]
fn a_long_journal_goes_in_pieces() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let fence = site.assign(job, 1, 1);
    let total = FORGOTTEN_ROWS_PER_ENTRY_MAX + 500;
    let mut from = 0;
    while (from as usize) < total {
        let texts = vec!["x"; 500];
        site.must(record(job, fence, from, &texts, Next::Continue));
        from += 500;
    }
    site.must(record(job, fence, from, &[], complete()));
    let before = site.now.0 + 1;
    assert_eq!(forget(&mut site, before), (0, true));
    check_consistency(&site.reader());
    assert_eq!(site.job(job).journal_length as usize, 500, "the end goes first");
    let first = jobs::journal(&site.reader(), job, 0, 1).unwrap();
    assert_eq!(first, [journal_record("x")]);
    assert_eq!(forget(&mut site, before), (1, false));
    check_consistency(&site.reader());
    assert!(jobs::job(&site.reader(), job).unwrap().is_none());
}
