//! Cuts of the lengths that try a heal most: how soon after each everybody accepts a job is what this is about.
//!
//! TCP repeats what was not acknowledged after 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s, so a connection that lived through a cut
//! of 6.5 s says nothing for six seconds more unless somebody gives it up. 15 s is longer than any connection is kept.

use crate::harness::seed::Random;
use crate::plan::{Fault, Step, Victim, side};
use crate::run::OneSite;

/// How long each cut of a round holds, milliseconds. A round with its pauses takes a minute; the gate has time for two cuts.
const HOLDS_MS: [u64; 5] = [6_500, 15_000, 6_500, 10_500, 6_500];
/// Quiet between two cuts, so that what is measured after one is not the end of another.
const PAUSE_MS: u64 = 3_000;

/// Cuts among the scenario's nodes for `length_ms`: of one node, of the leader, of a side, and of each from all others, so
/// that a leader has to be elected after it.
pub(crate) fn plan(scenario: &OneSite, random: &mut Random, length_ms: u64) -> Vec<Step> {
    let (nodes, mut left_ms) = (scenario.nodes, length_ms);
    let mut steps = Vec::new();
    for (number, hold_ms) in HOLDS_MS.iter().copied().cycle().enumerate() {
        let Some(rest_ms) = left_ms.checked_sub(PAUSE_MS + hold_ms) else { break };
        left_ms = rest_ms;
        let faults = match number % HOLDS_MS.len() {
            0 => vec![Fault::CutNode(Victim::Node(random.below(nodes)))],
            1 | 2 => vec![Fault::CutNode(Victim::Leader)],
            3 => vec![Fault::CutSide(side(random, nodes))],
            _ => vec![Fault::CutAll],
        };
        steps.push(Step { pause_ms: PAUSE_MS, faults, hold_ms });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::{Scenario, named};

    #[test]
    fn every_kind_of_cut_fits_into_a_minute() {
        let Scenario::OneSite(heals) = named("heals") else { panic!("it has one site") };
        let steps = plan(&heals, &mut Random::new(1), 60_000);
        assert_eq!(steps.len(), HOLDS_MS.len());
        assert!(steps[4].faults == [Fault::CutAll], "{steps:?}");
        assert_eq!(plan(&heals, &mut Random::new(1), 20_000).len(), 1);
    }
}
