//! One end of a link as a pure machine: frames, questions, answers and time in, commands and frames out. Both ends are
//! alike; which of them dialled matters to neither.
//!
//! Invariants: nothing is taken in before the other side's hello was; each call ends exactly once, at the latest when
//! the link does; at most [`CALLS_MAX`] calls of a topic are under way in each direction.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::{Error, ErrorKind, SiteName};
use fleet_store::record::Payload;

use super::figures::{LinkFigures, Traffic};
use super::frame::{CallNumber, Failure, Frame, GossipPacket, Hello, Part, Piece, SiteReport};
use super::inbox::{Inbox, Taken};
use super::outbox::{Outbox, Withdrawn};
use crate::ports::SiteTopic;

/// The newest version of the protocol.
pub const LINK_VERSION: u16 = 1;
/// Largest message, bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
/// Most calls of one topic under way in one direction.
pub(super) const CALLS_MAX: usize = 16;
/// Most refusals of one topic that wait to be sent; a side that keeps to [`CALLS_MAX`] needs none.
const REFUSALS_MAX: usize = 4 * CALLS_MAX;
/// A side that sent nothing for this long says that it lives.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A link that is silent for this long is cut.
pub(super) const SILENCE_MAX: Duration = KEEP_ALIVE.saturating_mul(3);
/// A link that takes no frame for this long is cut: even a slow one takes one sooner.
pub(super) const STALLED_MAX: Duration = SILENCE_MAX.saturating_mul(2);

/// How long a call may make no progress, and how long it may take in all.
const fn patience(topic: SiteTopic) -> (Duration, Duration) {
    match topic {
        SiteTopic::Client => (Duration::from_secs(10), Duration::from_secs(30)),
        SiteTopic::Courier | SiteTopic::Registry | SiteTopic::Catalog => {
            (Duration::from_secs(30), Duration::from_secs(300))
        }
    }
}

/// What the driver must do.
#[derive(Debug)]
pub enum Command {
    /// The other side said who it is; from now on it can be asked.
    Opened(Hello),
    /// Have this answered, and hand the answer to [`Protocol::answer`].
    Asked {
        /// Names the call.
        call: u64,
        /// What it is about.
        topic: SiteTopic,
        /// The question.
        message: Payload,
    },
    /// Nobody waits for the answer to this call any more.
    Abandoned {
        /// Which.
        call: u64,
    },
    /// One of our calls ended.
    Answered {
        /// Which.
        call: u64,
        /// How.
        outcome: Result<Payload, Error>,
    },
    /// The other site said what it has.
    Reported(SiteReport),
    /// A packet of gossip came.
    Packet(GossipPacket),
    /// End the link, for this reason. The last command.
    Close(&'static str),
}

/// A call of ours.
#[derive(Debug)]
struct Pending {
    topic: SiteTopic,
    began: Duration,
    progress: Duration,
}

/// One end of a link.
#[derive(Debug)]
pub struct Protocol {
    own_site: SiteName,
    /// The site that certificates have proved to be at the other end.
    proved: SiteName,
    peer: Option<Hello>,
    pending: BTreeMap<CallNumber, Pending>,
    serving: BTreeMap<CallNumber, SiteTopic>,
    last_call: CallNumber,
    inbox: Inbox,
    outbox: Outbox,
    heard: Duration,
    spoke: Duration,
    is_closed: bool,
    figures: LinkFigures,
}

impl Protocol {
    /// An end that begins at `now` by saying `hello` to a node of the site `proved`, as its certificate said.
    pub fn new(now: Duration, hello: Hello, proved: SiteName) -> Self {
        let own_site = hello.site.clone();
        let mut outbox = Outbox::new();
        outbox.push_control(Frame::Hello(hello));
        Self {
            own_site,
            proved,
            peer: None,
            pending: BTreeMap::new(),
            serving: BTreeMap::new(),
            last_call: 0,
            inbox: Inbox::default(),
            outbox,
            heard: now,
            spoke: now,
            is_closed: false,
            figures: LinkFigures::default(),
        }
    }

