//! The course by example.

use fleet_workflow::machine::effect::{HttpOutput, HttpRequest};
use fleet_workflow::machine::event::Outcome;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);
/// When a first word waits no longer.
const LATER: Timestamp = Timestamp(NOW.0 + 20);

fn course(journal_len: u32) -> Course {
    Course::new(NodeId::from_bytes([1; 16]), JobId::from_bytes([7; 16]), Fence::mint(1, 5, 0), journal_len)
}

fn path(text: &str) -> EffectPath {
    EffectPath(text.to_owned())
}

/// Starts a request at `text`.
pub(in super::super) fn start(text: &str, on_lost: OnLost) -> Command {
    let request = HttpRequest {
        method: "GET".to_owned(),
        uri: "http://127.0.0.1/".to_owned(),
        headers: Vec::new(),
        query: Vec::new(),
        body: None,
        output: HttpOutput::Content,
        redirect: false,
        authentication: None,
    };
    let effect = Effect::Http(request);
    Command::Start { path: path(text), task: "/do/0".to_owned(), effect, on_lost, deadline_ms: None }
}

fn ended(text: &str) -> Event {
    Event::EffectEnded {
        path: path(text),
        started_ms: NOW.0,
        at_ms: NOW.0,
        outcome: Outcome::Ok(serde_json::Value::Null),
        stdout_tail: String::new(),
        stderr_tail: String::new(),
    }
}

impl Course {
    fn happened(&mut self, event: &Event) -> Result<(), Error> {
        let record = self.record(event)?;
        self.write(event, record);
        Ok(())
    }
}

/// Paths of the effects that `acts` start, and the batch they send.
fn split(acts: Vec<Act>) -> (Vec<String>, Option<Records>) {
    let (mut starts, mut sent) = (Vec::new(), None);
    for act in acts {
        match act {
            Act::Start(start) => starts.push(start.path.0),
            Act::Send(records) => sent = Some(*records),
            Act::BreakOff(_) | Act::Secure { .. } => {}
        }
    }
    (starts, sent)
}

#[test]
fn the_first_effect_waits_for_no_commit_the_next_for_the_result_before_it() {
    let mut course = course(0);
    course.happened(&Event::Started { at_ms: NOW.0 }).unwrap();
    course.asked(vec![start("a", OnLost::Retry)]).unwrap();
    assert_eq!(split(course.next(NOW).unwrap()), (vec!["a".to_owned()], None));
    assert_eq!(split(course.next(LATER).unwrap()).1.unwrap().records.len(), 1);
    course.committed(1);
    course.happened(&ended("a")).unwrap();
    course.asked(vec![start("b", OnLost::Retry)]).unwrap();
    let (starts, sent) = split(course.next(LATER).unwrap());
    assert!(starts.is_empty(), "the result of a is not committed");
    assert_eq!(sent.unwrap().from, 1);
    course.committed(2);
    assert_eq!(split(course.next(NOW).unwrap()).0, ["b"]);
}

#[test]
fn one_batch_is_under_way_and_what_happens_meanwhile_rides_with_the_next() {
    let mut course = course(0);
    course.happened(&Event::Started { at_ms: NOW.0 }).unwrap();
    course.asked(vec![start("a", OnLost::Retry), start("b", OnLost::Retry)]).unwrap();
    split(course.next(NOW).unwrap());
    assert_eq!(split(course.next(LATER).unwrap()).1.unwrap().records.len(), 1);
    course.happened(&ended("a")).unwrap();
    course.happened(&ended("b")).unwrap();
    assert_eq!(split(course.next(NOW).unwrap()).1, None, "a batch is under way");
    course.asked(vec![Command::Complete { output: serde_json::Value::Null }]).unwrap();
    course.committed(1);
    let last = split(course.next(NOW).unwrap()).1.unwrap();
    assert_eq!((last.from, last.records.len()), (1, 2));
    assert!(matches!(last.next, Next::Complete { .. }));
    assert!(course.has_left() && split(course.next(NOW).unwrap()).1.is_none());
}

