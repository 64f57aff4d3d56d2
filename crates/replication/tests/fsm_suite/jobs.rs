//! The life of a job, transition by transition and refusal by refusal (design §6).

use crate::test_site::{
    TestSite, check_consistency, complete, job_id, journal_record, node_id, park, record, session, submission,
};
use fleet_core::limits::{JOURNAL_BYTES_MAX, QUEUE_JOBS_MAX};
use fleet_core::{Digest, Fence, Timestamp};
use fleet_replication::command::{Action, Next, Outcome, Refusal, ReleaseCause};
use fleet_replication::fsm::Event;
use fleet_store::record::{Absence, Content, Ending, JobState, JournalRecord, Reason, StopCause};
use fleet_store::state::tables::SITE;
use fleet_store::state::{jobs, queue};

/// Every state that a job can be in today.
const STATES: [JobState; 11] = [
    JobState::Queued,
    JobState::Assigned,
    JobState::Running,
    JobState::Waiting,
    JobState::Suspended,
    JobState::Stopping,
    JobState::Completed,
    JobState::Failed,
    JobState::Cancelled,
    JobState::TimedOut,
    JobState::DeadLettered,
];

/// What `action` does to a job in each state: the state after it, or `None` for a refusal.
fn check_every_state(action: impl Fn(&TestSite, fleet_core::JobId, Fence) -> Action, expected: [Option<JobState>; 11]) {
    for (before, after) in STATES.into_iter().zip(expected) {
        let mut site = TestSite::new();
        let (job, fence) = site.job_in(1, before);
        let action = action(&site, job, fence);
        let text = format!("{before}: {action:?}");
        match after {
            Some(after) => {
                site.must(action);
                assert_eq!(site.state(job), after, "{text}");
            }
            None => {
                site.refused(action);
                assert_eq!(site.state(job), before, "{text}");
            }
        }
        check_consistency(&site.reader());
    }
}

#[test]
fn a_submit_that_names_a_robot_is_assigned_in_its_own_entry_and_queued_where_the_robot_may_have_nothing() {
    let submit =
        |number, node| Action::SubmitAssigned { submission: Box::new(submission(number)), session: session(node, 1) };
    let mut site = TestSite::new();
    let Outcome::Assigned { job, fence } = site.must(submit(1, 1)) else { panic!("a free robot takes it") };
    let row = site.job(job);
    assert_eq!((row.state, row.attempt), (Assigned, 1));
    assert_eq!(row.assignment.map(|assignment| (assignment.session, assignment.fence)), Some((session(1, 1), fence)));
    assert_eq!(site.must(submit(1, 2)), Outcome::Submitted { job, created: false }, "a repeat assigns nothing again");
    assert_eq!(site.job(job), row);
    let mut other = submission(1);
    other.priority = 20;
    site.refused(Action::SubmitAssigned { submission: Box::new(other), session: session(2, 1) });

    site.must(Action::DrainNode { node: node_id(2), deadline: None });
    assert_eq!(site.must(submit(2, 2)), Outcome::Submitted { job: job_id(2), created: true });
    assert_eq!(site.state(job_id(2)), Queued, "its robot drains");
    site.must(Action::Hold { awaited: vec![node_id(1)] });
    site.must(submit(3, 1));
    assert_eq!(site.state(job_id(3)), Queued, "dispatch is held");
    check_consistency(&site.reader());
}

use JobState::{Assigned, Cancelled, Completed, Failed, Queued, Running, Stopping, Suspended, TimedOut, Waiting};

#[test]
fn cancel() {
    check_every_state(
        |_, job, _| Action::Stop { job, cause: StopCause::Cancel },
        [
            Some(Cancelled),
            Some(Stopping),
            Some(Stopping),
            Some(Cancelled),
            Some(Cancelled),
            Some(Stopping),
            None,
            None,
            Some(Cancelled),
            None,
            None,
        ],
    );
}

