//! Two ends of a link with nothing between them but frames: who asks whom, bounds, order, ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fleet_core::{Error, ErrorKind, GroupId, NodeId, SiteName, Timestamp};
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::driver::{LinkEvents, SiteLink, serve};
use super::frame::{FRAME_BYTES_MAX, Frame, GossipPacket, Hello, Part, SiteReport};
use super::protocol::{CALLS_MAX, Command, KEEP_ALIVE, MESSAGE_BYTES_MAX, Protocol, SILENCE_MAX, STALLED_MAX};
use super::window::{WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::ports::SiteTopic;

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn hello(name: &str) -> Hello {
    Hello {
        version: super::LINK_VERSION,
        site: site(name),
        node: NodeId::from_bytes([1; 16]),
        group: GroupId::from_bytes([2; 16]),
        epoch: 1,
        term: 1,
        at: Timestamp(0),
    }
}

const fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn packet(number: usize) -> GossipPacket {
    let address = "127.0.0.1:1".parse().unwrap();
    GossipPacket { from: address, to: address, sealed: Payload::from(number.to_be_bytes().to_vec()) }
}

/// Two ends whose hellos were exchanged.
fn opened(now: Duration) -> (Protocol, Protocol) {
    let mut north = Protocol::new(now, hello("north"), site("south"));
    let mut south = Protocol::new(now, hello("south"), site("north"));
    let commands = pass(now, &mut north, &mut south);
    assert!(matches!(commands.as_slice(), [Command::Opened(peer)] if peer.site == site("north")));
    assert!(matches!(pass(now, &mut south, &mut north).as_slice(), [Command::Opened(_)]));
    (north, south)
}

/// Brings every frame that `from` may send to `to`, encoded and decoded.
fn pass(now: Duration, from: &mut Protocol, to: &mut Protocol) -> Vec<Command> {
    let mut commands = Vec::new();
    while let Some(frame) = from.next_frame(now) {
        commands.extend(to.take(now, Frame::decode(&frame.encode().unwrap()).unwrap()));
    }
    commands
}

/// Brings frames both ways until neither has any left.
fn settle(now: Duration, left: &mut Protocol, right: &mut Protocol) -> (Vec<Command>, Vec<Command>) {
    let (mut at_left, mut at_right) = (Vec::new(), Vec::new());
    while let Some(frame) = left.next_frame(now) {
        at_right.extend(right.take(now, frame));
        at_left.extend(pass(now, right, left));
    }
    at_left.extend(pass(now, right, left));
    (at_left, at_right)
}

fn asked(commands: &[Command]) -> Vec<(u64, SiteTopic, usize)> {
    let of = |command: &Command| match command {
        Command::Asked { call, topic, message } => Some((*call, *topic, message.as_slice().len())),
        _ => None,
    };
    commands.iter().filter_map(of).collect()
}

fn closed(commands: &[Command]) -> Option<&'static str> {
    commands.iter().find_map(|command| match command {
        Command::Close(reason) => Some(*reason),
        _ => None,
    })
}

#[test]
fn both_sides_ask_over_the_one_link_and_refusals_come_back_as_they_were() {
    let (mut north, mut south) = opened(millis(0));
    let large = Payload::from(vec![7; 300_000]);
    let from_north = north.ask(millis(0), SiteTopic::Courier, large.clone()).unwrap();
    let from_south = south.ask(millis(0), SiteTopic::Client, Payload::from("who?")).unwrap();
    let (at_north, at_south) = settle(millis(0), &mut north, &mut south);
    assert_eq!(asked(&at_south), [(from_north, SiteTopic::Courier, 300_000)]);
    assert_eq!(asked(&at_north), [(from_south, SiteTopic::Client, 4)]);

    south.answer(from_north, Ok(large.clone()));
    let refusal = Error::new(ErrorKind::Conflict, "é".repeat(4_000))
        .with_next_step("Do something else.")
        .with_retry_after(millis(7));
    north.answer(from_south, Err(refusal));
    let (at_north, at_south) = settle(millis(1), &mut north, &mut south);
    let [Command::Answered { outcome: Ok(answer), .. }] = at_north.as_slice() else { panic!("{at_north:?}") };
    assert_eq!(*answer, large);
    let [Command::Answered { outcome: Err(error), .. }] = at_south.as_slice() else { panic!("{at_south:?}") };
    assert_eq!((error.kind, error.retry_after), (ErrorKind::Conflict, Some(millis(7))));
    assert_eq!(error.next_step.as_deref(), Some("Do something else."));
    assert!(error.message.starts_with('é') && error.message.len() <= 4_096);
}

