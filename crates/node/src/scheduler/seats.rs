//! The robots that are linked to this node, and the way down to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use fleet_core::{NodeId, SessionId};
use fleet_store::record::StopCause;

use crate::link::RobotReport;
use crate::placement::INTERPRETER_WORD;
use crate::session::{BeatAnswer, LeaderTerm, Pair};

/// What a robot's work stream is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkOrder {
    /// An assignment, with all it takes.
    Assign {
        /// The leader's term.
        term: LeaderTerm,
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
        /// Whether to send the definition's text even if it was sent before.
        with_text: bool,
    },
    /// A stop.
    Stop {
        /// The leader's term.
        term: LeaderTerm,
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
        /// Why.
        cause: StopCause,
    },
    /// A question for what the robot has of an assignment of an earlier session.
    Ask {
        /// The leader's term.
        term: LeaderTerm,
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// The word that the robot has no right to a pair.
    Refuse {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
}

/// One stream of a robot; a newer one takes the place of an older.
#[derive(Debug)]
struct Stream<M> {
    number: u64,
    sender: mpsc::Sender<M>,
}

/// A robot that is linked.
#[derive(Debug, Default)]
pub struct Seat {
    heartbeats: Option<Stream<BeatAnswer>>,
    work: Option<Stream<WorkOrder>>,
    /// What the robot said of itself last.
    pub report: RobotReport,
    /// The report's tags, as every placement shares them.
    pub tags: Arc<[String]>,
    /// The report's capabilities, made whole, as every placement shares them.
    pub capabilities: Arc<[String]>,
}

/// All robots that are linked.
#[derive(Debug, Default)]
pub struct Seats {
    seats: BTreeMap<NodeId, Seat>,
}

impl Seats {
    /// The robot of `node`.
    pub fn get(&self, node: NodeId) -> Option<&Seat> {
        self.seats.get(&node)
    }

    /// The robot of `node` said `report` of itself. Returns whether that is new.
    pub fn report(&mut self, node: NodeId, report: RobotReport) -> bool {
        let seat = self.seats.entry(node).or_default();
        let is_new = seat.report != report;
        if is_new {
            (seat.tags, seat.capabilities) = (report.tags.as_slice().into(), capabilities_of(&report));
            seat.report = report;
        }
        is_new
    }

    /// A heartbeat stream of `node` opened.
    pub fn open_heartbeats(&mut self, node: NodeId, number: u64, sender: mpsc::Sender<BeatAnswer>) {
        self.seats.entry(node).or_default().heartbeats = Some(Stream { number, sender });
    }

    /// A work stream of `node` opened.
    pub fn open_work(&mut self, node: NodeId, number: u64, sender: mpsc::Sender<WorkOrder>) {
        self.seats.entry(node).or_default().work = Some(Stream { number, sender });
    }

    /// Stream `number` of `node` closed.
    pub fn close(&mut self, node: NodeId, number: u64) {
        let Some(seat) = self.seats.get_mut(&node) else { return };
        seat.heartbeats.take_if(|stream| stream.number == number);
        seat.work.take_if(|stream| stream.number == number);
        if seat.heartbeats.is_none() && seat.work.is_none() {
            self.seats.remove(&node);
        }
    }

    /// Closes every stream: the robots have to find another leader.
    pub fn close_all(&mut self) {
        self.seats.clear();
    }

    /// Answers a heartbeat; an answer that finds no room is lost.
    pub fn answer(&self, answer: BeatAnswer) {
        let stream = self.seats.get(&answer.session.node).and_then(|seat| seat.heartbeats.as_ref());
        if stream.is_none_or(|stream| stream.sender.try_send(answer).is_err()) {
            tracing::debug!("a heartbeat's answer found no way to its robot");
        }
    }

    /// Gives an order to the work stream of `node`; one that finds no room is given again later.
    pub fn order(&self, node: NodeId, order: WorkOrder) {
        let stream = self.seats.get(&node).and_then(|seat| seat.work.as_ref());
        if stream.is_none_or(|stream| stream.sender.try_send(order).is_err()) {
            tracing::debug!(%node, "an order found no way to its robot");
        }
    }
}

impl Seat {
    /// Whether work can be sent down.
    pub fn takes_work(&self) -> bool {
        self.work.is_some()
    }
}

/// What a robot said it can do. One that names no interpreter is of the time when there was only the first.
fn capabilities_of(report: &RobotReport) -> Arc<[String]> {
    let mut capabilities = report.capabilities.clone();
    if !capabilities.iter().any(|word| word.starts_with(INTERPRETER_WORD)) {
        capabilities.push(format!("{INTERPRETER_WORD}1"));
        capabilities.sort();
    }
    capabilities.into()
}