#[test]
fn pause() {
    check_every_state(
        |_, job, _| Action::Stop { job, cause: StopCause::Pause },
        [
            Some(Suspended),
            Some(Stopping),
            Some(Stopping),
            Some(Suspended),
            Some(Suspended),
            Some(Stopping),
            None,
            None,
            None,
            None,
            None,
        ],
    );
}

#[test]
fn drain() {
    check_every_state(
        |_, job, _| Action::Stop { job, cause: StopCause::Drain },
        [
            Some(Queued),
            Some(Stopping),
            Some(Stopping),
            Some(Waiting),
            Some(Suspended),
            Some(Stopping),
            None,
            None,
            None,
            None,
            None,
        ],
    );
}

#[test]
fn time_out() {
    check_every_state(
        |_, job, _| Action::Stop { job, cause: StopCause::TimeOut },
        [
            Some(TimedOut),
            Some(Stopping),
            Some(Stopping),
            Some(TimedOut),
            Some(TimedOut),
            Some(Stopping),
            None,
            None,
            None,
            Some(TimedOut),
            None,
        ],
    );
}

#[test]
fn resume() {
    check_every_state(
        |_, job, _| Action::Resume { job },
        [None, None, None, None, Some(Queued), None, None, None, None, None, None],
    );
}

#[test]
fn assign() {
    check_every_state(
        |site, job, _| Action::Assign { job, attempt: site.job(job).attempt, session: session(2, 7) },
        [Some(Assigned), None, None, None, None, None, None, None, None, None, None],
    );
}

#[test]
fn records_by_the_holder() {
    check_every_state(
        |site, job, fence| record(job, fence, site.job(job).journal_length, &["b"], Next::Continue),
        [None, Some(Running), Some(Running), None, None, Some(Stopping), None, None, None, None, None],
    );
}

#[test]
fn completion_by_the_holder() {
    check_every_state(
        |site, job, fence| record(job, fence, site.job(job).journal_length, &["b"], complete()),
        [None, Some(Completed), Some(Completed), None, None, Some(Completed), None, None, None, None, None],
    );
}

#[test]
fn failure_by_the_holder() {
    check_every_state(
        |site, job, fence| {
            let next = Next::Fail { error: Content::inline("{}") };
            record(job, fence, site.job(job).journal_length, &["b"], next)
        },
        [None, Some(Failed), Some(Failed), None, None, Some(Failed), None, None, None, None, None],
    );
}

#[test]
fn parking_by_the_holder() {
    check_every_state(
        |site, job, fence| record(job, fence, site.job(job).journal_length, &["b"], park(site.now.0 + 500)),
        [None, Some(Waiting), Some(Waiting), None, None, Some(Cancelled), None, None, None, None, None],
    );
}

#[test]
fn handing_back_by_the_holder() {
    check_every_state(
        |site, job, fence| record(job, fence, site.job(job).journal_length, &["b"], Next::HandBack),
        [None, Some(Queued), Some(Queued), None, None, Some(Cancelled), None, None, None, None, None],
    );
}

#[test]
fn loss_of_the_holder() {
    check_every_state(
        |_, job, fence| Action::Release { job, fence, cause: ReleaseCause::Lost },
        [None, Some(Queued), Some(Queued), None, None, Some(Cancelled), None, None, None, None, None],
    );
}

#[test]
fn an_event_from_outside() {
    check_every_state(
        |_, job, _| Action::Deliver { job, event: Content::inline("{}") },
        [
            Some(Queued),
            Some(Assigned),
            Some(Running),
            Some(Queued),
            Some(Suspended),
            Some(Stopping),
            None,
            None,
            None,
            None,
            None,
        ],
    );
}

#[test]
fn a_stop_leads_where_its_cause_says_however_the_holder_goes() {
    let causes = [
        (StopCause::Drain, Queued),
        (StopCause::Pause, Suspended),
        (StopCause::TimeOut, TimedOut),
        (StopCause::Cancel, Cancelled),
    ];
    for (cause, after) in causes {
        for release in [ReleaseCause::Lost, ReleaseCause::Gone, ReleaseCause::Stopped] {
            let mut site = TestSite::new();
            let (job, fence) = site.job_in(1, Running);
            site.must(Action::Stop { job, cause });
            let refusal = site.refused(Action::Assign { job, attempt: 1, session: session(2, 1) });
            assert_eq!(refusal, Refusal::WrongState { job, state: Stopping, wanted: Queued });
            site.must(Action::Release { job, fence, cause: release });
            assert_eq!(site.state(job), after, "{cause:?} {release:?}");
            check_consistency(&site.reader());
        }
    }
}

