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
    /// How much longer each next candidate waits where there are at most three voters.
    pub rank_step_of_three: Duration,
    /// The same where there are more: the last of them must not come too late either.
    pub rank_step_of_five: Duration,
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
        rank_step_of_three: Duration::from_millis(150),
        rank_step_of_five: Duration::from_millis(100),
        robot_lease: Duration::from_millis(2_000),
    };
    /// Share of a lease kept as margin between the robot's clock and the leader's, percent.
    pub const CLOCK_MARGIN_PERCENT: u32 = 1;

    /// Allowed for what is not waiting when a leader dies: poll, vote, own first entry, reconnect and answer. The figures
    /// of failover in `docs/performance.md` measure it.
    pub const BLINK_WORK: Duration = Duration::from_millis(150);

    /// How much longer each next of `voters` candidates waits.
    pub const fn rank_step(&self, voters: usize) -> Duration {
        if voters > 3 { self.rank_step_of_five } else { self.rank_step_of_three }
    }

    /// The same durations, each `factor` times as long.
    #[must_use]
    pub fn scaled(&self, factor: u32) -> Self {
        Self {
            group_lease: self.group_lease * factor,
            election_min: self.election_min * factor,
            group_heartbeat: self.group_heartbeat * factor,
            watchdog_tick: self.watchdog_tick * factor,
            rank_step_of_three: self.rank_step_of_three * factor,
            rank_step_of_five: self.rank_step_of_five * factor,
            robot_lease: self.robot_lease * factor,
        }
    }

    /// How often a robot sends a heartbeat: five in a lease.
    pub const fn robot_heartbeat(&self) -> Duration {
        Duration::from_nanos(self.robot_lease.as_nanos() as u64 / 5)
    }

    /// How long the robot itself counts on its lease: the lease less the clock margin.
    pub const fn robot_lease_at_robot(&self) -> Duration {
        Duration::from_nanos(self.robot_lease.as_nanos() as u64 / 100 * (100 - Self::CLOCK_MARGIN_PERCENT as u64))
    }

    /// How long the leader counts the absence of a robot that may finish a job cut off for `within`: the clock margin more.
    pub fn finish_within_at_leader(within: Duration) -> Duration {
        within.saturating_add(within.saturating_mul(Self::CLOCK_MARGIN_PERCENT) / 100)
    }

    /// The longest a robot may go without an answer when a leader dies, with `voters` voters: group lease, watchdog tick,
    /// the last rank's wait, `work` for poll, vote, own first entry, reconnect and answer, and two heartbeats.
    pub fn leader_blink_max(&self, voters: usize, work: Duration) -> Duration {
        let ranks = u32::try_from(voters.saturating_sub(2)).unwrap_or(u32::MAX);
        let waiting = self.rank_step(voters).saturating_mul(ranks);
        self.group_lease + self.watchdog_tick + waiting + work + self.robot_heartbeat() * 2
    }

    /// Whether a leader's death leaves every robot its lease (promise 8), allowing `work` for what is not waiting.
    pub fn keeps_control_blink_promise(&self, voters: usize, work: Duration) -> bool {
        self.leader_blink_max(voters, work) < self.robot_lease_at_robot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lan_profile_keeps_promise_8() {
        assert!(Timing::LAN.keeps_control_blink_promise(3, Duration::from_millis(200)));
        assert!(Timing::LAN.keeps_control_blink_promise(5, Timing::BLINK_WORK));
        let slow = Timing { rank_step_of_five: Timing::LAN.rank_step_of_three, ..Timing::LAN };
        assert!(!slow.keeps_control_blink_promise(5, Timing::BLINK_WORK));
        assert!(Timing::LAN.scaled(8).keeps_control_blink_promise(5, Timing::BLINK_WORK));
        let hasty = Timing { robot_lease: Duration::from_millis(1_000), ..Timing::LAN };
        assert!(!hasty.keeps_control_blink_promise(3, Duration::from_millis(200)));
    }

    #[test]
    fn the_robot_counts_less_than_the_leader() {
        assert_eq!(Timing::LAN.robot_lease_at_robot(), Duration::from_millis(1_980));
        assert_eq!(Timing::LAN.robot_heartbeat(), Duration::from_millis(400));
        assert_eq!(Timing::finish_within_at_leader(Duration::from_secs(600)), Duration::from_secs(606));
    }
}
