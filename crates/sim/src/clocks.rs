//! The clocks of one machine: a lease clock that runs a little too fast or too slow, and a wall clock that may be wrong.

use std::time::Duration;

use fleet_core::{BootInstant, Timestamp};

/// The wall time at the beginning of every simulation: 2026-01-01T00:00:00Z.
const BEGINNING_MS: u64 = 1_767_225_600_000;

/// The clocks of one machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// How many parts in a million the lease clock runs too fast.
    pub drift_ppm: i64,
    /// How far the wall clock is ahead, milliseconds.
    pub wall_ahead_ms: i64,
    /// What the lease clock shows at the beginning, microseconds: machines were not switched on together.
    pub running_since_us: u64,
}

impl Clocks {
    /// The lease clock when it is `now_us` in the simulation.
    pub fn boot_now(&self, now_us: u64) -> BootInstant {
        let drifted = i128::from(now_us) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        BootInstant(Duration::from_micros(self.running_since_us + u64::try_from(drifted).unwrap_or_default()))
    }

    /// The wall clock when it is `now_us` in the simulation.
    pub fn wall_now(&self, now_us: u64) -> Timestamp {
        Timestamp((BEGINNING_MS + now_us / 1_000).saturating_add_signed(self.wall_ahead_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_drift_and_are_wrong() {
        let clocks = Clocks { drift_ppm: -1_000, wall_ahead_ms: -5, running_since_us: 7 };
        assert_eq!(clocks.boot_now(1_000_000).0, Duration::from_micros(999_007));
        assert_eq!(clocks.wall_now(2_000), Timestamp(BEGINNING_MS - 3));
    }
}