#[test]
fn a_graver_cause_takes_the_place_of_a_lighter_one_and_never_the_reverse() {
    let mut site = TestSite::new();
    let (job, _) = site.job_in(1, Running);
    for (cause, standing) in [
        (StopCause::Drain, StopCause::Drain),
        (StopCause::Pause, StopCause::Pause),
        (StopCause::Drain, StopCause::Pause),
        (StopCause::Cancel, StopCause::Cancel),
        (StopCause::Pause, StopCause::Cancel),
        (StopCause::TimeOut, StopCause::Cancel),
    ] {
        site.must(Action::Stop { job, cause });
        assert_eq!(site.job(job).stop, Some(standing));
    }
}

#[test]
fn resuming_while_the_pause_is_under_way_requeues_after_the_stop() {
    let mut site = TestSite::new();
    let (job, fence) = site.job_in(1, Running);
    site.must(Action::Stop { job, cause: StopCause::Pause });
    site.must(Action::Resume { job });
    assert_eq!(site.state(job), Stopping);
    site.must(Action::Release { job, fence, cause: ReleaseCause::Stopped });
    assert_eq!(site.state(job), Queued);
}

#[test]
fn submit_is_the_same_answer_for_the_same_content_and_a_conflict_for_other() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let again = Action::Submit(Box::new(submission(1)));
    assert_eq!(site.must(again.clone()), Outcome::Submitted { job, created: false });
    let mut newer = submission(1);
    newer.spec.interpreter = 2;
    newer.definition = None;
    assert_eq!(site.must(Action::Submit(Box::new(newer))), Outcome::Submitted { job, created: false });
    let mut others = [submission(1), submission(1), submission(1), submission(1)];
    others[0].input = Content::inline("[]");
    others[1].priority = 11;
    others[2].spec.tags = vec!["gpu".to_owned()];
    others[3].spec.definition = Digest::of(b"other");
    for other in others {
        assert_eq!(site.refused(Action::Submit(Box::new(other))), Refusal::JobConflict(job));
    }
    let fence = site.assign(job, 1, 1);
    site.must(record(job, fence, 0, &["a"], complete()));
    assert_eq!(site.must(again), Outcome::Submitted { job, created: false }, "also after its end");
    assert_eq!(site.row().counters.submitted, 1);
}

#[test]
fn definitions_are_stored_once_and_must_match_their_digest() {
    let mut site = TestSite::new();
    let digest = submission(1).spec.definition;
    let mut bare = submission(1);
    bare.definition = None;
    assert_eq!(site.refused(Action::Submit(Box::new(bare.clone()))), Refusal::DefinitionMissing(digest));
    let mut wrong = submission(1);
    wrong.definition = Some(Content::inline("{}"));
    assert_eq!(site.refused(Action::Submit(Box::new(wrong))), Refusal::DefinitionMismatch(digest));
    site.submit(2);
    site.must(Action::Submit(Box::new(bare)));
    assert_eq!(jobs::definition_uses(&site.reader(), digest).unwrap(), 2);
}

#[test]
fn a_blob_is_counted_once_for_each_row_that_names_it() {
    let mut site = TestSite::new();
    let digest = Digest::of(b"large");
    let blob = Content::Blob { digest, length: 40_000 };
    let mut large = submission(1);
    large.input = blob.clone();
    for _ in 0..2 {
        site.must(Action::Submit(Box::new(large.clone())));
    }
    assert_eq!(jobs::blob_uses(&site.reader(), digest).unwrap(), 1);
    let fence = site.assign(job_id(1), 1, 1);
    site.must(record(job_id(1), fence, 0, &[], Next::Complete { output: blob }));
    assert_eq!(jobs::blob_uses(&site.reader(), digest).unwrap(), 2);
}