#[test]
fn no_frame_is_too_long_and_what_is_too_long_is_refused() {
    let (mut north, _) = opened(millis(0));
    north.ask(millis(0), SiteTopic::Catalog, Payload::from(vec![0; 1_000_000])).unwrap();
    while let Some(frame) = north.next_frame(millis(0)) {
        assert!(frame.encode().unwrap().len() <= FRAME_BYTES_MAX);
    }
    assert_eq!(Frame::decode(&vec![1; FRAME_BYTES_MAX + 1]).unwrap_err().kind, ErrorKind::InvalidInput);
    assert_eq!(Frame::decode(&[2, 0]).unwrap_err().kind, ErrorKind::Unsupported);
    assert_eq!(Frame::decode(&[]).unwrap_err().kind, ErrorKind::InvalidInput);
    let too_long = Payload::from(vec![0; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(north.ask(millis(0), SiteTopic::Courier, too_long).unwrap_err().kind, ErrorKind::InvalidInput);
}

#[test]
fn what_is_urgent_waits_for_no_more_than_a_window_of_what_is_not() {
    let (mut north, mut south) = opened(millis(0));
    for _ in 0..4 {
        north.ask(millis(0), SiteTopic::Catalog, Payload::from(vec![0; 1_000_000])).unwrap();
    }
    let mut before = 0;
    while let Some(frame) = north.next_frame(millis(0)) {
        before += frame.encode().unwrap().len();
        assert!(south.take(millis(0), frame).is_empty());
    }
    assert!(before <= WINDOW_BYTES_MIN + 1_024, "{before} bytes under way with nothing acknowledged");
    north.ask(millis(1), SiteTopic::Courier, Payload::from("a job")).unwrap();
    north.packet(packet(1));
    let first = north.next_frame(millis(1)).unwrap();
    assert!(matches!(first, Frame::Packet(_)), "gossip does not wait for the window");
    assert!(north.next_frame(millis(1)).is_none());
    // Once the other side has taken something in, the job goes before the rest of the catalog.
    pass(millis(2), &mut south, &mut north);
    let next = north.next_frame(millis(2)).unwrap();
    assert!(matches!(&next, Frame::Piece(piece) if piece.part == Part::Ask(SiteTopic::Courier)), "{next:?}");
}

#[test]
fn messages_of_a_topic_take_turns() {
    let (mut north, mut south) = opened(millis(0));
    let long = north.ask(millis(0), SiteTopic::Courier, Payload::from(vec![0; 1_000_000])).unwrap();
    let short = north.ask(millis(0), SiteTopic::Courier, Payload::from("short")).unwrap();
    let (_, at_south) = settle(millis(0), &mut north, &mut south);
    let order: Vec<_> = asked(&at_south).into_iter().map(|(call, ..)| call).collect();
    assert_eq!(order, [short, long]);
}

#[test]
fn too_many_calls_are_refused_on_both_sides() {
    let (mut north, mut south) = opened(millis(0));
    let calls: Vec<_> =
        (0..CALLS_MAX).map(|_| north.ask(millis(0), SiteTopic::Catalog, Payload::from("x")).unwrap()).collect();
    let refusal = north.ask(millis(0), SiteTopic::Catalog, Payload::from("x")).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::ResourceExhausted);
    north.ask(millis(0), SiteTopic::Courier, Payload::from("x")).expect("topics do not take each other's places");
    let (_, at_south) = settle(millis(0), &mut north, &mut south);
    assert_eq!(asked(&at_south).len(), CALLS_MAX + 1);

    // A side that breaks the bound is refused there too.
    let piece = Frame::Piece(super::frame::Piece {
        call: 999,
        part: Part::Ask(SiteTopic::Catalog),
        is_last: true,
        bytes: Payload::from("x"),
    });
    assert!(asked(&south.take(millis(0), piece)).is_empty());
    let frames: Vec<_> = std::iter::from_fn(|| south.next_frame(millis(0))).collect();
    let is_refusal = |frame: &Frame| matches!(frame, Frame::Piece(p) if p.part == Part::Refusal && p.call == 999);
    assert!(frames.iter().any(is_refusal), "{frames:?}");
    for call in calls {
        south.answer(call, Ok(Payload::from("y")));
    }
    settle(millis(1), &mut north, &mut south);
    north.ask(millis(1), SiteTopic::Catalog, Payload::from("x")).expect("there is room again");
}

#[test]
fn who_gives_up_frees_both_sides_and_late_pieces_harm_nobody() {
    let (mut north, mut south) = opened(millis(0));
    let call = north.ask(millis(0), SiteTopic::Catalog, Payload::from("all of it")).unwrap();
    settle(millis(0), &mut north, &mut south);
    south.answer(call, Ok(Payload::from(vec![0; 1_000_000])));
    let mut late = Vec::new();
    while let Some(frame) = south.next_frame(millis(0)) {
        late.push(frame);
    }
    let last = late.pop().unwrap();
    for frame in late {
        assert!(north.take(millis(0), frame).is_empty());
    }
    north.give_up(call);
    assert!(north.take(millis(0), last).is_empty());
    let (at_north, at_south) = settle(millis(1), &mut north, &mut south);
    assert!(at_north.is_empty(), "{at_north:?}");
    assert!(matches!(at_south.as_slice(), [Command::Abandoned { .. }]), "{at_south:?}");
    assert!(south.next_frame(millis(1)).is_none(), "the rest of the answer is not sent");
}

#[test]
fn a_call_without_progress_ends_and_so_does_every_call_of_a_link_that_ends() {
    let (mut north, mut south) = opened(millis(0));
    let client = north.ask(millis(0), SiteTopic::Client, Payload::from("x")).unwrap();
    let courier = north.ask(millis(0), SiteTopic::Courier, Payload::from("x")).unwrap();
    let mut now = millis(0);
    let mut late = Vec::new();
    while now < millis(10_000) {
        assert!(late.is_empty(), "{now:?}: {late:?}");
        settle(now, &mut north, &mut south);
        now += KEEP_ALIVE;
        late = north.tick(now);
        south.tick(now);
    }
    let [Command::Answered { call, outcome: Err(error) }] = late.as_slice() else { panic!("{late:?}") };
    assert_eq!((*call, error.kind), (client, ErrorKind::DeadlineExceeded));
    let ended = north.end();
    let [Command::Answered { call, outcome: Err(error) }] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!((*call, error.kind), (courier, ErrorKind::Unavailable));
    assert_eq!(north.ask(now, SiteTopic::Client, Payload::from("x")).unwrap_err().kind, ErrorKind::Unavailable);
}

#[test]
fn a_link_keeps_itself_alive_and_a_silent_one_is_cut() {
    let (mut north, mut south) = opened(millis(0));
    let mut now = millis(0);
    for _ in 0..100 {
        now = north.next_due(true).min(south.next_due(true));
        assert_eq!((closed(&north.tick(now)), closed(&south.tick(now))), (None, None), "{now:?}");
        settle(now, &mut north, &mut south);
    }
    // From here on the other side is silent, while ours still speaks.
    let silent = now;
    let reason = loop {
        now += millis(100);
        let ended = north.tick(now);
        while north.next_frame(now).is_some() {}
        if let Some(reason) = closed(&ended) {
            break reason;
        }
    };
    assert_eq!((reason, now - silent), ("it is silent", SILENCE_MAX));
}

#[test]
fn a_link_that_takes_nothing_is_cut_though_it_speaks() {
    let (mut north, _) = opened(millis(0));
    let mut now = millis(0);
    let reason = loop {
        now += millis(500);
        north.take(now, Frame::KeepAlive);
        if let Some(reason) = closed(&north.tick(now)) {
            break reason;
        }
    };
    assert_eq!((reason, now), ("it takes nothing any more", STALLED_MAX));
}

#[test]
fn only_the_site_that_was_meant_is_taken_and_only_after_it_said_so() {
    let meet = |other: &str, proved: &str| {
        let mut here = Protocol::new(millis(0), hello("north"), site(proved));
        closed(&here.take(millis(0), Frame::Hello(hello(other))))
    };
    assert_eq!(meet("south", "south"), None);
    assert_eq!(meet("west", "south"), Some("it belongs to another site than it says"));
    assert_eq!(meet("north", "south"), Some("it belongs to this site"));
    let mut here = Protocol::new(millis(0), hello("north"), site("south"));
    assert_eq!(closed(&here.take(millis(0), Frame::KeepAlive)), Some("it did not say who it is first"));
    let (mut north, _) = opened(millis(0));
    assert_eq!(closed(&north.take(millis(0), Frame::Hello(hello("south")))), Some("it said twice who it is"));
    let (mut north, _) = opened(millis(0));
    let boast = Frame::Received { bytes: 1 };
    assert_eq!(closed(&north.take(millis(0), boast)), Some("it received more than was sent"));
}

#[test]
fn gossip_that_does_not_fit_is_dropped_the_oldest_first() {
    let (mut north, mut south) = opened(millis(0));
    (0..100).for_each(|number| north.packet(packet(number)));
    assert_eq!(north.packets_dropped(), 36);
    let (_, at_south) = settle(millis(0), &mut north, &mut south);
    assert_eq!(at_south.len(), 64);
    assert!(matches!(&at_south[0], Command::Packet(first) if *first == packet(36)));
}

/// Answers with what was asked, or never.
#[derive(Clone, Default)]
struct Echo {
    never: bool,
    seen: Arc<Mutex<Vec<String>>>,
}

impl LinkEvents for Echo {
    fn opened(&mut self, peer: &Hello) -> Result<(), &'static str> {
        self.seen.lock().unwrap().push(format!("opened {}", peer.site));
        Ok(())
    }

    fn answer(&mut self, _topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        if self.never { std::future::pending().boxed() } else { async move { Ok(message) }.boxed() }
    }

    fn reported(&mut self, report: SiteReport) {
        self.seen.lock().unwrap().push(format!("{} robots", report.robots.len()));
    }

    fn packet(&mut self, _packet: GossipPacket) {
        self.seen.lock().unwrap().push("packet".to_owned());
    }

    fn heard(&mut self) {}
}