#[test]
fn results_that_do_not_fit_into_one_entry_go_in_several_batches_and_the_end_goes_last() {
    let mut course = course(0);
    course.happened(&Event::Started { at_ms: NOW.0 }).unwrap();
    let names = ["a", "b", "c", "d", "e"];
    course.asked(names.map(|name| start(name, OnLost::Retry)).to_vec()).unwrap();
    split(course.next(NOW).unwrap());
    split(course.next(LATER).unwrap());
    for name in names {
        let Event::EffectEnded { path, started_ms, at_ms, stdout_tail, stderr_tail, .. } = ended(name) else {
            panic!()
        };
        let outcome = Outcome::Ok(serde_json::Value::String("x".repeat(28 * 1024)));
        course.happened(&Event::EffectEnded { path, started_ms, at_ms, outcome, stdout_tail, stderr_tail }).unwrap();
    }
    course.asked(vec![Command::Complete { output: serde_json::Value::Null }]).unwrap();
    course.committed(1);
    let mut committed = 1;
    let mut batches = Vec::new();
    while let Some(batch) = split(course.next(NOW).unwrap()).1 {
        let bytes: u64 = batch.records.iter().map(|record| record.event.length()).sum();
        assert!(bytes <= fleet_core::limits::ENTRY_BYTES_MAX as u64 / 2, "{bytes} bytes in one batch");
        assert_eq!(batch.from, committed);
        committed += u32::try_from(batch.records.len()).unwrap();
        batches.push(batch.next);
        course.committed(committed);
    }
    assert_eq!(committed, 6, "every record is sent once");
    let (last, before) = batches.split_last().unwrap();
    assert!(matches!(last, Next::Complete { .. }) && before.iter().all(|next| *next == Next::Continue));
}

#[test]
fn long_paths_count_for_what_a_batch_holds() {
    let mut course = course(1);
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| name.repeat(24 * 1024));
    course.asked(names.iter().map(|name| start(name, OnLost::Retry)).collect()).unwrap();
    split(course.next(NOW).unwrap());
    for name in &names {
        course.happened(&ended(name)).unwrap();
    }
    let mut sent = 0;
    while let Some(batch) = split(course.next(NOW).unwrap()).1.filter(|batch| !batch.records.is_empty()) {
        let bytes = postcard::to_allocvec(&batch).unwrap().len();
        assert!(bytes <= fleet_core::limits::ENTRY_BYTES_MAX / 2 + 1024, "{bytes} bytes in one batch");
        sent += batch.records.len();
        course.committed(1 + u32::try_from(sent).unwrap());
    }
    assert_eq!(sent, names.len());
}

#[test]
fn an_effect_that_must_not_run_twice_has_its_start_committed_first() {
    let mut first = course(1);
    first.asked(vec![start("a", OnLost::Fail)]).unwrap();
    let (starts, sent) = split(first.next(NOW).unwrap());
    assert!(starts.is_empty());
    assert_eq!(sent.unwrap().records.len(), 1);
    first.committed(2);
    assert_eq!(split(first.next(NOW).unwrap()).0, ["a"]);

    let mut again = course(2);
    again.asked(vec![start("a", OnLost::Fail)]).unwrap();
    again.replayed(&Event::EffectStarted { path: path("a"), at_ms: NOW.0 });
    assert_eq!(again.lost_before(), [path("a")], "nobody knows what came of it");
}

#[test]
fn replayed_results_leave_only_what_is_outstanding() {
    let mut course = course(2);
    course.asked(vec![start("a", OnLost::Retry), start("b", OnLost::Retry)]).unwrap();
    course.replayed(&ended("a"));
    assert_eq!(split(course.next(NOW).unwrap()).0, ["b"]);
}

#[test]
fn a_job_that_goes_on_here_says_so_once_and_its_effect_waits_for_nothing() {
    let mut course = course(2);
    course.asked(vec![start("a", OnLost::Retry)]).unwrap();
    course.announce();
    assert_eq!(split(course.next(NOW).unwrap()), (vec!["a".to_owned()], None));
    let sent = split(course.next(LATER).unwrap()).1.unwrap();
    assert_eq!((sent.from, sent.records.len(), sent.next), (2, 0, Next::Continue));
    course.committed(2);
    assert_eq!(split(course.next(LATER).unwrap()).1, None);
}

