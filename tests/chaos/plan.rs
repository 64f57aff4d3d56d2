//! What is done to a fleet, and when: a pure function of a seed.

use crate::harness::seed::Random;

/// Whom a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Who leads when the fault begins.
    Leader,
    /// This node.
    Node(usize),
}

/// One fault. It begins, holds for a while and is taken away again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a start.
    Kill(Victim),
    /// SIGKILL to every node, and a start of every one.
    KillAll,
    /// SIGSTOP and SIGCONT.
    Freeze(Victim),
    /// A node without any other.
    CutNode(Victim),
    /// These nodes without the rest.
    CutSide(Vec<usize>),
    /// Every node without any other; only the plan of heals chooses it.
    CutAll,
    /// A node that hears nobody.
    Deaf(Victim),
    /// A node that nobody hears.
    Mute(Victim),
    /// So many of a hundred packets between any two nodes are lost.
    Loss(u32),
    /// The same between these nodes and the rest; no plan chooses it.
    LossBetween(Vec<usize>, u32),
    /// Packets over the line between two sides take so many milliseconds each way; no plan chooses it.
    Latency(u32),
    /// A node with so many kbit/s each way.
    Slow(Victim, u32),
    /// A disk without a free byte.
    FullDisk(Victim),
    /// Power lost and returned, on one machine …
    PowerLoss(Victim),
    /// … or on all at once.
    PowerLossOfAll,
}

/// Kinds of faults that a plan chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    KillAll,
    Freeze,
    CutNode,
    CutSide,
    OneWay,
    Loss,
    Slow,
    FullDisk,
    PowerLoss,
    PowerLossOfAll,
}

/// Faults that begin and end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Pause before, milliseconds.
    pub(crate) pause_ms: u64,
    /// What begins then.
    pub(crate) faults: Vec<Fault>,
    /// How long it holds, milliseconds.
    pub(crate) hold_ms: u64,
}

/// Shortest and longest time for which faults hold: below and above every lease and timeout of the fleet. What held is
/// blamed for moved jobs up to 15 s later, so that it holds no longer than that.
const HOLD_MS: (u64, u64) = (300, 9_000);
/// Shortest and longest pause before a step.
const PAUSE_MS: (u64, u64) = (500, 4_000);

/// The steps of `length_ms` for a fleet of `nodes`: up to `together` faults at once, of these `kinds`.
pub(crate) fn plan(random: &mut Random, kinds: &[Kind], together: usize, nodes: usize, length_ms: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut left_ms = length_ms;
    loop {
        let (pause_ms, hold_ms) = (between(random, PAUSE_MS), between(random, HOLD_MS));
        if pause_ms + hold_ms > left_ms {
            return steps;
        }
        left_ms -= pause_ms + hold_ms;
        let count = 1 + random.below(together);
        let faults = (0..count)
            .map(|_| {
                let kind = kinds[random.below(kinds.len())];
                fault(random, kind, nodes)
            })
            .collect();
        steps.push(Step { pause_ms, faults, hold_ms });
    }
}

fn between(random: &mut Random, (least, most): (u64, u64)) -> u64 {
    least + random.next() % (most - least + 1)
}

fn fault(random: &mut Random, kind: Kind, nodes: usize) -> Fault {
    // Leaders have the most to lose.
    let victim = match random.below(3) {
        0 => Victim::Leader,
        _ => Victim::Node(random.below(nodes)),
    };
    match kind {
        Kind::Kill => Fault::Kill(victim),
        Kind::KillAll => Fault::KillAll,
        Kind::Freeze => Fault::Freeze(victim),
        Kind::CutNode => Fault::CutNode(victim),
        Kind::CutSide => Fault::CutSide(side(random, nodes)),
        Kind::OneWay if random.below(2) == 0 => Fault::Deaf(victim),
        Kind::OneWay => Fault::Mute(victim),
        Kind::Loss => Fault::Loss(1 + u32::try_from(random.below(30)).unwrap_or_default()),
        Kind::Slow => Fault::Slow(victim, [64, 256, 1_024][random.below(3)]),
        Kind::FullDisk => Fault::FullDisk(victim),
        Kind::PowerLoss => Fault::PowerLoss(victim),
        Kind::PowerLossOfAll => Fault::PowerLossOfAll,
    }
}

/// At least two nodes and at most half of them.
pub(crate) fn side(random: &mut Random, nodes: usize) -> Vec<usize> {
    let size = 2 + random.below((nodes / 2).saturating_sub(1).max(1));
    let mut rest: Vec<usize> = (0..nodes).collect();
    let mut side: Vec<usize> = (0..size.min(nodes)).map(|_| rest.remove(random.below(rest.len()))).collect();
    side.sort_unstable();
    side
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 11] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::Freeze,
        Kind::CutNode,
        Kind::CutSide,
        Kind::OneWay,
        Kind::Loss,
        Kind::Slow,
        Kind::FullDisk,
        Kind::PowerLoss,
        Kind::PowerLossOfAll,
    ];

    #[test]
    fn a_seed_gives_the_same_plan_and_another_one_another() {
        let of = |seed| plan(&mut Random::new(seed), &ALL, 2, 5, 60_000);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_plan_keeps_its_length_and_uses_every_kind() {
        let mut seen: Vec<std::mem::Discriminant<Fault>> = Vec::new();
        for seed in 0..50 {
            let steps = plan(&mut Random::new(seed), &ALL, 2, 5, 60_000);
            assert!(steps.iter().map(|step| step.pause_ms + step.hold_ms).sum::<u64>() <= 60_000);
            for fault in steps.iter().flat_map(|step| &step.faults) {
                if let Fault::CutSide(side) = fault {
                    assert_eq!(side.len(), 2, "of five nodes");
                    assert!(side[0] < side[1] && side[1] < 5, "{side:?}");
                }
                let kind = std::mem::discriminant(fault);
                if !seen.contains(&kind) {
                    seen.push(kind);
                }
            }
        }
        assert_eq!(seen.len(), 12);
    }
}
