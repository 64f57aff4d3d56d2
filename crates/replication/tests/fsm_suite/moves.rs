//! A move, step by step: who may go, what each answer does, and what comes too late.

use fleet_core::Timestamp;
use fleet_core::limits::{OUTBOX_JOBS_MAX, QUEUE_JOBS_MAX};
use fleet_replication::command::{Action, LINKS_VERSION, Moving, Next, Outcome, Refusal};
use fleet_replication::fsm::{EntryPosition, apply};
use fleet_store::Store;
use fleet_store::record::{CommandId, Content, Ending, JobState, MoveWish, Reason, Serial, StopCause, Verdict};
use fleet_store::state::listing::{Filter, Found, Listed, find, list};
use fleet_store::state::tables::SITE;
use fleet_store::state::{jobs, moves, queue};

use crate::moves_world::{Message, World};
use crate::test_site::{check_consistency, job_id, park, record, submission};

fn world() -> World {
    World::new(Store::in_memory().unwrap(), 1)
}

/// The only message from one site to another.
fn only(world: &World, from: usize, to: usize) -> Message {
    let mut messages = world.outgoing(from, to);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

fn number(number: u64) -> Serial {
    Serial { epoch: 1, number }
}

#[test]
fn a_job_goes_runs_and_its_result_comes_back() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    assert_eq!(world.seen(0, job), Some(JobState::Transferring));
    assert!(queue::heads(&world.reader(0), None, 9).unwrap().is_empty(), "it is not in the queue");
    let message = only(&world, 0, 1);
    world.deliver(1, message.clone());
    assert_eq!(world.seen(1, job), Some(JobState::Queued));
    assert_eq!(world.seen(0, job), Some(JobState::Transferring), "its source has no answer yet");
    world.exchange_until_quiet();
    assert!(world.job(0, job).is_none() && world.seen(0, job) == Some(JobState::Queued));
    assert_eq!(jobs::spec(&world.reader(1), job).unwrap().unwrap().site, world.sites[1].site);
    world.assign(1, job);
    world.exchange_until_quiet();
    assert_eq!(world.seen(0, job), Some(JobState::Assigned));
    world.finish(1, job);
    world.exchange_until_quiet();
    let (_, mirror) = moves::mirror(&world.reader(0), job).unwrap().unwrap();
    assert_eq!((mirror.standing.state, mirror.standing.node.as_str()), (JobState::Completed, "node-1"));
    let ending = |site| jobs::ending(&world.reader(site), job).unwrap();
    assert!(matches!(ending(0), Some(Ending::Output(_))) && ending(0) == ending(1));
    assert_eq!(world.submit_to(0, 1, 1), job, "the same submit again is the same job");
    world.deliver(1, message);
    assert_eq!(world.seen(1, job), Some(JobState::Completed), "a late copy of the move starts nothing");
    (0..2).for_each(|site| check_consistency(&world.reader(site)));
}

#[test]
fn only_a_queued_job_that_nobody_held_goes_and_it_goes_once() {
    let mut world = world();
    let job = world.submit(0, 1);
    world.assign(0, job);
    let refusal = |outcome: Outcome| outcome.accepted().unwrap_err();
    assert!(matches!(refusal(world.begin(0, job, 1)), Refusal::WrongState { state: JobState::Assigned, .. }));
    let fence = world.job(0, job).unwrap().assignment.unwrap().fence;
    world.must(0, record(job, fence, 0, &["a"], Next::HandBack));
    assert_eq!(refusal(world.begin(0, job, 1)), Refusal::JobBegun(job), "its robot may have acted");
    world.must(0, Action::Stop { job, cause: StopCause::Pause });
    assert!(matches!(refusal(world.begin(0, job, 1)), Refusal::WrongState { state: JobState::Suspended, .. }));
    assert!(matches!(refusal(world.begin(0, job, 0)), Refusal::WrongState { .. } | Refusal::SiteOwn(_)));

    let other = world.submit(0, 2);
    world.begin(0, other, 1).accepted().unwrap();
    let first = world.committed.last().cloned().unwrap().1;
    world.exchange_until_quiet();
    let moved = refusal(world.begin(1, other, 2));
    assert_eq!(moved, Refusal::JobMovedHere(other), "there is no second hop");
    let abandon = Moving::Abandon { job: other, generation: 1 };
    world.must(0, abandon);
    world.commit(0, first).accepted().expect_err("a late repeat of the first move moves nothing");
    assert_eq!(world.seen(0, other), Some(JobState::Queued));
}

