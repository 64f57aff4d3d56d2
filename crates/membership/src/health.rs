//! How far this node can trust what it sees: a node whose own timers come late hears answers late, so it gives suspects
//! more time instead of declaring the living dead (the local health of Lifeguard, after Dadgar et al.).
//!
//! A pure function of the lateness it is told. It reads no clock.

use std::time::Duration;

/// Lateness up to here is what any busy machine shows.
const LATE_FROM: Duration = Duration::from_millis(50);
/// Each this much lateness counts once more.
const LATE_STEP: Duration = Duration::from_millis(100);
/// How long timers must come on time before a quarter of the lost trust returns.
const CALM: Duration = Duration::from_secs(1);
/// What each point of the score adds to the time of a suspect, percent. A machine that is a little busy gives a little
/// more time and still tells of a death within its bound.
const PERCENT_PER_POINT: u32 = 25;
/// Worst score: suspicion lasts eight times as long.
const SCORE_MAX: u32 = 28;

/// The score of this node, 0 (trusts itself) to 28.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalHealth {
    score: u32,
    calm_since: Duration,
    blind: Duration,
}

impl LocalHealth {
    /// Takes into account that at `now` the earliest due timer was `late`.
    pub fn observe(&mut self, now: Duration, late: Duration) {
        if late >= LATE_FROM {
            let steps = u32::try_from(late.as_millis() / LATE_STEP.as_millis()).unwrap_or(SCORE_MAX);
            self.score = self.score.saturating_add(1).saturating_add(steps).min(SCORE_MAX);
            self.calm_since = now;
            self.blind = self.blind.saturating_add(late);
        } else if self.score > 0 && now.saturating_sub(self.calm_since) >= CALM {
            self.score -= (self.score / 4).max(1);
            self.calm_since = now;
        }
    }

    /// The time of a suspect in percent of what a healthy node gives.
    pub fn suspicion_percent(&self) -> u32 {
        100 + self.score * PERCENT_PER_POINT
    }

    /// How long, all in all, this node did not listen.
    pub fn blind(&self) -> Duration {
        self.blind
    }

    /// When the time of a suspect ends that a healthy node would give `suspicion`, if it began at `began` with
    /// [`Self::blind`] at `blind_before`. Time in which this node did not listen does not count against the suspect.
    pub fn suspicion_end(&self, began: Duration, blind_before: Duration, suspicion: Duration) -> Duration {
        began + suspicion * self.suspicion_percent() / 100 + self.blind.saturating_sub(blind_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn lateness_lengthens_suspicion_and_calm_shortens_it_again() {
        let mut health = LocalHealth::default();
        health.observe(millis(100), millis(10));
        assert_eq!((health.suspicion_percent(), health.blind()), (100, millis(0)));
        health.observe(millis(200), millis(60));
        assert_eq!(health.suspicion_percent(), 125);
        health.observe(millis(1_000), millis(620));
        assert_eq!((health.suspicion_percent(), health.blind()), (300, millis(680)));
        health.observe(millis(1_900), millis(0));
        assert_eq!(health.suspicion_percent(), 300, "not calm for long enough");
        health.observe(millis(2_000), millis(0));
        assert_eq!(health.suspicion_percent(), 250);
        for second in 3..10 {
            health.observe(millis(second * 1_000), millis(0));
        }
        assert_eq!(health.suspicion_percent(), 100);
    }

    #[test]
    fn a_suspect_gets_longer_when_this_node_turns_out_to_be_late() {
        let mut health = LocalHealth::default();
        health.observe(millis(500), millis(90));
        let blind_before = health.blind();
        let end = |health: &LocalHealth| health.suspicion_end(millis(10_000), blind_before, millis(1_000));
        assert_eq!(end(&health), millis(11_250), "late before: a little longer");
        health.observe(millis(11_000), millis(400));
        assert_eq!(end(&health), millis(10_000 + 2_500 + 400), "later still, and blind for a while");
    }

    #[test]
    fn the_time_is_bounded() {
        let mut health = LocalHealth::default();
        health.observe(millis(1), Duration::MAX);
        health.observe(millis(2), Duration::MAX);
        assert_eq!(health.suspicion_percent(), 800);
    }
}