#[test]
fn a_first_word_rides_with_what_comes_soon_and_with_nothing_else() {
    let begun = || {
        let mut course = course(0);
        course.happened(&Event::Started { at_ms: NOW.0 }).unwrap();
        course.asked(vec![start("a", OnLost::Retry)]).unwrap();
        assert_eq!(split(course.next(NOW).unwrap()), (vec!["a".to_owned()], None));
        assert_eq!(course.next_look(), Some(LATER));
        course
    };
    let sent =
        |course: &mut Course, now: u64| split(course.next(Timestamp(now)).unwrap()).1.map(|sent| sent.records.len());

    let mut quick = begun();
    quick.happened(&ended("a")).unwrap();
    quick.asked(vec![start("b", OnLost::Retry)]).unwrap();
    assert_eq!((sent(&mut quick, NOW.0 + 1), quick.next_look()), (Some(2), None));

    let mut slow = begun();
    assert_eq!(sent(&mut slow, LATER.0 - 1), None);
    assert_eq!((sent(&mut slow, LATER.0), slow.next_look()), (Some(1), None));

    let mut set_back = begun();
    assert_eq!(sent(&mut set_back, NOW.0 - 60_000), Some(1), "by a clock that was set back");

    let mut stopped = begun();
    stopped.stop(StopCause::Pause);
    assert_eq!((sent(&mut stopped, NOW.0), stopped.next_look()), (Some(1), None));

    let mut once = course(0);
    once.happened(&Event::Started { at_ms: NOW.0 }).unwrap();
    once.asked(vec![start("a", OnLost::Fail)]).unwrap();
    assert_eq!((sent(&mut once, NOW.0), once.next_look()), (Some(2), None), "an effect waits for it");
}

#[test]
fn a_long_wait_parks_a_short_one_does_not() {
    for (wait_ms, parks) in [(100, false), (10_000, true)] {
        let mut course = course(1);
        course.asked(vec![Command::SetTimer { path: path("w"), due_ms: NOW.0 + wait_ms }]).unwrap();
        let sent = split(course.next(NOW).unwrap()).1;
        assert_eq!(sent.is_some_and(|records| matches!(records.next, Next::Park { .. })), parks);
        assert_eq!(course.due_timers(Timestamp(NOW.0 + wait_ms)).len(), usize::from(!parks), "{wait_ms} ms");
    }
}

#[test]
fn a_pause_lets_running_effects_end_and_starts_none() {
    let mut course = course(1);
    course.asked(vec![start("a", OnLost::Retry)]).unwrap();
    split(course.next(NOW).unwrap());
    assert!(!course.stop(StopCause::Pause), "what runs may end");
    course.happened(&ended("a")).unwrap();
    course.asked(vec![start("b", OnLost::Retry)]).unwrap();
    let (starts, sent) = split(course.next(NOW).unwrap());
    assert!(starts.is_empty());
    let sent = sent.unwrap();
    assert_eq!((sent.records.len(), sent.next), (1, Next::HandBack));
}

#[test]
fn what_the_journal_says_begins_does_so_despite_a_pause_and_is_not_lost() {
    // Paused while the start is under way to the journal, and once it is committed but nothing was told to begin.
    for is_committed in [false, true] {
        let mut course = course(1);
        course.asked(vec![start("a", OnLost::Fail), start("b", OnLost::Retry)]).unwrap();
        course.gate = 2;
        course.asked(vec![start("c", OnLost::Fail)]).unwrap();
        let (starts, sent) = split(course.next(NOW).unwrap());
        assert_eq!((starts, sent.unwrap().records.len()), (vec!["b".to_owned()], 1));
        if is_committed {
            course.committed(2);
        }
        assert!(!course.stop(StopCause::Pause));
        course.committed(2);
        let (starts, sent) = split(course.next(NOW).unwrap());
        assert_eq!((starts, sent), (vec!["a".to_owned()], None), "`c` is not journaled yet");
        course.happened(&ended("b")).unwrap();
        assert_eq!(split(course.next(NOW).unwrap()).1.unwrap().next, Next::Continue, "`a` runs still");
        course.committed(3);
        course.happened(&ended("a")).unwrap();
        assert_eq!(split(course.next(NOW).unwrap()).1.unwrap().next, Next::HandBack);
    }
}

/// The leader may take a word of an execution for a moment after its lease has ended: that word must not be that the job
/// waits for something.
#[test]
fn an_effect_that_ends_with_its_lease_neither_parks_the_job_nor_hands_it_back() {
    let mut course = course(1);
    course.asked(vec![start("a", OnLost::Retry)]).unwrap();
    split(course.next(NOW).unwrap());
    course.broke_off(&path("a"));
    assert_eq!(course.next(NOW).unwrap(), [], "nothing came of it, and an abort is on its way");
}

