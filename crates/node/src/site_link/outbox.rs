//! What waits to be sent, by urgency: what keeps the link alive, then gossip, then messages by topic. A message is sent in
//! pieces, in turn with the others of its topic, and only as far as the window allows.
//!
//! Strict order: a topic is served only when none before it has anything to send. The catalog is last: it may take what
//! is left of a slow link, and never more.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_store::record::Payload;

use super::figures::{LinkFigures, Traffic};
use super::frame::{CallNumber, Frame, GossipPacket, PIECE_BYTES_MAX, Part, Piece, SiteReport};
use super::window::Window;
use crate::ports::SiteTopic;

/// Most gossip packets that wait; past it the oldest is dropped, as a full socket would do.
const PACKETS_MAX: usize = 64;
/// Topics by urgency.
const TOPICS: [SiteTopic; 4] = [SiteTopic::Courier, SiteTopic::Client, SiteTopic::Registry, SiteTopic::Catalog];

fn lane(topic: SiteTopic) -> usize {
    match topic {
        SiteTopic::Courier => 0,
        SiteTopic::Client => 1,
        SiteTopic::Registry => 2,
        SiteTopic::Catalog => 3,
    }
}

/// A message on its way out.
#[derive(Debug)]
struct Outgoing {
    call: CallNumber,
    part: Part,
    bytes: Payload,
    sent: usize,
}

/// What waits to be sent on one link.
#[derive(Debug)]
pub(super) struct Outbox {
    control: VecDeque<Frame>,
    received: u32,
    report: Option<SiteReport>,
    packets: VecDeque<GossipPacket>,
    lanes: [VecDeque<Outgoing>; TOPICS.len()],
    window: Window,
    packets_dropped: u64,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            control: VecDeque::new(),
            received: 0,
            report: None,
            packets: VecDeque::new(),
            lanes: Default::default(),
            window: Window::new(),
            packets_dropped: 0,
        }
    }

    /// A frame that goes before all others. Few may wait: a hello, and a call's end for each call.
    pub(super) fn push_control(&mut self, frame: Frame) {
        self.control.push_back(frame);
    }

    /// Has the other side told that `bytes` more of its messages were taken in.
    pub(super) fn acknowledge(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The report to send; a newer one replaces one that still waits.
    pub(super) fn set_report(&mut self, report: SiteReport) {
        self.report = Some(report);
    }

    pub(super) fn push_packet(&mut self, packet: GossipPacket) {
        if self.packets.len() >= PACKETS_MAX {
            self.packets.pop_front();
            self.packets_dropped += 1;
        }
        self.packets.push_back(packet);
    }

    /// How many gossip packets did not fit so far.
    pub(super) fn packets_dropped(&self) -> u64 {
        self.packets_dropped
    }

    /// How long a piece takes there, with its acknowledgement back, and how much waits: packets, then messages by topic.
    pub(super) fn measure(&self, figures: &mut LinkFigures) {
        figures.round_trip = self.window.round_trip();
        figures.flow_mut(Traffic::Gossip).waiting = self.packets.len();
        for topic in TOPICS {
            figures.flow_mut(Traffic::Topic(topic)).waiting = self.lanes[lane(topic)].len();
        }
    }

    pub(super) fn push_message(&mut self, topic: SiteTopic, call: CallNumber, part: Part, bytes: Payload) {
        self.lanes[lane(topic)].push_back(Outgoing { call, part, bytes, sent: 0 });
    }

    /// How many refusals of `topic` wait.
    pub(super) fn refusals(&self, topic: SiteTopic) -> usize {
        self.lanes[lane(topic)].iter().filter(|message| message.part == Part::Refusal).count()
    }

    /// Drops the rest of the question of `call`, and says how much of it the other side may have.
    pub(super) fn withdraw_ask(&mut self, topic: SiteTopic, call: CallNumber) -> Withdrawn {
        let lane = &mut self.lanes[lane(topic)];
        let found = lane.iter().position(|message| message.call == call && matches!(message.part, Part::Ask(_)));
        match found.and_then(|at| lane.remove(at)) {
            Some(message) if message.sent == 0 => Withdrawn::Unsent,
            _ => Withdrawn::Sent,
        }
    }

    /// Drops the rest of the answer to `call`.
    pub(super) fn withdraw_answer(&mut self, topic: SiteTopic, call: CallNumber) {
        self.lanes[lane(topic)].retain(|message| message.call != call || matches!(message.part, Part::Ask(_)));
    }

    /// Notes that the other side took in `bytes` more. False if it never got that many.
    #[must_use]
    pub(super) fn acknowledged(&mut self, now: Duration, bytes: u32) -> bool {
        self.window.received(now, bytes)
    }

    /// The next frame, if any may be sent at `now`.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Frame> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if self.received > 0 {
            return Some(Frame::Received { bytes: std::mem::take(&mut self.received) });
        }
        if let Some(packet) = self.packets.pop_front() {
            return Some(Frame::Packet(packet));
        }
        if let Some(report) = self.report.take() {
            return Some(Frame::Report(report));
        }
        let lane = self.lanes.iter_mut().find(|lane| !lane.is_empty())?;
        if !self.window.has_room() {
            return None;
        }
        let mut message = lane.pop_front()?;
        let end = message.bytes.0.len().min(message.sent + PIECE_BYTES_MAX);
        let bytes = Payload(message.bytes.0.slice(message.sent..end));
        self.window.sent(now, bytes.as_slice().len());
        let is_last = end == message.bytes.0.len();
        let piece = Piece { call: message.call, part: message.part, is_last, bytes };
        if !is_last {
            message.sent = end;
            lane.push_back(message);
        }
        Some(Frame::Piece(piece))
    }
}

/// How far a question that is withdrawn had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// The other side knows nothing of it.
    Unsent,
    /// At least a part was sent.
    Sent,
}
