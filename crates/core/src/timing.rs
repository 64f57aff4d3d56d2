//! The named durations of a site's leases and elections, and the inequality that keeps promise 8.

use std::time::Duration;

/// A timing profile. All durations scale together; [`Timing::LAN`] is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long voters stay loyal to a silent leader (openraft's `election_timeout_max`).
    pub group_lease: Duration,
    /// Lower end of openraft's election timeout.
    pub election_min: Duration,
    /// How often a leader shows it lives.
    pub group_heartbeat: Duration,
    /// How often a voter checks whether it should ask for an election.
    pub watchdog_tick: Duration,
    /// How much longer each next candidate waits.
    pub rank_step: Duration,
    /// How long a robot may act without an answer from the leader.
    pub robot_lease: Duration,
}

impl Timing {
    /// For nodes with good links to each other.
    pub const LAN: Self = Self {
        group_lease: Duration::from_millis(600),
        election_min: Duration::from_millis(500),
        group_heartbeat: Duration::from_millis(150),
        watchdog_tick: Duration::from_millis(100),
        rank_step: Duration::from_millis(150),
        robot_lease: Duration::from_millis(2_000),
    };
    /// Share of a lease kept as margin between the robot's clock and the leader's, percent.
    pub const CLOCK_MARGIN_PERCENT: u32 = 1;

    /// How often a robot sends a heartbeat: five in a lease.
    pub const fn robot_heartbeat(&self) -> Duration {
        Duration::from_nanos(self.robot_lease.as_nanos() as u64 / 5)
    }

    /// How long the robot itself counts on its lease: the lease less the clock margin.
    pub const fn robot_lease_at_robot(&self) -> Duration {
        Duration::from_nanos(self.robot_lease.as_nanos() as u64 / 100 * (100 - Self::CLOCK_MARGIN_PERCENT as u64))
    }

    /// The longest a robot may go without an answer when a leader dies, with `voters` voters: group lease, watchdog tick,
    /// the last rank's wait, `work` for poll, vote, own first entry, reconnect and answer, and two heartbeats.
    pub fn leader_blink_max(&self, voters: u32, work: Duration) -> Duration {
        let ranks = voters.saturating_sub(2);
        self.group_lease + self.watchdog_tick + self.rank_step * ranks + work + self.robot_heartbeat() * 2
    }

    /// Whether a leader's death leaves every robot its lease (promise 8), allowing `work` for what is not waiting.
    pub fn keeps_control_blink_promise(&self, voters: u32, work: Duration) -> bool {
        self.leader_blink_max(voters, work) < self.robot_lease_at_robot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lan_profile_keeps_promise_8() {
        assert!(Timing::LAN.keeps_control_blink_promise(3, Duration::from_millis(200)));
        let five = Timing { rank_step: Duration::from_millis(100), ..Timing::LAN };
        assert!(five.keeps_control_blink_promise(5, Duration::from_millis(150)));
        let hasty = Timing { robot_lease: Duration::from_millis(1_000), ..Timing::LAN };
        assert!(!hasty.keeps_control_blink_promise(3, Duration::from_millis(200)));
    }

    #[test]
    fn the_robot_counts_less_than_the_leader() {
        assert_eq!(Timing::LAN.robot_lease_at_robot(), Duration::from_millis(1_980));
        assert_eq!(Timing::LAN.robot_heartbeat(), Duration::from_millis(400));
    }
}
