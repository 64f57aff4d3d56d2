//! The promises as named invariants: one sentence each, checked by the same names in production, simulation and chaos runs.

use std::fmt;

/// What must always hold. `docs/guarantees.md` has the exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// Promise 1.
    DurableAccept,
    /// Promise 2.
    AtMostOneActor,
    /// Promise 3.
    NoFinishedEffectRunsAgain,
    /// Promise 4.
    EveryJobEndsOrSaysWhyNot,
    /// Promise 5.
    OneTickOneFiring,
    /// Promise 6.
    CutOffSiteKeepsWorking,
    /// Promise 7.
    HealingIsAutomatic,
    /// Promise 8.
    ControlBlinkRestartsNothing,
    /// Promise 9.
    GossipLeadsLogGuards,
    /// Promise 10.
    BadInputIsRefusedWhole,
}

impl Invariant {
    /// All of them, in the order of the promises.
    pub const ALL: [Self; 10] = [
        Self::DurableAccept,
        Self::AtMostOneActor,
        Self::NoFinishedEffectRunsAgain,
        Self::EveryJobEndsOrSaysWhyNot,
        Self::OneTickOneFiring,
        Self::CutOffSiteKeepsWorking,
        Self::HealingIsAutomatic,
        Self::ControlBlinkRestartsNothing,
        Self::GossipLeadsLogGuards,
        Self::BadInputIsRefusedWhole,
    ];

    /// The invariant in one sentence.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::DurableAccept => {
                "a job id that was returned survives the crash of any minority of the group's voters"
            }
            Self::AtMostOneActor => "no two robots hold a live session's right to the same job at the same time",
            Self::NoFinishedEffectRunsAgain => {
                "an effect whose result is in the group's journal is never started again"
            }
            Self::EveryJobEndsOrSaysWhyNot => {
                "no job stays running with nobody running it, and every waiting job has a reason"
            }
            Self::OneTickOneFiring => "a schedule's tick produces exactly one job",
            Self::CutOffSiteKeepsWorking => "a site with a majority of its own voters accepts and finishes jobs alone",
            Self::HealingIsAutomatic => "when links return, nobody has to do anything",
            Self::ControlBlinkRestartsNothing => "when a leader dies, work on other robots goes on undisturbed",
            Self::GossipLeadsLogGuards => "nothing irreversible happens without the group's committed log",
            Self::BadInputIsRefusedWhole => "bad input is refused with the place of the mistake and changes nothing",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.statement())
    }
}