#[test]
fn what_the_target_can_never_run_is_queued_at_its_source_with_the_reason() {
    let mut world = world();
    world.unable[1] = true;
    let job = world.submit_to(0, 1, 1);
    world.exchange_until_quiet();
    let row = world.job(0, job).unwrap();
    let why = "no robot".to_owned();
    assert_eq!(row.reason, Some(Reason::Returned { site: world.sites[1].site.clone(), why }));
    assert_eq!((row.state, row.generation), (JobState::Queued, 1));
    assert_eq!(queue::heads(&world.reader(0), None, 9).unwrap().len(), 1);
    assert!(world.moved(0, job).is_none() && world.job(1, job).is_none());
    check_consistency(&world.reader(0));
}

#[test]
fn a_recall_wins_only_before_the_target_accepted() {
    let mut world = world();
    let (early, late) = (world.submit_to(0, 1, 1), world.submit_to(0, 2, 1));
    let moves = world.outgoing(0, 1);
    world.deliver(1, moves[1].clone());
    for job in [early, late] {
        world.recall(0, job);
        assert_eq!(world.seen(0, job), Some(JobState::Transferring), "its target alone decides");
    }
    world.exchange_until_quiet();
    assert_eq!(world.seen(0, early), Some(JobState::Queued));
    assert!(world.job(0, late).is_none() && world.seen(1, late) == Some(JobState::Queued));
    assert!(matches!(world.refused(0, Moving::Recall { job: late, generation: 1 }), Refusal::JobElsewhere { .. }));
    world.deliver(1, moves[0].clone());
    assert!(world.job(1, early).is_none(), "the move that was recalled comes late");
}

#[test]
fn a_cancel_ends_a_job_wherever_it_is() {
    let mut world = world();
    let (under_way, queued, held) = (world.submit_to(0, 1, 1), world.submit_to(0, 2, 1), world.submit_to(0, 3, 1));
    let moves = world.outgoing(0, 1);
    world.deliver(1, moves[1].clone());
    world.deliver(1, moves[2].clone());
    world.assign(1, held);
    [under_way, queued, held].into_iter().for_each(|job| world.cancel(0, job));
    assert_eq!(world.moved(0, under_way).unwrap().wish, Some(MoveWish::Cancel));
    world.exchange_until_quiet();
    assert_eq!(world.seen(0, under_way), Some(JobState::Cancelled));
    assert!(world.job(1, under_way).is_none());
    assert_eq!((world.seen(0, queued), world.seen(1, queued)), (Some(JobState::Cancelled), Some(JobState::Cancelled)));
    assert_eq!(world.seen(0, held), Some(JobState::Stopping), "its robot must stop first");
    let pause = world.refused(0, Action::Stop { job: held, cause: StopCause::Pause });
    assert!(matches!(pause, Refusal::JobElsewhere { .. }), "{pause}");
    check_consistency(&world.reader(0));
}

#[test]
fn a_source_that_was_recovered_and_sends_again_what_ran_is_told_how_it_ended() {
    let mut world = world();
    let (job, other) = (world.submit_to(0, 1, 1), world.submit_to(0, 2, 1));
    let Message::Move { arriving, .. } = world.outgoing(0, 1).remove(0) else { panic!("a move") };
    world.exchange_until_quiet();
    [job, other].into_iter().for_each(|job| {
        world.assign(1, job);
        world.finish(1, job);
    });
    world.exchange_until_quiet();
    let source = world.sites[0].group;
    let waiting = |world: &World| moves::reports(&world.reader(1), source, None, 9).unwrap();
    assert!(moves::peer(&world.reader(1), source).unwrap().unwrap().passed > arriving.number);
    assert_eq!(waiting(&world), [], "the source knows, and nothing of the move is kept");
    let passed = world.refused(1, Moving::Accept(arriving.clone()));
    assert_eq!(passed, Refusal::MovePassed(arriving.number), "as programs before this version have it");

    world.must(1, Action::Gate { version: LINKS_VERSION });
    assert_eq!(world.must(1, Moving::Accept(arriving.clone())), Outcome::Decided(Verdict::Accepted));
    assert_eq!(waiting(&world).iter().map(|(_, job)| *job).collect::<Vec<_>>(), [job]);
    assert_eq!(world.seen(1, job), Some(JobState::Completed), "and it does not run again");
    check_consistency(&world.reader(1));
    let mut unlike = arriving;
    unlike.submission.input = Content::inline("7");
    world.exchange_until_quiet();
    assert_eq!(world.refused(1, Moving::Accept(unlike.clone())), Refusal::MovePassed(unlike.number));
}

