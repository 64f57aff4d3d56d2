//! What came of a run: what the judge found, and the figures that the closing line of a run and of many runs are made of.

use std::fmt;
use std::time::Duration;

use fleet_core::invariant::Invariant;

use crate::harness::judge::Violation;

/// One run, or many together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Jobs that were wanted.
    pub(crate) jobs: usize,
    /// Those among them whose robot was lost too often.
    pub(crate) given_up: usize,
    /// Requests that the outside saw.
    pub(crate) requests: usize,
    /// Longest time after a heal until everybody saw everybody, in a site or between sites.
    pub(crate) whole: Duration,
    /// Longest time after a heal until each node had accepted a job.
    pub(crate) accepted: Duration,
    /// How often the machine stalled, and for how long at worst.
    pub(crate) stalls: (usize, Duration),
    /// Broken promises.
    pub(crate) violations: Vec<Violation>,
}

impl Outcome {
    /// Takes another one in.
    pub(crate) fn add(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.given_up += other.given_up;
        self.requests += other.requests;
        self.whole = self.whole.max(other.whole);
        self.accepted = self.accepted.max(other.accepted);
        self.stalls = (self.stalls.0 + other.stalls.0, self.stalls.1.max(other.stalls.1));
        self.violations.extend(other.violations);
    }

    /// Notes a heal.
    pub(crate) fn note_heal(&mut self, whole: Duration, accepted: Duration) {
        self.whole = self.whole.max(whole);
        self.accepted = self.accepted.max(accepted);
    }

    fn broken(&self, invariants: &[Invariant]) -> usize {
        self.violations.iter().filter(|violation| invariants.contains(&violation.invariant)).count()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.broken(&[Invariant::DurableAccept, Invariant::EveryJobEndsOrSaysWhyNot]);
        let doubled = self.broken(&[Invariant::AtMostOneActor, Invariant::NoFinishedEffectRunsAgain]);
        write!(
            to,
            "{} jobs, {lost} lost, {doubled} doubled, {} broken otherwise, {} given up, {} requests outside; slowest \
             after a heal: full membership {:.1?}, a submit to each node {:.1?}; the machine stalled {} times, at worst \
             for {:.0?}",
            self.jobs,
            self.violations.len() - lost - doubled,
            self.given_up,
            self.requests,
            self.whole,
            self.accepted,
            self.stalls.0,
            self.stalls.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_outcomes_are_summed_and_the_worst_is_kept() {
        let of = |invariant, seconds| Outcome {
            jobs: 3,
            whole: Duration::from_secs(seconds),
            stalls: (1, Duration::from_millis(seconds)),
            violations: vec![Violation { invariant, detail: String::new() }],
            ..Outcome::default()
        };
        let mut sum = of(Invariant::DurableAccept, 4);
        sum.add(of(Invariant::AtMostOneActor, 2));
        sum.add(of(Invariant::ControlBlinkRestartsNothing, 1));
        let text = sum.to_string();
        assert!(text.starts_with("9 jobs, 1 lost, 1 doubled, 1 broken otherwise, 0 given up"), "{text}");
        assert!(text.contains("full membership 4.0s") && text.ends_with("3 times, at worst for 4ms"), "{text}");
    }
}
