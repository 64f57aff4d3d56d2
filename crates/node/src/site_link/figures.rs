//! What a link carries and how it stands, for metrics and for people. Nothing is decided by it.

use std::time::Duration;

use crate::ports::SiteTopic;

/// What a message on a link is about, gossip included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A question or an answer of a topic.
    Topic(SiteTopic),
    /// Packets of gossip.
    Gossip,
}

impl Traffic {
    /// Every kind, the most urgent first, each at its place in [`LinkFigures::flows`].
    pub const ALL: [Self; 5] = [
        Self::Gossip,
        Self::Topic(SiteTopic::Courier),
        Self::Topic(SiteTopic::Client),
        Self::Topic(SiteTopic::Registry),
        Self::Topic(SiteTopic::Catalog),
    ];

    /// Its word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gossip => "gossip",
            Self::Topic(SiteTopic::Courier) => "courier",
            Self::Topic(SiteTopic::Client) => "client",
            Self::Topic(SiteTopic::Registry) => "registry",
            Self::Topic(SiteTopic::Catalog) => "catalog",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Gossip => 0,
            Self::Topic(SiteTopic::Courier) => 1,
            Self::Topic(SiteTopic::Client) => 2,
            Self::Topic(SiteTopic::Registry) => 3,
            Self::Topic(SiteTopic::Catalog) => 4,
        }
    }
}

/// How much of one kind went over a link, and how much of it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of messages sent so far, without what frames and transport add.
    pub sent_bytes: u64,
    /// Bytes of messages received so far.
    pub received_bytes: u64,
    /// Messages that wait to be sent, one that is on its way included.
    pub waiting: usize,
}

/// The figures of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFigures {
    /// How long the last piece that was timed took there, with its acknowledgement back; `None` before the first.
    pub round_trip: Option<Duration>,
    /// By kind, in the order of [`Traffic::ALL`].
    pub flows: [Flow; Traffic::ALL.len()],
}

impl LinkFigures {
    /// The figures of one kind.
    pub fn flow(&self, traffic: Traffic) -> &Flow {
        &self.flows[traffic.place()]
    }

    pub(super) fn flow_mut(&mut self, traffic: Traffic) -> &mut Flow {
        &mut self.flows[traffic.place()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_its_word() {
        for (place, traffic) in Traffic::ALL.into_iter().enumerate() {
            assert_eq!(traffic.place(), place, "{}", traffic.as_str());
        }
    }
}