    /// Asks the other side. The answer comes as [`Command::Answered`] with the number given back.
    ///
    /// # Errors
    /// `Unavailable` before the other side's hello, `InvalidInput` for a message too large, `ResourceExhausted` if too
    /// many calls of the topic are under way.
    pub fn ask(&mut self, now: Duration, topic: SiteTopic, message: Payload) -> Result<u64, Error> {
        let site = match &self.peer {
            Some(peer) if !self.is_closed => &peer.site,
            _ => return Err(Error::new(ErrorKind::Unavailable, "ask another site: the link is not open")),
        };
        if message.as_slice().len() > MESSAGE_BYTES_MAX {
            let (bytes, max) = (message.as_slice().len(), MESSAGE_BYTES_MAX);
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("ask site {site}: a message of {bytes} bytes is longer than {max}"),
            ));
        }
        if self.pending.values().filter(|call| call.topic == topic).count() >= CALLS_MAX {
            return Err(Error::new(ErrorKind::ResourceExhausted, format!("ask site {site}: {CALLS_MAX} calls wait"))
                .with_retry_after(Duration::from_secs(1)));
        }
        self.last_call += 1;
        self.pending.insert(self.last_call, Pending { topic, began: now, progress: now });
        self.outbox.push_message(topic, self.last_call, Part::Ask(topic), message);
        Ok(self.last_call)
    }

    /// Whoever asked does not wait any more.
    pub fn give_up(&mut self, call: u64) {
        let Some(pending) = self.pending.remove(&call) else { return };
        self.inbox.forget_answer(call);
        if self.outbox.withdraw_ask(pending.topic, call) == Withdrawn::Sent {
            self.outbox.push_control(Frame::GiveUp { call });
        }
    }

    /// Sends the answer to what [`Command::Asked`] asked. For a call that was abandoned it does nothing.
    pub fn answer(&mut self, call: u64, answer: Result<Payload, Error>) {
        let Some(topic) = self.serving.get(&call).copied() else { return };
        let (part, bytes) = match answer {
            Ok(bytes) if bytes.as_slice().len() <= MESSAGE_BYTES_MAX => (Part::Answer, bytes),
            Ok(bytes) => {
                let length = bytes.as_slice().len();
                let message = format!("answer another site: {length} bytes are more than {MESSAGE_BYTES_MAX}");
                (Part::Refusal, Failure::of(&Error::new(ErrorKind::ResourceExhausted, message)).encode())
            }
            Err(error) => (Part::Refusal, Failure::of(&error).encode()),
        };
        self.outbox.push_message(topic, call, part, bytes);
    }

    /// Tells the other side what this site has.
    pub fn report(&mut self, report: SiteReport) {
        self.outbox.set_report(report);
    }

    /// Sends a packet of gossip, unless too many wait.
    pub fn packet(&mut self, packet: GossipPacket) {
        self.outbox.push_packet(packet);
    }

    /// How many gossip packets did not fit so far.
    pub fn packets_dropped(&self) -> u64 {
        self.outbox.packets_dropped()
    }

    /// What went over the link so far and how it stands.
    pub fn figures(&self) -> LinkFigures {
        let mut figures = self.figures;
        self.outbox.measure(&mut figures);
        figures
    }

    /// What `frame` is about, and how many bytes of it: nothing for what only keeps the link going. `served` says of the
    /// answers in it that they are ours.
    fn traffic(&self, frame: &Frame, served: bool) -> Option<(Traffic, u64)> {
        match frame {
            Frame::Packet(packet) => Some((Traffic::Gossip, packet.sealed.as_slice().len() as u64)),
            Frame::Piece(piece) => {
                let topic = match piece.part {
                    Part::Ask(topic) => Some(topic),
                    _ if served => self.serving.get(&piece.call).copied(),
                    _ => self.pending.get(&piece.call).map(|call| call.topic),
                };
                Some((Traffic::Topic(topic?), piece.bytes.as_slice().len() as u64))
            }
            _ => None,
        }
    }

    /// Takes one frame of the other side.
    pub fn take(&mut self, now: Duration, frame: Frame) -> Vec<Command> {
        if self.is_closed {
            return Vec::new();
        }
        self.heard = now;
        if let Some((traffic, bytes)) = self.traffic(&frame, false) {
            self.figures.flow_mut(traffic).received_bytes += bytes;
        }
        let mut commands = Vec::new();
        match (&self.peer, frame) {
            (None, Frame::Hello(hello)) => self.opened(hello, &mut commands),
            (None, _) => self.close("it did not say who it is first", &mut commands),
            (Some(_), Frame::Hello(_)) => self.close("it said twice who it is", &mut commands),
            (Some(_), Frame::Report(report)) => commands.push(Command::Reported(report)),
            (Some(_), Frame::Piece(piece)) => self.piece(now, &piece, &mut commands),
            (Some(_), Frame::Received { bytes }) => {
                if !self.outbox.acknowledged(now, bytes) {
                    self.close("it received more than was sent", &mut commands);
                }
            }
            (Some(_), Frame::GiveUp { call }) => {
                self.inbox.forget_ask(call);
                if let Some(topic) = self.serving.remove(&call) {
                    self.outbox.withdraw_answer(topic, call);
                    commands.push(Command::Abandoned { call });
                }
            }
            (Some(_), Frame::Packet(packet)) => commands.push(Command::Packet(packet)),
            (Some(_), Frame::KeepAlive) => {}
        }
        commands
    }

    fn opened(&mut self, hello: Hello, commands: &mut Vec<Command>) {
        if hello.site == self.own_site {
            self.close("it belongs to this site", commands);
        } else if hello.site != self.proved {
            self.close("it belongs to another site than it says", commands);
        } else {
            self.peer = Some(hello.clone());
            commands.push(Command::Opened(hello));
        }
    }

    fn piece(&mut self, now: Duration, piece: &Piece, commands: &mut Vec<Command>) {
        self.outbox.acknowledge(piece.bytes.as_slice().len());
        if !matches!(piece.part, Part::Ask(_)) {
            // What comes for a call that was given up is dropped.
            let Some(pending) = self.pending.get_mut(&piece.call) else { return };
            pending.progress = now;
        }
        match (self.inbox.take(piece), piece.part) {
            (Taken::Unfinished, _) => {}
            (Taken::Violation(reason), _) => self.close(reason, commands),
            (Taken::Whole(message), Part::Ask(topic)) => self.asked(piece.call, topic, message, commands),
            (Taken::Discarded, Part::Ask(topic)) => self.refuse(piece.call, topic, commands),
            (taken, part) => {
                let outcome = match (taken, part) {
                    (Taken::Whole(message), Part::Answer) => Ok(message),
                    (Taken::Whole(message), _) => Err(Failure::decode(message.as_slice())),
                    _ => Err(Error::new(ErrorKind::ResourceExhausted, "ask another site: no room for its answer")),
                };
                self.pending.remove(&piece.call);
                commands.push(Command::Answered { call: piece.call, outcome });
            }
        }
    }

    fn asked(&mut self, call: CallNumber, topic: SiteTopic, message: Payload, commands: &mut Vec<Command>) {
        if self.serving.contains_key(&call) {
            return self.close("it used the number of a call twice", commands);
        }
        if self.serving.values().filter(|served| **served == topic).count() >= CALLS_MAX {
            return self.refuse(call, topic, commands);
        }
        self.serving.insert(call, topic);
        commands.push(Command::Asked { call, topic, message });
    }

    fn refuse(&mut self, call: CallNumber, topic: SiteTopic, commands: &mut Vec<Command>) {
        if self.outbox.refusals(topic) >= REFUSALS_MAX {
            return self.close("it asks more than it may, and takes no answers", commands);
        }
        let error = Error::new(ErrorKind::ResourceExhausted, "answer another site: too much is asked at once")
            .with_retry_after(Duration::from_secs(1));
        self.outbox.push_message(topic, call, Part::Refusal, Failure::of(&error).encode());
    }

    /// Lets time pass: ends calls that take too long, and the link if it is silent.
    pub fn tick(&mut self, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.is_closed {
            return commands;
        }
        if now.saturating_sub(self.heard) >= SILENCE_MAX {
            self.close("it is silent", &mut commands);
            return commands;
        }
        if now.saturating_sub(self.spoke) >= STALLED_MAX {
            self.close("it takes nothing any more", &mut commands);
            return commands;
        }
        let late: Vec<_> = self.pending.iter().filter(|(_, call)| due(call) <= now).map(|(call, _)| *call).collect();
        for call in late {
            self.give_up(call);
            let outcome = Err(Error::new(ErrorKind::DeadlineExceeded, "ask another site: no answer in time"));
            commands.push(Command::Answered { call, outcome });
        }
        commands
    }

    /// The next frame to send at `now`, if there is one.
    pub fn next_frame(&mut self, now: Duration) -> Option<Frame> {
        let is_due = now.saturating_sub(self.spoke) >= KEEP_ALIVE;
        let frame = self.outbox.pop(now).or(is_due.then_some(Frame::KeepAlive))?;
        self.spoke = now;
        if let Some((traffic, bytes)) = self.traffic(&frame, true) {
            self.figures.flow_mut(traffic).sent_bytes += bytes;
        }
        if let Frame::Piece(piece) = &frame {
            match piece.part {
                Part::Ask(_) => {
                    if let Some(pending) = self.pending.get_mut(&piece.call) {
                        pending.progress = now;
                    }
                }
                Part::Answer | Part::Refusal if piece.is_last => drop(self.serving.remove(&piece.call)),
                Part::Answer | Part::Refusal => {}
            }
        }
        Some(frame)
    }

    /// When [`Self::tick`] is to be called next, and [`Self::next_frame`] if the transport takes frames, if nothing
    /// happens before.
    pub fn next_due(&self, can_send: bool) -> Duration {
        let silent = (self.heard + SILENCE_MAX).min(self.spoke + STALLED_MAX);
        let ends = self.pending.values().map(due).fold(silent, Duration::min);
        if can_send { ends.min(self.spoke + KEEP_ALIVE) } else { ends }
    }

    /// Ends every call of ours, because the link has ended.
    pub fn end(&mut self) -> Vec<Command> {
        self.is_closed = true;
        let site = self.peer.as_ref().map_or_else(|| "another site".to_owned(), |peer| format!("site {}", peer.site));
        let lost = || Error::new(ErrorKind::Unavailable, format!("ask {site}: the link broke before the answer"));
        std::mem::take(&mut self.pending)
            .into_keys()
            .map(|call| Command::Answered { call, outcome: Err(lost()) })
            .collect()
    }

    fn close(&mut self, reason: &'static str, commands: &mut Vec<Command>) {
        commands.extend(self.end());
        commands.push(Command::Close(reason));
    }
}

/// When `call` has taken too long.
fn due(call: &Pending) -> Duration {
    let (silence_max, time_max) = patience(call.topic);
    (call.progress + silence_max).min(call.began + time_max)
}