#[test]
fn a_full_target_decides_nothing_and_takes_the_job_later() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    let full = |world: &World, queued: u64| {
        let group = world.sites[1].group;
        let work = world.store.apply(group, move |state| {
            let mut site = jobs::site(state)?;
            site.counters.jobs[0] = queued;
            state.put(&SITE, &(), &site)
        });
        work.wait().unwrap();
    };
    full(&world, QUEUE_JOBS_MAX);
    let message = only(&world, 0, 1);
    world.deliver(1, message.clone());
    assert!(world.in_flight.is_empty() && world.job(1, job).is_none());
    full(&world, 0);
    world.deliver(1, message);
    assert_eq!(world.seen(1, job), Some(JobState::Queued));
}

#[test]
fn the_outbox_is_bounded() {
    let mut world = world();
    let accepted = world.submit_to(0, 3, 1);
    let group = world.sites[0].group;
    let fill = world.store.apply(group, |state| {
        let mut site = jobs::site(state)?;
        site.counters.jobs[usize::from(JobState::Transferring.number())] = OUTBOX_JOBS_MAX;
        state.put(&SITE, &(), &site)
    });
    fill.wait().unwrap();
    let job = world.submit(0, 1);
    assert_eq!(world.begin(0, job, 1), Outcome::Refused(Refusal::OutboxFull(OUTBOX_JOBS_MAX)));
    let mut submission = Box::new(submission(2));
    submission.spec.site = world.sites[0].site.clone();
    let submit = Moving::SubmitTo { submission, to: world.sites[1].clone(), because: String::new() };
    assert_eq!(world.refused(0, submit), Refusal::OutboxFull(OUTBOX_JOBS_MAX));
    assert_eq!(world.submit_to(0, 3, 1), accepted, "what was accepted needs no room");
}

#[test]
fn what_breaks_a_bound_is_not_taken_over_and_no_job_is_older_than_its_clock() {
    let mut world = world();
    world.submit_to(0, 1, 1);
    let Message::Move { arriving, .. } = only(&world, 0, 1) else { panic!("a move") };
    let mut cases = [(); 3].map(|()| arriving.clone());
    cases[0].generation = 0;
    cases[1].submission.priority = 21;
    cases[2].submission.spec.finish_within_ms = Some(86_400_001);
    for (position, mut arriving) in cases.into_iter().enumerate() {
        arriving.number = number(50 + position as u64);
        let outcome = world.must(1, Moving::Accept(arriving.clone()));
        assert!(matches!(outcome, Outcome::Decided(Verdict::Declined(_))), "{arriving:?}: {outcome:?}");
        assert!(world.job(1, job_id(1)).is_none());
    }
    let mut arriving = arriving;
    arriving.created_at = Timestamp(u64::MAX);
    arriving.submission.priority = 20;
    arriving.submission.spec.finish_within_ms = Some(86_400_000);
    assert_eq!(world.must(1, Moving::Accept(arriving)), Outcome::Decided(Verdict::Accepted));
    assert_eq!(world.job(1, job_id(1)).unwrap().created_at, Timestamp(world.now));
}

#[test]
fn a_forgotten_job_leaves_nothing_to_be_reported() {
    let mut world = world();
    world.submit_to(0, 1, 1);
    let Message::Move { mut arriving, .. } = only(&world, 0, 1) else { panic!("a move") };
    let job = world.submit(1, 1);
    arriving.generation = 0;
    assert_eq!(world.must(1, Moving::Accept(arriving)), Outcome::Decided(Verdict::Accepted));
    world.assign(1, job);
    world.finish(1, job);
    let before = Timestamp(world.now + 1);
    assert_eq!(world.must(1, Action::Forget { before }), Outcome::Forgotten { jobs: 1, more: false });
    assert!(world.outgoing(1, 0).is_empty());
    check_consistency(&world.reader(1));
}