#[test]
fn a_submit_for_another_site_is_refused() {
    let mut site = TestSite::new();
    let mut elsewhere = submission(1);
    elsewhere.spec.site = "plant-7".parse().unwrap();
    let refusal = site.refused(Action::Submit(Box::new(elsewhere)));
    assert_eq!(refusal, Refusal::SiteMismatch("plant-7".parse().unwrap()));
}

#[test]
fn the_fence_is_the_place_of_the_assignment_and_a_late_repeat_assigns_nothing() {
    let mut site = TestSite::new();
    let (one, two) = (site.submit(1), site.submit(2));
    let assign = |job| Action::Assign { job, attempt: 0, session: session(1, 1) };
    let commands = vec![site.command(assign(one)), site.command(assign(two))];
    let applied = site.commit(commands.clone());
    let fence = Fence::mint(1, site.index, 1);
    assert_eq!(applied[1].outcome, Outcome::Assigned { job: two, fence });
    let again = site.commit(commands.clone());
    assert_eq!(again[1].outcome, Outcome::Assigned { job: two, fence }, "a repeat gets the first answer");
    assert!(again[1].events.is_empty());
    site.must(Action::Release { job: two, fence, cause: ReleaseCause::Gone });
    let late = site.commit(commands);
    assert_eq!(late[1].outcome, Outcome::Refused(Refusal::AttemptPassed { job: two, attempt: 1 }));
    assert_eq!(site.state(two), Queued);
}

#[test]
fn assignments_are_refused_for_nodes_that_may_not_have_them() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let assign = |node| Action::Assign { job, attempt: 0, session: session(node, 1) };
    assert_eq!(site.refused(assign(9)), Refusal::NodeUnknown(node_id(9)));
    site.must(Action::DrainNode { node: node_id(2), deadline: None });
    assert_eq!(site.refused(assign(2)), Refusal::NodeDraining(node_id(2)));
    site.must(Action::RemoveNode { node: node_id(3) });
    assert_eq!(site.refused(assign(3)), Refusal::NodeRemoved(node_id(3)));
    site.must(Action::Hold { awaited: vec![node_id(1)] });
    assert_eq!(site.refused(assign(1)), Refusal::Held);
    let unknown = job_id(8);
    let refusal = site.refused(Action::Assign { job: unknown, attempt: 0, session: session(1, 1) });
    assert_eq!(refusal, Refusal::JobUnknown(unknown));
}

#[test]
fn records_come_once_in_order_and_only_from_the_holder() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let old = site.assign(job, 1, 1);
    site.must(record(job, old, 0, &["a"], Next::Continue));
    site.must(Action::Release { job, fence: old, cause: ReleaseCause::Lost });
    let stale = Refusal::StaleFence { job, presented: old };
    assert_eq!(site.refused(record(job, old, 1, &["b"], Next::Continue)), stale);
    assert_eq!(site.refused(record(job, old, 0, &["a"], Next::Continue)), stale);
    assert_eq!(site.refused(Action::Release { job, fence: old, cause: ReleaseCause::Lost }), stale);
    let fence = site.assign(job, 2, 1);
    assert_eq!(site.refused(record(job, old, 1, &["b"], complete())), stale);
    let gap = site.refused(record(job, fence, 2, &["c"], Next::Continue));
    assert_eq!(gap, Refusal::JournalGap { job, length: 1 });
    site.must(record(job, fence, 1, &["b"], Next::Continue));
    site.must(record(job, fence, 1, &["b", "c"], Next::Continue));
    let journal = jobs::journal(&site.reader(), job, 0, 10).unwrap();
    assert_eq!(journal, ["a", "b", "c"].map(journal_record));
    assert_eq!(jobs::journal(&site.reader(), job, 1, 1).unwrap(), [journal_record("b")]);
}