struct End {
    link: SiteLink,
    task: JoinHandle<&'static str>,
    events: Echo,
}

fn end(name: &str, incoming: mpsc::Receiver<Bytes>, outgoing: mpsc::Sender<Bytes>, events: Echo) -> End {
    let (link, requests) = SiteLink::channel();
    let other = if name == "north" { "south" } else { "north" };
    let protocol = Protocol::new(Duration::ZERO, hello(name), site(other));
    let task = tokio::spawn(serve(protocol, Instant::now(), incoming, outgoing, requests, events.clone()));
    End { link, task, events }
}

fn pair(north: Echo, south: Echo) -> (End, End) {
    let (to_south, at_south) = mpsc::channel(4);
    let (to_north, at_north) = mpsc::channel(4);
    (end("north", at_north, to_south, north), end("south", at_south, to_north, south))
}

/// Asks until the link is open.
async fn ask(end: &End, message: Payload) -> Result<Payload, Error> {
    loop {
        match end.link.ask(SiteTopic::Courier, message.clone()).await {
            Err(error) if error.message.contains("not open") => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn driven_ends_ask_each_other_until_one_ends() {
    let (north, south) = pair(Echo::default(), Echo::default());
    let large = Payload::from(vec![1; 2 * WINDOW_BYTES_MAX]);
    assert_eq!(ask(&north, large.clone()).await.unwrap(), large);
    assert_eq!(ask(&south, large.clone()).await.unwrap(), large);
    assert!(north.link.packet(packet(1)) && north.link.report(SiteReport::default()));
    ask(&north, Payload::from("after")).await.unwrap();
    assert_eq!(*south.events.seen.lock().unwrap(), ["opened north", "packet", "0 robots"]);
    tokio::time::sleep(SILENCE_MAX * 10).await;
    assert!(!north.task.is_finished(), "an idle link lives");
    north.link.end("a test ends it").await;
    assert_eq!(north.task.await.unwrap(), "a test ends it");
    assert_eq!(south.task.await.unwrap(), "the other side ended it");
    assert_eq!(north.link.ask(SiteTopic::Courier, large).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_answers_nothing_bounds_what_waits_for_it() {
    let (north, _south) = pair(Echo::default(), Echo { never: true, ..Echo::default() });
    let first = tokio::time::timeout(millis(100), ask(&north, Payload::from("x"))).await;
    assert!(first.is_err(), "it answers nothing");
    let link = north.link.clone();
    let asks = (0..40).map(|_| {
        let link = link.clone();
        async move { link.ask(SiteTopic::Courier, Payload::from(vec![0; 100_000])).await.unwrap_err().kind }
    });
    let outcomes = futures_util::future::join_all(asks).await;
    let exhausted = outcomes.iter().filter(|kind| **kind == ErrorKind::ResourceExhausted).count();
    let late = outcomes.iter().filter(|kind| **kind == ErrorKind::DeadlineExceeded).count();
    assert_eq!((exhausted + late, late), (40, CALLS_MAX), "{outcomes:?}");
    assert!(!north.task.is_finished(), "the link itself is well");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_reads_nothing_is_cut_off() {
    let (to_south, mut at_south) = mpsc::channel(4);
    let (to_north, at_north) = mpsc::channel(4);
    let north = end("north", at_north, to_south, Echo::default());
    assert!(at_south.recv().await.is_some(), "its hello");
    to_north.send(Frame::Hello(hello("south")).encode().unwrap()).await.unwrap();
    let asking = north.link.clone();
    let asked = tokio::spawn(async move {
        loop {
            let answer = asking.ask(SiteTopic::Courier, Payload::from(vec![0; 1_000_000])).await;
            if !answer.as_ref().is_err_and(|error| error.message.contains("not open")) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    });
    let speaking = async {
        while to_north.send(Frame::KeepAlive.encode().unwrap()).await.is_ok() {
            tokio::time::sleep(KEEP_ALIVE).await;
        }
    };
    speaking.await;
    assert_eq!(north.task.await.unwrap(), "it takes nothing any more");
    assert_eq!(asked.await.unwrap().unwrap_err().kind, ErrorKind::Unavailable);
}

#[test]
fn what_goes_over_a_link_is_counted_by_topic_and_direction_at_both_ends() {
    use super::figures::Traffic;
    let (mut north, mut south) = opened(millis(0));
    let call = north.ask(millis(0), SiteTopic::Courier, Payload::from(vec![7; 20_000])).unwrap();
    north.packet(packet(1));
    let courier = Traffic::Topic(SiteTopic::Courier);
    let waiting = |end: &Protocol| (end.figures().flow(Traffic::Gossip).waiting, end.figures().flow(courier).waiting);
    assert_eq!(waiting(&north), (1, 1));
    assert_eq!(north.figures().round_trip, None, "nothing was timed yet");
    pass(millis(0), &mut north, &mut south);
    pass(millis(40), &mut south, &mut north);
    assert_eq!((waiting(&north), north.figures().round_trip), ((0, 0), Some(millis(40))));
    south.answer(call, Ok(Payload::from(vec![8; 500])));
    settle(millis(50), &mut south, &mut north);
    let counted = |end: &Protocol, traffic| {
        let (figures, of) = (end.figures(), traffic);
        (figures.flow(of).sent_bytes, figures.flow(of).received_bytes)
    };
    assert_eq!((counted(&north, courier), counted(&south, courier)), ((20_000, 500), (500, 20_000)));
    assert_eq!((counted(&north, Traffic::Gossip), counted(&south, Traffic::Gossip)), ((8, 0), (0, 8)));
    let client = Traffic::Topic(SiteTopic::Client);
    assert_eq!((counted(&north, client), counted(&south, client)), ((0, 0), (0, 0)));
}
