//! Timing and packet size of gossip. Every number follows from the profile, the number of members and this node's own
//! health.
//!
//! How a killed node becomes known within 2 s (LAN): each survivor probes one member per 150 ms, in rounds. With three
//! nodes the dead one is probed after at most three periods, and at most one later the probe has failed; with fifty, one
//! of 49 probes hits it within four periods in 98 of 100 cases. Then 1 s in which a live node can contradict, then
//! the news spreads: every 50 ms each node that knows tells three others.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use crate::seal::OVERHEAD_BYTES;

/// How long a member that stays down is remembered: longer than a site may be cut off.
const REMOVE_DOWN_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often members that seem down are called: what bounds how long a healed split is not noticed.
const ANNOUNCE_TO_DOWN_EVERY: Duration = Duration::from_secs(2);
/// Members asked to probe on this node's behalf.
const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// Which links the members have to each other. All members of a ring use the same profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Round trips below 50 ms; datagrams of 1,400 bytes. A killed node is known to all within 2 s.
    #[default]
    Lan,
    /// Round trips below 300 ms; datagrams of 1,200 bytes, which pass every IPv6 path and most tunnels.
    Wan,
}

impl Profile {
    /// Largest datagram sent or accepted, bytes of UDP payload.
    pub const fn datagram_bytes_max(self) -> usize {
        match self {
            Self::Lan => 1_400,
            Self::Wan => 1_200,
        }
    }

    /// How often one member is probed.
    pub const fn probe_period(self) -> Duration {
        match self {
            Self::Lan => Duration::from_millis(150),
            Self::Wan => Duration::from_millis(1_000),
        }
    }

    /// How long a healthy node leaves a suspect to contradict.
    pub const fn suspicion(self) -> Duration {
        match self {
            Self::Lan => Duration::from_millis(1_000),
            Self::Wan => Duration::from_secs(4),
        }
    }

    /// How often a node repeats what it says about itself. Between sites every byte is dear: whoever missed it asks.
    pub(crate) const fn repeat_every(self) -> Duration {
        match self {
            Self::Lan => Duration::from_secs(10),
            Self::Wan => Duration::from_secs(120),
        }
    }

    /// How often a suspect is told so. Between sites a cut makes suspects of many at once.
    pub(crate) const fn accuse_every(self) -> Duration {
        match self {
            Self::Lan => Duration::from_millis(100),
            Self::Wan => Duration::from_millis(1_000),
        }
    }

    /// foca's configuration in these circumstances.
    pub(crate) fn detector(self, circumstances: Circumstances) -> foca::Config {
        let lan = self == Self::Lan;
        let millis = |lan_ms, wan_ms| Duration::from_millis(if lan { lan_ms } else { wan_ms });
        let announce_every = if circumstances.is_settling { millis(500, 2_000) } else { millis(5_000, 10_000) };
        let swim_bytes_max = self.datagram_bytes_max() - OVERHEAD_BYTES - 1;
        foca::Config {
            probe_period: self.probe_period(),
            probe_rtt: millis(50, 350),
            num_indirect_probes: INDIRECT_PROBES,
            max_transmissions: transmissions(circumstances.members),
            suspect_to_down_after: self.suspicion() * circumstances.suspicion_percent / 100,
            remove_down_after: Some(REMOVE_DOWN_AFTER),
            max_packet_size: NonZeroUsize::MIN.saturating_add(swim_bytes_max - 1),
            notify_down_members: true,
            periodic_announce: Some(periodic(announce_every, 1)),
            periodic_announce_to_down_members: Some(periodic(ANNOUNCE_TO_DOWN_EVERY, 3)),
            periodic_gossip: Some(periodic(millis(50, 250), if lan { 3 } else { 4 })),
        }
    }
}

/// What the configuration of the failure detector depends on besides the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// Active members, this node included.
    pub(crate) members: usize,
    /// The time of suspects in percent of what a healthy node gives.
    pub(crate) suspicion_percent: u32,
    /// Whether members joined lately: then this node asks for more of them more often.
    pub(crate) is_settling: bool,
}

fn periodic(frequency: Duration, members: usize) -> foca::PeriodicParams {
    let num_members = NonZeroUsize::MIN.saturating_add(members.saturating_sub(1));
    foca::PeriodicParams { frequency, num_members }
}

/// How often each node passes an update on: `3 ln(n + 1) + 2`, so that the share of nodes an update never reaches
/// (about `e^-transmissions`) stays below `1 / n³`. Too low a number costs seconds: who missed it must find out alone.
fn transmissions(members: usize) -> NonZeroU8 {
    let wanted = (3.0 * (members as f64 + 1.0).ln()).ceil().clamp(1.0, 60.0);
    NonZeroU8::MIN.saturating_add(wanted as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transmissions_grow_with_the_fleet() {
        let counts: Vec<_> = [1, 3, 10, 50, 300].into_iter().map(|members| transmissions(members).get()).collect();
        assert_eq!(counts, [5, 7, 10, 14, 20]);
    }

    #[test]
    fn sealed_packets_fit_their_datagram() {
        for profile in [Profile::Lan, Profile::Wan] {
            let config = profile.detector(Circumstances { members: 50, suspicion_percent: 100, is_settling: false });
            assert_eq!(config.max_packet_size.get() + 1 + OVERHEAD_BYTES, profile.datagram_bytes_max());
            assert!(config.probe_rtt * 2 < config.probe_period, "an indirect probe needs its time too");
            assert!(crate::metadata::ITEM_BYTES_MAX + 120 < config.max_packet_size.get());
        }
    }
}