#[test]
fn the_repeat_of_a_holders_last_records_gets_the_same_answer() {
    for (next, state) in [(complete(), Completed), (park(99_000), Waiting), (Next::HandBack, Queued)] {
        let mut site = TestSite::new();
        let job = site.submit(1);
        let fence = site.assign(job, 1, 1);
        let last = record(job, fence, 0, &["a", "b"], next);
        assert_eq!(site.must(last.clone()), Outcome::Recorded { length: 2, state });
        let repeat = site.propose(last);
        assert_eq!(repeat.outcome, Outcome::Recorded { length: 2, state });
        assert!(repeat.events.is_empty());
        let more = site.refused(record(job, fence, 2, &["c"], Next::Continue));
        assert_eq!(more, Refusal::StaleFence { job, presented: fence });
    }
}

#[test]
fn what_the_group_appends_after_a_loss_is_not_taken_for_the_lost_holders_own() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let fence = site.assign(job, 1, 1);
    site.must(record(job, fence, 0, &["+/do/0", "+/do/1"], Next::Continue));
    site.must(Action::Release { job, fence, cause: ReleaseCause::Lost });
    assert_eq!(site.job(job).journal_length, 4);
    let late = site.refused(record(job, fence, 2, &["-/do/0", "-/do/1"], Next::Continue));
    assert_eq!(late, Refusal::StaleFence { job, presented: fence });
}

#[test]
fn effects_in_flight_are_journaled_as_lost_when_their_holder_goes() {
    for cause in [ReleaseCause::Lost, ReleaseCause::Gone, ReleaseCause::Stopped] {
        let mut site = TestSite::new();
        let job = site.submit(1);
        let fence = site.assign(job, 1, 1);
        site.must(record(job, fence, 0, &["+/do/0", "-/do/0", "+/do/1", "-/do/9"], Next::Continue));
        let applied = site.propose(Action::Release { job, fence, cause });
        let journal = jobs::journal(&site.reader(), job, 4, 10).unwrap();
        assert_eq!(journal, [JournalRecord::effect_lost("/do/1", site.now).unwrap()]);
        assert!(applied.events.contains(&Event::JournalAppended { job, from: 4, length: 5 }));
        assert!(site.job(job).in_flight.is_empty());
        check_consistency(&site.reader());
    }
}

#[test]
fn a_job_whose_robots_are_lost_too_often_is_dead_lettered_and_says_why() {
    let mut site = TestSite::new();
    let mut bounded = submission(1);
    bounded.spec.lost_max = 1;
    site.must(Action::Submit(Box::new(bounded)));
    let job = job_id(1);
    let first = site.assign(job, 1, 1);
    site.must(Action::Release { job, fence: first, cause: ReleaseCause::Gone });
    assert_eq!(site.job(job).lost, 0, "a robot that answers is not lost");
    let second = site.assign(job, 1, 1);
    site.must(Action::Release { job, fence: second, cause: ReleaseCause::Lost });
    let reason = Reason::RobotLost { node: node_id(1), lost: 1, lost_max: 1 };
    assert_eq!((site.state(job), site.job(job).reason), (Queued, Some(reason)));
    let third = site.assign(job, 2, 1);
    site.must(Action::Release { job, fence: third, cause: ReleaseCause::Lost });
    assert_eq!(site.state(job), JobState::DeadLettered);
    assert_eq!(site.job(job).reason, Some(Reason::LostTooOften { lost: 2, lost_max: 1 }));
    assert_eq!((site.job(job).attempt, site.row().counters.lost), (3, 2));
}

#[test]
fn parking_where_there_is_something_to_do_requeues_at_once() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let fence = site.assign(job, 1, 1);
    site.must(record(job, fence, 0, &[], park(site.now.0)));
    assert_eq!(site.state(job), Queued, "the timer is due");
    let fence = site.assign(job, 1, 1);
    site.must(Action::Deliver { job, event: Content::inline("{}") });
    site.must(record(job, fence, 0, &[], Next::Park { wake_at: None, inbox_read: 0 }));
    assert_eq!(site.state(job), Queued, "an event came that was not read");
    let fence = site.assign(job, 1, 1);
    site.must(record(job, fence, 0, &[], Next::Park { wake_at: None, inbox_read: 1 }));
    assert_eq!(site.state(job), Waiting);
    assert_eq!(site.job(job).reason, Some(Reason::EventAwaited));
    assert_eq!(jobs::inbox(&site.reader(), job, 0, 9).unwrap(), [Content::inline("{}")]);
}

