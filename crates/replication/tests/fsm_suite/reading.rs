//! What readers are told: the queue's order, pages of listings, ids by prefix.

use fleet_core::JobId;
use fleet_replication::command::{Action, Submission};
use fleet_store::record::{JobState, StopCause};
use fleet_store::state::listing::{Filter, Found, find, list};
use fleet_store::state::queue::{QueuePlace, heads, jobs_in};

use crate::test_site::{TestSite, job_id, submission};

fn with_priority(number: u8, priority: u8) -> Action {
    Action::Submit(Box::new(Submission { priority, ..submission(number) }))
}

#[test]
fn the_queue_is_by_priority_then_by_submission_and_is_read_in_batches() {
    let mut site = TestSite::new();
    for (number, priority) in [(1, 10), (2, 0), (3, 20), (4, 10), (5, 20)] {
        site.must(with_priority(number, priority));
    }
    let reader = site.reader();
    let ids = |rows: Vec<(QueuePlace, JobId)>| rows.into_iter().map(|(_, job)| job).collect::<Vec<_>>();
    assert_eq!(ids(heads(&reader, None, 10).unwrap()), [3, 5, 1, 4, 2].map(job_id));
    let first = heads(&reader, None, 2).unwrap();
    assert_eq!(first[1].0, QueuePlace::new(20, 5));
    assert_eq!(ids(heads(&reader, Some(first[1].0), 2).unwrap()), [1, 4].map(job_id));
    let (place, _) = jobs_in(&reader, JobState::Queued, None, 4).unwrap()[3];
    assert_eq!(jobs_in(&reader, JobState::Queued, Some(&place), 4).unwrap()[0].1, job_id(2));
}

#[test]
fn a_requeued_job_keeps_its_place() {
    let mut site = TestSite::new();
    let one = site.submit(1);
    site.submit(2);
    site.must(Action::Stop { job: one, cause: StopCause::Pause });
    assert_eq!(heads(&site.reader(), None, 1).unwrap()[0].1, job_id(2));
    site.must(Action::Resume { job: one });
    assert_eq!(heads(&site.reader(), None, 1).unwrap()[0].1, one);
}

#[test]
fn pages_run_from_newest_to_oldest_over_all_states_without_gap_or_repeat() {
    let mut site = TestSite::new();
    for number in 0..200_u8 {
        site.must(with_priority(number, number % 21));
        if number % 3 == 0 {
            site.must(Action::Stop { job: job_id(number), cause: StopCause::Cancel });
        }
    }
    let reader = site.reader();
    for limit in [1, 7, 64, 199, 200, 1_000] {
        let mut below = None;
        let mut seen = Vec::new();
        loop {
            let page = list(&reader, &Filter::default(), below, limit).unwrap();
            assert!(page.jobs.len() <= limit);
            seen.extend(page.jobs.iter().map(|(id, _, _)| *id));
            below = page.next;
            if below.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..200).rev().map(job_id).collect::<Vec<_>>(), "limit {limit}");
    }
}

#[test]
fn listings_are_filtered_by_state_and_workflow() {
    let mut site = TestSite::new();
    for number in 1..=4 {
        let mut submission = submission(number);
        submission.spec.workflow.version = format!("{}.0.0", number % 2);
        site.must(Action::Submit(Box::new(submission)));
    }
    site.must(Action::Stop { job: job_id(4), cause: StopCause::Cancel });
    let reader = site.reader();
    let count = |states: &[JobState], workflow: Option<&str>| {
        let filter = Filter { states: states.to_vec(), workflow: workflow.map(str::to_owned) };
        let page = list(&reader, &filter, None, 10).unwrap();
        assert_eq!(page.next, None);
        page.jobs.len()
    };
    assert_eq!(count(&[], None), 4);
    assert_eq!(count(&[JobState::Cancelled], None), 1);
    assert_eq!(count(&[JobState::Queued, JobState::Running], None), 3);
    assert_eq!(count(&[], Some("tests/one")), 4);
    assert_eq!(count(&[], Some("tests/one:1.0.0")), 2);
    assert_eq!(count(&[JobState::Queued], Some("tests/one:0.0.0")), 1);
    for other in ["tests/two", "one", "tests/one:", "tests/one:2.0.0", ""] {
        assert_eq!(count(&[], Some(other)), 0, "{other:?}");
    }
}

#[test]
fn a_job_is_found_by_any_unique_prefix_of_its_id() {
    let mut site = TestSite::new();
    let (one, two) = (site.submit(0x1a), site.submit(0x1b));
    let reader = site.reader();
    assert_eq!(find(&reader, "1a").unwrap(), Found::One(one));
    assert_eq!(find(&reader, "1B").unwrap(), Found::One(two));
    assert_eq!(find(&reader, &one.to_string()).unwrap(), Found::One(one));
    assert_eq!(find(&reader, "1").unwrap(), Found::Several);
    for missing in ["2", "1c", "", "job", "1a100"] {
        assert_eq!(find(&reader, missing).unwrap(), Found::None, "{missing:?}");
    }
}
