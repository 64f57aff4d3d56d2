//! Cuts of the lengths that try a heal most: how soon after each everybody accepts a job is what this is about.
//!
//! TCP repeats what was not acknowledged after 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s, so a connection that lived through a cut
//! of 6.5 s says nothing for six seconds more unless somebody gives it up. 15 s is longer than any connection is kept.

use crate::harness::seed::Random;
use crate::plan::{Fault, Step, Victim, side};
use crate::run::OneSite;

/// How long each cut of a round holds, milliseconds; a round with its pauses takes the minute that the gate gives it.
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
