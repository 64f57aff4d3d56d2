//! Tells what happens, for the hash and for whoever reads it.

use super::{Event, Machine, World};
use crate::message::{Alarm, Fact, Message};

impl World {
    pub(super) fn note(&mut self, event: &Event) {
        let text = match event {
            Event::Wake { alarm: Alarm::Tick, .. } | Event::Gossip { .. } => return,
            Event::Deliver { machine, message, .. } => format!("to {machine}: {}", brief(message)),
            other => format!("{other:?}"),
        };
        self.log.note(format!("{:>9} {text}", self.agenda.now_us()));
    }

    /// Notes what somebody does, for whoever reads the log.
    pub(crate) fn say(&mut self, text: &str) {
        self.log.note(format!("{:>9} {text}", self.agenda.now_us()));
    }

    pub(super) fn note_fact(&mut self, fact: &Fact) {
        let text = match fact {
            Fact::Applied(applied) => {
                let fact = applied.as_ref();
                format!("{} applies {:?}: {:?} {}", fact.node, fact.place, fact.outcomes, fact.fingerprint)
            }
            other => format!("{other:?}"),
        };
        self.log.note(format!("{:>9}   {text}", self.agenda.now_us()));
    }
}

impl Machine {
    pub(super) fn describe(&self) -> String {
        match &self.process {
            None => format!("{}: down", self.node),
            Some(process) => format!(
                "{}: term {}, applied {} of {}, leads {}, serves {:?}, session {:?}",
                self.node,
                process.group.consensus.vote.term,
                process.group.applied,
                process.group.consensus.last().1,
                process.group.consensus.leads(),
                process.group.serving,
                process.robot.session.session(),
            ),
        }
    }
}

/// A message in few words.
fn brief(message: &Message) -> String {
    match message {
        Message::Down(down) => match down.as_ref() {
            fleet_node::link::WorkDown::Assign(assignment) => {
                format!("assign {:?} of {}", assignment.pair, assignment.session)
            }
            other => format!("{other:?}"),
        },
        Message::Up(fleet_node::link::WorkUp::Records { session, records }) => {
            let (from, count) = (records.from, records.records.len());
            format!("{count} records of {} from {from} under {} of {session}", records.job, records.fence)
        }
        Message::Ask { from, ask: crate::message::Ask::Log(request), .. } => match request {
            crate::consensus::Request::Append { term, previous, entries, committed } => {
                format!("append from {from} in {term}: {} after {previous:?}, committed {committed}", entries.len())
            }
            crate::consensus::Request::Install { term, snapshot } => {
                format!(
                    "snapshot from {from} in {term}: up to {:?} in {} pieces",
                    snapshot.place,
                    snapshot.chunks.len()
                )
            }
            other => format!("{other:?} of {from}"),
        },
        Message::Heartbeat(heartbeat) => format!("{:?}", heartbeat.beat),
        Message::Wish { number, .. } => format!("wish {number}"),
        other => format!("{other:?}"),
    }
}