#[test]
fn timers_fire_in_order_of_due_time_and_at_most_a_thousand_at_once() {
    let mut site = TestSite::new();
    let mut due_first = None;
    for number in 0..1_003_u32 {
        let mut submission = submission(0);
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        submission.job = fleet_core::JobId::from_bytes(bytes);
        let job = submission.job;
        site.must(Action::Submit(Box::new(submission)));
        let fence = site.assign(job, 1, 1);
        let due = if number == 1_002 { 1_000_000 } else { 2_000_000 + u64::from(number) };
        site.must(record(job, fence, 0, &[], park(due)));
        due_first = Some(job);
    }
    assert_eq!(queue::next_timer(&site.reader()).unwrap(), Some(Timestamp(1_000_000)));
    assert_eq!(site.must(Action::FireTimers), Outcome::Fired { jobs: 0, more: false });
    site.now = Timestamp(1_500_000);
    assert_eq!(site.must(Action::FireTimers), Outcome::Fired { jobs: 1, more: false });
    assert_eq!(site.state(due_first.unwrap()), Queued);
    site.now = Timestamp(2_000_000 + 1_000);
    assert_eq!(site.must(Action::FireTimers), Outcome::Fired { jobs: 1_000, more: true });
    assert_eq!(site.must(Action::FireTimers), Outcome::Fired { jobs: 2, more: false });
    check_consistency(&site.reader());
}

#[test]
fn a_stop_that_comes_twice_is_obeyed_once() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let pause = site.command(Action::Stop { job, cause: StopCause::Pause });
    let resume = site.command(Action::Resume { job });
    let deliver = site.command(Action::Deliver { job, event: Content::inline("{}") });
    let commands = vec![pause, resume, deliver];
    site.commit(commands.clone());
    let changed = Outcome::Changed { state: Queued };
    for applied in site.commit(commands) {
        assert_eq!(applied.outcome, changed);
        assert!(applied.events.is_empty());
    }
    assert_eq!(site.job(job).inbox_length, 1);
}

#[test]
fn a_journal_past_its_bound_fails_the_job() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let fence = site.assign(job, 1, 1);
    let mut large = journal_record("a");
    large.event = Content::Blob { digest: Digest::of(b"x"), length: JOURNAL_BYTES_MAX };
    let records = |from, records| {
        let next = Next::Continue;
        Action::Record(Box::new(fleet_replication::command::Records { job, fence, from, records, next }))
    };
    site.must(records(0, vec![large]));
    assert_eq!(site.state(job), Running, "exactly at the bound");
    site.must(records(1, vec![journal_record("b")]));
    assert_eq!(site.state(job), Failed);
    let Some(Ending::Error(Content::Inline(error))) = jobs::ending(&site.reader(), job).unwrap() else {
        panic!("no error");
    };
    assert!(String::from_utf8_lossy(error.as_slice()).contains("67108864 bytes"));
    check_consistency(&site.reader());
}

#[test]
fn an_absence_is_only_counted_on_and_ends_with_its_holder() {
    let mut site = TestSite::new();
    let (job, fence) = site.job_in(1, Running);
    let note = |fence, number, elapsed_ms| Action::NoteAbsence { job, fence, absence: Absence { number, elapsed_ms } };
    assert_eq!(site.must(note(fence, 1, 3_000)), Outcome::Done);
    assert_eq!(site.must(note(fence, 1, 2_000)), Outcome::Unchanged, "a late one");
    assert_eq!(site.must(note(fence, 2, 0)), Outcome::Done, "heard again");
    assert_eq!(site.must(note(fence, 1, 9_000)), Outcome::Unchanged, "late, after it was heard again");
    assert_eq!(site.job(job).absence, Absence { number: 2, elapsed_ms: 0 });
    assert!(site.propose(note(fence, 2, 1_000)).events.is_empty(), "nobody has to act on it");
    site.must(Action::Release { job, fence, cause: ReleaseCause::Lost });
    assert_eq!(site.refused(note(fence, 3, 0)), Refusal::StaleFence { job, presented: fence });
    site.assign(job, 2, 1);
    assert_eq!(site.job(job).absence, Absence::default());
}

