//! Carries one end of a link out over two channels of encoded frames, until it ends.
//!
//! The task of [`serve`] owns the link: when it ends, every question is answered with what went wrong, and whatever it
//! had others answer is dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use fleet_core::{Error, ErrorKind};
use fleet_store::record::Payload;

use super::figures::LinkFigures;
use super::frame::{Frame, GossipPacket, Hello, SiteReport};
use super::protocol::{Command, Protocol};
use crate::ports::SiteTopic;

/// Requests of this node that wait for the link's task.
const REQUESTS_MAX: usize = 128;

/// What happens at the other end, told as it happens. Called on the link's task, so it must not wait.
pub trait LinkEvents: Send + 'static {
    /// The other side said who it is. An error ends the link.
    fn opened(&mut self, peer: &Hello) -> Result<(), &'static str>;
    /// Answers a question.
    fn answer(&mut self, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>>;
    /// The other site said what it has.
    fn reported(&mut self, report: SiteReport);
    /// A packet of gossip came.
    fn packet(&mut self, packet: GossipPacket);
    /// Something came: the other site lives.
    fn heard(&mut self);
}

enum Request {
    Ask { topic: SiteTopic, message: Payload, answered: oneshot::Sender<Result<Payload, Error>> },
    Report(SiteReport),
    Packet(GossipPacket),
    End(&'static str),
}

/// A handle on a link that [`serve`] runs. Clones share it; it does not keep the link alive.
#[derive(Clone, Debug)]
pub struct SiteLink {
    requests: mpsc::Sender<Request>,
    figures: Arc<Mutex<LinkFigures>>,
}

impl SiteLink {
    /// A handle, and what [`serve`] takes its requests from.
    pub fn channel() -> (Self, LinkRequests) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let figures: Arc<Mutex<LinkFigures>> = Arc::default();
        (Self { requests, figures: Arc::clone(&figures) }, LinkRequests { receiver, figures })
    }

    /// What went over it so far and how it stands.
    pub fn figures(&self) -> LinkFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the other site. Dropping the future gives the call up, at the latest when the link next keeps itself alive.
    ///
    /// # Errors
    /// `Unavailable` if the link is not open or broke, `DeadlineExceeded` if the answer took too long, `InvalidInput` for
    /// a message too large, `ResourceExhausted` if too much is asked at once, else what the other site answered.
    pub async fn ask(&self, topic: SiteTopic, message: Payload) -> Result<Payload, Error> {
        let broken = || Error::new(ErrorKind::Unavailable, "ask another site: the link has ended");
        let (answered, answer) = oneshot::channel();
        let asked = self.requests.send(Request::Ask { topic, message, answered }).await;
        asked.map_err(|_| broken())?;
        answer.await.unwrap_or_else(|_| Err(broken()))
    }

    /// Tells the other site what this one has. False if too much waits; the next report says it all again.
    pub fn report(&self, report: SiteReport) -> bool {
        self.requests.try_send(Request::Report(report)).is_ok()
    }

    /// Sends a packet of gossip. False if it was not taken: it may go another way.
    pub fn packet(&self, packet: GossipPacket) -> bool {
        self.requests.try_send(Request::Packet(packet)).is_ok()
    }

    /// Ends the link.
    pub async fn end(&self, reason: &'static str) {
        // A link that has ended already is what is wanted.
        let _ended = self.requests.send(Request::End(reason)).await;
    }
}

/// What [`serve`] takes requests from.
#[derive(Debug)]
pub struct LinkRequests {
    receiver: mpsc::Receiver<Request>,
    figures: Arc<Mutex<LinkFigures>>,
}

/// Carries out `protocol`, which began at `began`: frames come from `incoming` and go to `outgoing`. Ends with the reason.
pub async fn serve(
    protocol: Protocol,
    began: Instant,
    incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Bytes>,
    requests: LinkRequests,
    events: impl LinkEvents,
) -> &'static str {
    let mut running = Running {
        protocol,
        began,
        events,
        asked: BTreeMap::new(),
        answers: FuturesUnordered::new(),
        abandoned: BTreeMap::new(),
        figures: requests.figures,
    };
    let reason = running.run(incoming, outgoing, requests.receiver).await;
    running.measure();
    let ended = running.protocol.end();
    running.carry_out(ended);
    reason
}

type Answering = Pin<Box<dyn Future<Output = (u64, Option<Result<Payload, Error>>)> + Send>>;

struct Running<Events> {
    protocol: Protocol,
    began: Instant,
    events: Events,
    /// Who waits for the answers to our calls.
    asked: BTreeMap<u64, oneshot::Sender<Result<Payload, Error>>>,
    /// What others are answering for us.
    answers: FuturesUnordered<Answering>,
    /// Ends the answering of a call that nobody waits for any more.
    abandoned: BTreeMap<u64, oneshot::Sender<()>>,
    figures: Arc<Mutex<LinkFigures>>,
}

