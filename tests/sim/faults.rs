//! What goes wrong in a simulation: each seed picks some kinds of faults, and when they strike.

use fleet_sim::Dice;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process is killed and started again.
    Kill,
    /// The leader's process is killed and started again before anybody misses it.
    KillLeaderShortly,
    /// A machine loses its power.
    LosePower,
    /// The leader's process is killed, and started again some time later.
    KillLeader,
    /// All machines lose their power.
    LosePowerEverywhere,
    /// All machines of a site lose their power while their disks take long.
    LosePowerInWrites,
    /// What a robot reports comes late, and meanwhile its machine loses its power.
    LosePowerReporting,
    /// A process is stopped and goes on later.
    Pause,
    /// A machine is cut off from all others.
    Isolate,
    /// A leader whose robot has jobs is cut off from all others, which can go on without it, for longer than leases.
    IsolateLeader,
    /// Two machines do not hear each other, in one direction.
    CutOneWay,
    /// The machines are split in two.
    Split,
    /// The sites are cut off from each other.
    CutSites,
    /// Nothing goes from one site to the other; the other way works.
    CutSitesOneWay,
    /// The ways between the sites come and go.
    FlapSites,
    /// Letters between the sites come late, out of order and more than once.
    DelayLetters,
    /// All ways work again.
    RestoreWays,
    /// Messages are lost, repeated and late, more or less than before.
    Weather,
    /// A disk takes long.
    StallDisk,
    /// A disk is full for a while.
    FillDisk,
    /// A bit flips on a disk, and its machine loses its power.
    FlipBit,
    /// A machine loses its disk and comes back as another node.
    Wipe,
    /// A wall clock is set wrong.
    SetClockWrong,
}

impl Fault {
    const ALL: [Self; 22] = [
        Self::Kill,
        Self::KillLeaderShortly,
        Self::LosePower,
        Self::LosePowerEverywhere,
        Self::LosePowerInWrites,
        Self::LosePowerReporting,
        Self::Pause,
        Self::Isolate,
        Self::IsolateLeader,
        Self::CutOneWay,
        Self::Split,
        Self::CutSites,
        Self::CutSitesOneWay,
        Self::FlapSites,
        Self::DelayLetters,
        Self::RestoreWays,
        Self::Weather,
        Self::StallDisk,
        Self::FillDisk,
        Self::FlipBit,
        Self::Wipe,
        Self::SetClockWrong,
    ];
}

/// The faults of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kinds: Vec<Fault>,
    /// Until when they strike, microseconds.
    pub(crate) until_us: u64,
    /// Longest time between two, microseconds.
    every_us: usize,
    /// How wrong wall clocks may be, milliseconds.
    pub(crate) wall_wrong_ms: usize,
    /// Within what time everything must be well again after them, microseconds.
    pub(crate) heal_bound_us: u64,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut kinds: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.chance(40)).collect();
        let cuts = [
            Fault::Isolate,
            Fault::IsolateLeader,
            Fault::CutOneWay,
            Fault::Split,
            Fault::CutSites,
            Fault::CutSitesOneWay,
        ];
        if kinds.iter().any(|kind| cuts.contains(kind)) {
            kinds.push(Fault::RestoreWays);
            kinds.push(Fault::RestoreWays);
        }
        // What a robot said before its process ended is to come after somebody else has its job.
        if kinds.contains(&Fault::Kill) && !kinds.contains(&Fault::Weather) {
            kinds.push(Fault::Weather);
        }
        Self {
            kinds,
            until_us: 8_000_000 + dice.below(16_000_000) as u64,
            every_us: 300_000 + dice.below(3_000_000),
            wall_wrong_ms: if dice.chance(30) { 86_400_000 } else { 1_500 },
            heal_bound_us: 90_000_000,
        }
    }

    /// The sites are cut off from each other until `until_us`, and nothing else is drawn.
    pub(crate) fn of_a_cut(until_us: u64, heal_bound_us: u64) -> Self {
        Self { kinds: vec![Fault::CutSites], until_us, every_us: 3_600_000_000, wall_wrong_ms: 0, heal_bound_us }
    }

    /// Only leaders die, one after the other.
    pub(crate) fn of_blinks(until_us: u64) -> Self {
        let kinds = vec![Fault::KillLeader, Fault::KillLeader, Fault::KillLeaderShortly];
        Self { kinds, until_us, every_us: 3_000_000, wall_wrong_ms: 0, heal_bound_us: 90_000_000 }
    }

    /// How long until the next fault, microseconds.
    pub(crate) fn pause_us(&self, dice: &mut Dice) -> u64 {
        1_000 + dice.below(self.every_us) as u64
    }
}