#[test]
fn a_mirror_is_kept_from_when_its_end_was_heard_whatever_the_other_clock_says() {
    for ended_at in [0, u64::MAX] {
        let mut world = world();
        let job = world.submit_to(0, 1, 1);
        world.exchange_until_quiet();
        world.assign(1, job);
        world.finish(1, job);
        let Message::Report(mut report) = only(&world, 1, 0) else { panic!("a report") };
        report.standing.ended_at = Some(Timestamp(ended_at));
        let heard_from = world.now;
        world.deliver(0, Message::Report(report));
        let forget = |world: &mut World, before| world.must(0, Action::Forget { before: Timestamp(before) });
        assert_eq!(forget(&mut world, heard_from), Outcome::Forgotten { jobs: 0, more: false });
        let now = world.now;
        assert_eq!(forget(&mut world, now), Outcome::Forgotten { jobs: 1, more: false });
    }
}

#[test]
fn what_was_decided_is_kept_until_the_source_passed_it_and_refused_after_that() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    let message = only(&world, 0, 1);
    world.deliver(1, message.clone());
    world.now += 1_000_000_000;
    world.deliver(1, message.clone());
    let group = world.sites[0].group;
    assert!(moves::arrival(&world.reader(1), group, number(1)).unwrap().is_some(), "time alone forgets nothing");
    world.exchange_until_quiet();
    assert!(moves::arrival(&world.reader(1), group, number(1)).unwrap().is_none());
    assert_eq!(moves::peer(&world.reader(1), group).unwrap().unwrap().passed, number(2));
    world.assign(1, job);
    world.finish(1, job);
    world.exchange_until_quiet();
    let before = Timestamp(world.now + 1);
    world.must(1, Action::Forget { before });
    assert!(world.job(1, job).is_none());
    world.deliver(1, message);
    assert!(world.job(1, job).is_none(), "a copy of the move from long ago must not run the job again");
}

#[test]
fn an_ended_job_is_kept_until_its_source_knows_and_a_mirror_goes_as_other_ended_jobs_do() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    world.exchange_until_quiet();
    world.assign(1, job);
    world.finish(1, job);
    let forget = |world: &mut World, site| {
        let before = Timestamp(world.now + 1);
        world.must(site, Action::Forget { before })
    };
    assert_eq!(forget(&mut world, 1), Outcome::Forgotten { jobs: 0, more: false });
    world.exchange_until_quiet();
    for site in [1, 0] {
        assert_eq!(forget(&mut world, site), Outcome::Forgotten { jobs: 1, more: false });
        assert_eq!(world.seen(site, job), None);
        check_consistency(&world.reader(site));
    }
    assert_eq!(jobs::definition_uses(&world.reader(0), submission(1).spec.definition).unwrap(), 0);
}

#[test]
fn a_site_that_was_given_up_is_not_believed_any_more() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    world.exchange_until_quiet();
    world.assign(1, job);
    world.abandon(0, job);
    let row = world.job(0, job).unwrap();
    assert_eq!((row.state, row.generation), (JobState::Queued, 2));
    world.finish(1, job);
    world.assign(0, job);
    world.exchange_until_quiet();
    assert_eq!(world.seen(0, job), Some(JobState::Assigned), "the result of a lower generation changes nothing");
    let group = world.sites[1].group;
    assert!(moves::peer(&world.reader(0), group).unwrap().unwrap().reports_refused >= 1, "but it is counted");
    assert!(
        moves::reports(&world.reader(1), world.sites[0].group, None, 9).unwrap().is_empty(),
        "and not sent for ever"
    );
    assert!(matches!(world.refused(0, Moving::Abandon { job, generation: 1 }), Refusal::JobNotMoving(_)));
    check_consistency(&world.reader(0));
}

#[test]
fn a_job_that_both_sites_were_given_under_one_key_runs_once_and_one_of_other_content_fails() {
    let mut world = world();
    let same = world.submit(1, 1);
    assert_eq!(world.submit_to(0, 1, 1), same);
    world.exchange_until_quiet();
    assert!(world.job(0, same).is_none(), "it is the target's");
    world.assign(1, same);
    world.finish(1, same);
    let mut other = submission(2);
    other.spec.site = world.sites[1].site.clone();
    other.input = Content::inline("[]");
    world.must(1, Action::Submit(Box::new(other)));
    let differs = world.submit_to(0, 2, 1);
    world.exchange_until_quiet();
    assert_eq!(world.seen(0, same), Some(JobState::Completed));
    assert_eq!(world.seen(0, differs), Some(JobState::Failed));
    assert!(matches!(jobs::ending(&world.reader(0), differs).unwrap(), Some(Ending::Error(_))));
    assert_eq!(world.seen(1, differs), Some(JobState::Queued));
}