impl<Events: LinkEvents> Running<Events> {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn measure(&self) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = self.protocol.figures();
    }

    async fn run(
        &mut self,
        mut incoming: mpsc::Receiver<Bytes>,
        outgoing: mpsc::Sender<Bytes>,
        mut requests: mpsc::Receiver<Request>,
    ) -> &'static str {
        loop {
            if let Err(reason) = self.send(&outgoing) {
                return reason;
            }
            self.measure();
            let has_room = outgoing.capacity() > 0;
            let due = self.began + self.protocol.next_due(has_room);
            let commands = tokio::select! {
                frame = incoming.recv() => {
                    let Some(frame) = frame else { return "the other side ended it" };
                    let Ok(frame) = Frame::decode(&frame) else { return "a frame was not understood" };
                    self.events.heard();
                    self.protocol.take(self.now(), frame)
                }
                request = requests.recv() => match request {
                    Some(Request::End(reason)) => return reason,
                    Some(request) => { self.request(request); Vec::new() }
                    None => return "nobody uses it any more",
                },
                Some((call, answer)) = self.answers.next() => {
                    self.abandoned.remove(&call);
                    if let Some(answer) = answer {
                        self.protocol.answer(call, answer);
                    }
                    Vec::new()
                }
                room = outgoing.reserve(), if !has_room => match room {
                    Ok(_permit) => Vec::new(),
                    Err(_) => return "the other side ended it",
                },
                () = tokio::time::sleep_until(due) => Vec::new(),
            };
            if let Some(reason) = self.carry_out(commands) {
                return reason;
            }
            self.give_up_abandoned();
            let late = self.protocol.tick(self.now());
            if let Some(reason) = self.carry_out(late) {
                return reason;
            }
        }
    }

    /// Sends what may be sent as far as the channel has room.
    fn send(&mut self, outgoing: &mpsc::Sender<Bytes>) -> Result<(), &'static str> {
        loop {
            let permit = match outgoing.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Full(())) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(())) => return Err("the other side ended it"),
            };
            let Some(frame) = self.protocol.next_frame(self.began.elapsed()) else { return Ok(()) };
            match frame.encode() {
                Ok(bytes) => permit.send(bytes),
                Err(error) => {
                    tracing::error!(error = %fleet_core::error::chain(&error), "a frame for another site is not sent");
                    return Err("a frame could not be encoded");
                }
            }
        }
    }

    /// Gives up the calls for which nobody waits any more.
    fn give_up_abandoned(&mut self) {
        let gone: Vec<_> =
            self.asked.iter().filter(|(_, waiting)| waiting.is_closed()).map(|(call, _)| *call).collect();
        for call in gone {
            self.asked.remove(&call);
            self.protocol.give_up(call);
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Ask { topic, message, answered } => {
                match self.protocol.ask(self.now(), topic, message) {
                    Ok(call) => drop(self.asked.insert(call, answered)),
                    // Whoever asked may have gone away meanwhile.
                    Err(error) => drop(answered.send(Err(error))),
                }
            }
            Request::Report(report) => self.protocol.report(report),
            Request::Packet(packet) => self.protocol.packet(packet),
            Request::End(_) => {}
        }
    }

    /// The reason to end, if one of the commands says so.
    fn carry_out(&mut self, commands: Vec<Command>) -> Option<&'static str> {
        for command in commands {
            match command {
                Command::Opened(peer) => {
                    if let Err(reason) = self.events.opened(&peer) {
                        return Some(reason);
                    }
                }
                Command::Asked { call, topic, message } => self.have_answered(call, topic, message),
                Command::Abandoned { call } => drop(self.abandoned.remove(&call)),
                Command::Answered { call, outcome } => {
                    if let Some(answered) = self.asked.remove(&call) {
                        // Whoever asked may have gone away meanwhile.
                        drop(answered.send(outcome));
                    }
                }
                Command::Reported(report) => self.events.reported(report),
                Command::Packet(packet) => self.events.packet(packet),
                Command::Close(reason) => return Some(reason),
            }
        }
        None
    }

    fn have_answered(&mut self, call: u64, topic: SiteTopic, message: Payload) {
        let answer = self.events.answer(topic, message);
        let (abandon, abandoned) = oneshot::channel();
        self.abandoned.insert(call, abandon);
        let answering = async move {
            tokio::select! {
                answer = answer => (call, Some(answer)),
                _ = abandoned => (call, None),
            }
        };
        self.answers.push(answering.boxed());
    }
}
