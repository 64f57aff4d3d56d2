//! How long the holder of a job that may be finished cut off (`onDisconnect: finish`) has been away, as a leader counts it.
//!
//! Why no two robots act for such a job (promise 2). Let `s` be when the robot sent the last heartbeat that was confirmed
//! to it in the session its assignment is bound to.
//! - The robot acts until `s` + bound on its own clock, and never after its own restart.
//! - A leader counts only while that session is dead for good: run out on this leader's clock (which began no earlier than
//!   at `s`), or never heard by it and the wait of a new leader over (no earlier leader renewed anything later), or older
//!   than one that the node has opened since. Then nothing renews the right but a committed [`Action::Rebind`], which
//!   begins the next absence with nothing elapsed *before* any heartbeat of the new session is confirmed with the job in
//!   it. So what is committed as elapsed never exceeds the time since `s`.
//! - A new leader counts on from what is committed, and what it adds begins when it finds the session dead, which is later
//!   than that commit: the sum never exceeds the time since `s` either.
//! - It takes the job away only past the bound + 1 %, the margin between clocks, by a command that is void once the absence
//!   has another number.
//!
//! So when the job may go elsewhere, at least the bound has passed since `s` on the robot's clock.
//!
//! [`Action::Rebind`]: fleet_replication::command::Action::Rebind

use std::time::Duration;

use fleet_core::BootInstant;
use fleet_core::timing::Timing;
use fleet_store::record::Absence;
use serde::{Deserialize, Serialize};

/// In how many steps an absence is committed.
const STEPS: u32 = 20;

/// What is known of a holder that may finish a job cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Finishing {
    /// How long its robot may run on since it was last confirmed.
    pub within: Duration,
    /// The absence as committed when this became known.
    pub absence: Absence,
}

/// What is due of an absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// To be committed.
    Note(Absence),
    /// The bound is over: the job may be taken away.
    Over(Absence),
}

/// An absence being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Count {
    since: BootInstant,
    /// Elapsed when it was last due to be committed.
    noted: Duration,
}

impl Count {
    /// Begins to count at `now`.
    pub(super) fn begin(finishing: Finishing, now: BootInstant) -> Self {
        Self { since: now, noted: Duration::from_millis(finishing.absence.elapsed_ms) }
    }

    /// How long the absence has lasted.
    pub(super) fn elapsed(&self, finishing: Finishing, now: BootInstant) -> Duration {
        Duration::from_millis(finishing.absence.elapsed_ms).saturating_add(now.saturating_since(self.since))
    }

    /// What is due at `now`.
    pub(super) fn due(&mut self, finishing: Finishing, now: BootInstant) -> Due {
        let elapsed = self.elapsed(finishing, now);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let absence = Absence { elapsed_ms, ..finishing.absence };
        if elapsed >= Timing::finish_within_at_leader(finishing.within) {
            return Due::Over(absence);
        }
        if elapsed.saturating_sub(self.noted) >= finishing.within / STEPS {
            self.noted = elapsed;
            return Due::Note(absence);
        }
        Due::Nothing
    }
}