#[test]
fn a_full_queue_refuses_submits_and_nothing_else() {
    let mut site = TestSite::new();
    let (known, fence) = site.job_in(1, Running);
    let fill = |row: fleet_store::record::Site| {
        move |state: &mut fleet_store::StateTransaction<'_>| state.put(&SITE, &(), &row)
    };
    let mut row = site.row();
    row.counters.jobs[0] = QUEUE_JOBS_MAX;
    site.store.apply(site.group, fill(row)).wait().unwrap();
    let refusal = site.refused(Action::Submit(Box::new(submission(2))));
    assert_eq!(refusal, Refusal::QueueFull(QUEUE_JOBS_MAX));
    assert_eq!(refusal.kind(), fleet_core::ErrorKind::ResourceExhausted);
    let repeat = site.must(Action::Submit(Box::new(submission(1))));
    assert_eq!(repeat, Outcome::Submitted { job: known, created: false }, "what was accepted is never refused");
    site.must(Action::Release { job: known, fence, cause: ReleaseCause::Lost });
    assert_eq!(site.state(known), Queued, "a lost job comes back whatever the bound");
}

#[test]
fn times_attempts_and_nodes_are_kept() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let created_at = site.now;
    let fence = site.assign(job, 2, 1);
    assert_eq!(site.job(job).started_at, None, "assigned is not started");
    site.must(record(job, fence, 0, &[], Next::Continue));
    let started_at = site.now;
    site.must(record(job, fence, 0, &["a"], complete()));
    let kept = site.job(job);
    assert_eq!((kept.created_at, kept.started_at), (created_at, Some(started_at)));
    assert_eq!((kept.ended_at, kept.attempt, kept.node), (Some(site.now), 1, Some(node_id(2))));
    let output = Ending::Output(Content::inline(r#"{"done":true}"#));
    assert_eq!(jobs::ending(&site.reader(), job).unwrap(), Some(output));
}

#[test]
fn events_tell_who_held_and_who_holds() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let fence = site.assign(job, 1, 1);
    let assignment = site.job(job).assignment;
    let applied = site.propose(record(job, fence, 0, &["a"], complete()));
    let appended = Event::JournalAppended { job, from: 0, length: 1 };
    let changed = Event::JobChanged {
        job,
        from: Some(Assigned),
        to: Completed,
        attempt: 1,
        assignment: None,
        released: assignment,
        settled: true,
        stop: None,
    };
    assert_eq!(applied.events, [appended, changed]);
}

#[test]
fn events_tell_whether_the_holder_itself_ended_the_job() {
    for (cause, by_holder) in [(ReleaseCause::Stopped, true), (ReleaseCause::Gone, false), (ReleaseCause::Lost, false)]
    {
        let mut site = TestSite::new();
        let job = site.submit(1);
        let fence = site.assign(job, 1, 1);
        site.must(Action::Stop { job, cause: StopCause::Cancel });
        let applied = site.propose(Action::Release { job, fence, cause });
        let Some(Event::JobChanged { to: Cancelled, released: Some(_), settled, .. }) = applied.events.last() else {
            panic!("{cause:?}: {:?}", applied.events);
        };
        assert_eq!(*settled, by_holder, "{cause:?}");
    }
    let mut site = TestSite::new();
    let job = site.submit(1);
    let applied = site.propose(Action::Stop { job, cause: StopCause::Cancel });
    assert!(matches!(applied.events[..], [Event::JobChanged { released: None, settled: false, .. }]));
}