#[test]
fn a_drain_does_not_wait_for_what_did_not_begin() {
    let mut course = course(1);
    course.asked(vec![start("a", OnLost::Fail)]).unwrap();
    split(course.next(NOW).unwrap());
    assert!(course.stop(StopCause::Drain));
    course.committed(2);
    let (starts, sent) = split(course.next(NOW).unwrap());
    assert_eq!((starts.len(), sent.unwrap().next), (0, Next::HandBack));
}

#[test]
fn a_cancel_breaks_off_what_runs_and_hands_back_when_it_is_over() {
    let mut course = course(1);
    course.asked(vec![start("a", OnLost::Retry)]).unwrap();
    split(course.next(NOW).unwrap());
    assert!(course.stop(StopCause::Cancel));
    assert_eq!(split(course.next(NOW).unwrap()).1, None, "something of it still runs");
    course.broke_off(&path("a"));
    assert_eq!(split(course.next(NOW).unwrap()).1.unwrap().next, Next::HandBack);
}

/// Where what is to be written down begins, and how many records it has.
fn to_secure(acts: &[Act]) -> Option<(u32, usize)> {
    acts.iter().find_map(|act| match act {
        Act::Secure { from, records } => Some((*from, records.len())),
        _ => None,
    })
}

/// A course that is cut off with its second effect under way: the first result is on its way up, the start is committed.
fn cut_off() -> Course {
    let mut course = course(1);
    course.asked(vec![start("a", OnLost::Retry)]).unwrap();
    course.next(LATER).unwrap();
    course.happened(&ended("a")).unwrap();
    course.asked(vec![start("b", OnLost::Retry)]).unwrap();
    let acts = course.next(LATER).unwrap();
    assert_eq!(to_secure(&acts), None, "while the group can be asked, nothing is written down here");
    assert!(split(acts).1.is_some());
    course.cut_off();
    course
}

#[test]
fn cut_off_an_effect_waits_for_this_robots_disk_instead_of_a_commit() {
    let mut course = cut_off();
    let acts = course.next(NOW).unwrap();
    assert_eq!(to_secure(&acts), Some((1, 1)), "what was sent and not committed, too");
    assert!(split(acts).0.is_empty(), "not before it is on the disk");
    assert_eq!(to_secure(&course.next(NOW).unwrap()), None, "one write at a time");
    course.secured();
    assert_eq!(split(course.next(NOW).unwrap()).0, ["b"]);
    course.happened(&ended("b")).unwrap();
    assert_eq!(to_secure(&course.next(NOW).unwrap()), Some((2, 1)), "only what is new");
}

#[test]
fn back_again_everything_goes_up_in_order_and_effects_wait_for_commits() {
    let mut course = cut_off();
    course.next(NOW).unwrap();
    course.secured();
    course.next(NOW).unwrap();
    course.happened(&ended("b")).unwrap();
    course.asked(vec![start("c", OnLost::Retry)]).unwrap();
    course.next(NOW).unwrap();
    course.secured();
    assert_eq!(split(course.next(NOW).unwrap()).0, ["c"]);
    course.rejoined();
    course.happened(&ended("c")).unwrap();
    course.asked(vec![start("d", OnLost::Retry)]).unwrap();
    assert_eq!(split(course.next(NOW).unwrap()), (vec![], None), "the first batch is still unanswered");
    course.committed(2);
    let (starts, sent) = split(course.next(NOW).unwrap());
    let sent = sent.unwrap();
    assert_eq!((starts.len(), sent.from, sent.records.len()), (0, 2, 2));
    assert!(!course.has_delivered(), "the group does not have all of it");
    course.committed(4);
    assert!(course.has_delivered());
    assert_eq!(split(course.next(NOW).unwrap()).0, ["d"]);
}

#[test]
fn cut_off_a_job_waits_for_its_timers_here_and_does_not_park() {
    let mut course = course(1);
    course.cut_off();
    course.asked(vec![Command::SetTimer { path: path("w"), due_ms: NOW.0 + 60_000 }]).unwrap();
    assert_eq!(split(course.next(NOW).unwrap()).1, None);
    assert_eq!(course.due_timers(Timestamp(NOW.0 + 60_000)), [path("w")]);
    course.rejoined();
    assert!(matches!(split(course.next(NOW).unwrap()).1.unwrap().next, Next::Park { .. }));
}
