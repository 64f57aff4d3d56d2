//! Bytes of the commands and records of moves, kept for ever; see `encoding`.

use fleet_core::{GroupId, SiteName, Timestamp};
use fleet_replication::command::{Action, Arriving, Moving, Report};
use fleet_store::record::{
    Arrival, Content, Ending, Job, JobState, Mirror, Move, MoveWish, Origin, Outgoing, Peer, PeerSite, Reason, Serial,
    Standing, Verdict,
};

use crate::encoding::{check_commands, check_in};
use crate::test_site::{job_id, submission};

const COMMANDS: &str = include_str!("fixtures/batch-moves.txt");
const RECORDS: &str = include_str!("fixtures/records-moves.txt");

const SERIAL: Serial = Serial { epoch: 2, number: 300 };

fn group() -> GroupId {
    GroupId::from_bytes([5; 16])
}

fn site() -> SiteName {
    "plant-7".parse().unwrap()
}

fn peer() -> PeerSite {
    PeerSite { group: group(), site: site() }
}

fn standing() -> Standing {
    Standing {
        state: JobState::Completed,
        reason: "so".to_owned(),
        node: "press-7".to_owned(),
        attempt: 3,
        started_at: Some(Timestamp(2_000)),
        ended_at: Some(Timestamp(3_000)),
    }
}

#[test]
fn every_command_about_a_move_is_read_as_it_was_meant() {
    let (job, submission) = (job_id(1), || submission(1));
    let arriving =
        Arriving { source: peer(), number: SERIAL, generation: 1, created_at: Timestamp(9), submission: submission() };
    let report = Report {
        from: group(),
        serial: SERIAL,
        job,
        number: SERIAL,
        generation: 1,
        standing: standing(),
        ending: Some(Ending::Output(Content::inline("{}"))),
    };
    let because = || "no robot here".to_owned();
    let declined = || Verdict::Declined("no".to_owned());
    let (group, number, numbers) = (group(), SERIAL, vec![SERIAL]);
    let moving: Vec<(&'static str, Moving)> = vec![
        ("submit-to", Moving::SubmitTo { submission: Box::new(submission()), to: peer(), because: because() }),
        ("begin", Moving::Begin { job, generation: 0, to: peer(), because: because() }),
        ("settle", Moving::Settle { target: group, number, verdict: Verdict::Accepted }),
        ("recall", Moving::Recall { job, generation: 1 }),
        ("abandon", Moving::Abandon { job, generation: 1 }),
        ("report", Moving::Report(Box::new(report))),
        ("accept", Moving::Accept(Box::new(arriving))),
        ("decide", Moving::Decide { source: peer(), number, verdict: declined() }),
        ("decide-recalled", Moving::Decide { source: peer(), number, verdict: Verdict::Recalled }),
        ("settle-conflict", Moving::Settle { target: group, number, verdict: Verdict::Conflict }),
        ("pass", Moving::Pass { source: peer(), watermark: number }),
        ("stop-arrived", Moving::StopArrived { source: group, number, job }),
        ("obeyed", Moving::Obeyed { target: group, numbers: numbers.clone() }),
        ("acknowledge", Moving::Acknowledge { source: group, reports: numbers }),
    ];
    let actions = moving.into_iter().map(|(name, moving)| (name, Action::Moving(moving))).collect();
    check_commands(COMMANDS, actions, 6);
}

#[test]
fn every_record_of_a_move_is_read_as_it_was_meant() {
    let peer_row = Peer { moved: SERIAL, reported: SERIAL, passed: SERIAL, reports_refused: 7, ..Peer::new(site()) };
    let mirror = Mirror {
        number: 9,
        priority: 15,
        created_at: Timestamp(1),
        standing: standing(),
        heard: Some(SERIAL),
        ended_here: Some(Timestamp(6)),
    };
    let moved = Move {
        to: peer(),
        number: SERIAL,
        generation: 2,
        since: Timestamp(5),
        wish: Some(MoveWish::Cancel),
        mirror: Some(mirror),
    };
    check_in(RECORDS, "peer", &peer_row);
    check_in(RECORDS, "move", &moved);
    check_in(RECORDS, "move-recall", &Move { wish: Some(MoveWish::Recall), mirror: None, ..moved });
    check_in(RECORDS, "outgoing", &Outgoing { job: job_id(1) });
    check_in(RECORDS, "arrival", &Arrival { verdict: Verdict::Declined("no".to_owned()), at: Timestamp(7) });
    check_in(RECORDS, "origin", &Origin { number: SERIAL, generation: 2, pending: Some(SERIAL) });
    let reasons = [
        ("moving", Reason::Moving { site: site(), because: "so".to_owned() }),
        ("returned", Reason::Returned { site: site(), why: "no".to_owned() }),
        ("recalled", Reason::Recalled { site: site() }),
        ("abandoned", Reason::Abandoned { site: site() }),
    ];
    for (name, reason) in reasons {
        check_in(RECORDS, name, &Job { reason: Some(reason), ..Job::queued(1, 10, Timestamp(1)) });
    }
    assert_eq!(RECORDS.lines().count(), 10, "a fixture nobody reads");
}