#[test]
fn moved_jobs_are_listed_and_found_among_the_others() {
    let mut world = world();
    let (gone, here, under_way) = (world.submit_to(0, 1, 1), world.submit(0, 2), job_id(3));
    world.exchange_until_quiet();
    world.submit_to(0, 3, 1);
    let page = list(&world.reader(0), &Filter::default(), None, 9).unwrap();
    assert_eq!(page.jobs.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [under_way, here, gone]);
    assert!(matches!(page.jobs[2].1, Listed::Elsewhere(..)) && matches!(page.jobs[0].1, Listed::Here(_)));
    let filter = Filter { states: vec![JobState::Transferring], ..Filter::default() };
    assert_eq!(list(&world.reader(0), &filter, None, 9).unwrap().jobs.len(), 1);
    for job in [gone, here, under_way] {
        assert_eq!(find(&world.reader(0), &job.to_string()).unwrap(), Found::One(job));
    }
    assert_eq!(queue::heads(&world.reader(0), None, 9).unwrap().len(), 1);
}

#[test]
fn a_report_of_a_lower_generation_is_refused_also_when_the_job_went_to_the_same_site_again() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    world.exchange_until_quiet();
    world.assign(1, job);
    let older = only(&world, 1, 0);
    world.abandon(0, job);
    world.begin(0, job, 1).accepted().unwrap();
    let again = only(&world, 0, 1);
    world.deliver(1, again);
    let (to, answer) = world.in_flight.remove(0);
    world.deliver(to, answer);
    assert_eq!(world.seen(0, job), Some(JobState::Queued), "it is there again, and nothing was heard of it yet");
    world.deliver(0, older);
    assert_eq!(world.seen(0, job), Some(JobState::Queued));
    let group = world.sites[1].group;
    assert_eq!(moves::peer(&world.reader(0), group).unwrap().unwrap().reports_refused, 1);
}

#[test]
fn an_older_report_that_comes_late_changes_nothing() {
    let mut world = world();
    let job = world.submit_to(0, 1, 1);
    world.exchange_until_quiet();
    world.assign(1, job);
    let older = only(&world, 1, 0);
    let fence = world.job(1, job).unwrap().assignment.unwrap().fence;
    world.must(1, record(job, fence, 0, &["a"], Next::Continue));
    world.exchange_until_quiet();
    assert_eq!(world.seen(0, job), Some(JobState::Running));
    world.deliver(0, older);
    assert_eq!(world.seen(0, job), Some(JobState::Running));
}

#[test]
fn a_recovered_source_uses_no_number_twice() {
    let mut world = world();
    let group = world.sites[0].group;
    world.submit_to(0, 1, 1);
    world.submit_to(0, 2, 1);
    let job = world.submit(0, 3);
    let (to, because) = (world.sites[1].clone(), String::new());
    let action = Moving::Begin { job, generation: 0, to, because }.into();
    let command = fleet_replication::command::Command { id: CommandId(99), at: Timestamp(5), action };
    let entry = EntryPosition { epoch: 2, term: 1, index: 1 };
    world.store.apply(group, move |state| apply(state, entry, &[command])).wait().unwrap();
    let target = world.sites[1].group;
    let numbers: Vec<_> = moves::outbox(&world.reader(0), target, None, 9).unwrap();
    assert_eq!(numbers.last().unwrap().0, Serial { epoch: 2, number: 3 });
    assert_eq!(moves::watermark(&world.reader(0), target).unwrap(), number(1));
}

#[test]
fn nobody_accepts_a_move_without_its_job_and_a_parked_one_stays() {
    let mut world = world();
    let source = world.sites[0].clone();
    let decide = Moving::Decide { source, number: number(1), verdict: Verdict::Accepted };
    assert_eq!(world.refused(1, decide), Refusal::MoveEmpty(number(1)));
    let job = world.submit(0, 1);
    world.assign(0, job);
    let fence = world.job(0, job).unwrap().assignment.unwrap().fence;
    world.must(0, record(job, fence, 0, &["a"], park(u64::MAX)));
    assert!(matches!(world.begin(0, job, 1), Outcome::Refused(Refusal::WrongState { .. })));
}
