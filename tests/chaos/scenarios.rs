//! The scenarios, by name: what single runs, the gate and many runs choose from.

use std::time::Duration;

use crate::crossing::{Crossing, Trouble};
use crate::outcome::Outcome;
use crate::plan::Kind::{
    CutNode, CutSide, Freeze, FullDisk, Kill, KillAll, Loss, OneWay, PowerLoss, PowerLossOfAll, Slow,
};
use crate::run::OneSite;
use crate::{crossing, heals, run, sites};

/// What is tried.
#[derive(Clone, Copy)]
pub(crate) enum Scenario {
    /// One site, with a plan of faults.
    OneSite(OneSite),
    /// Two sites that exchange jobs.
    Crossing(Crossing),
    /// A site that is cut off and started anew meanwhile.
    CutOff,
}

impl Scenario {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::OneSite(scenario) => scenario.name,
            Self::Crossing(scenario) => scenario.name,
            Self::CutOff => "cut-off",
        }
    }

    /// One run of it.
    pub(crate) async fn run(&self, seed: u64, length: Duration) -> Outcome {
        match self {
            Self::OneSite(scenario) => Box::pin(run::run_once(scenario, seed, length)).await,
            Self::Crossing(scenario) => Box::pin(crossing::run_once(scenario, seed, length)).await,
            Self::CutOff => Box::pin(sites::cut_off_and_reboot(seed, length)).await,
        }
    }
}

/// Plain `cargo test`.
pub(crate) const SMOKE: Scenario = one_site("smoke", 3, &[Kill, Freeze, CutNode], 1, false);

const fn one_site(
    name: &'static str,
    nodes: usize,
    kinds: &'static [crate::plan::Kind],
    together: usize,
    has_disks: bool,
) -> Scenario {
    Scenario::OneSite(OneSite { name, nodes, kinds, together, has_disks, plan: run::of_its_kinds })
}

/// Everything that the gate runs, and that many runs go through in turn.
pub(crate) const ALL: [Scenario; 12] = [
    one_site("kills", 5, &[Kill, Kill, Kill, KillAll], 2, false),
    one_site("frozen", 5, &[Freeze, CutNode], 2, false),
    one_site("sides", 5, &[CutSide, OneWay], 1, false),
    one_site("lossy", 4, &[Loss, Loss, Slow, Kill], 2, false),
    one_site("power", 3, &[PowerLoss, PowerLoss, PowerLossOfAll, FullDisk], 1, true),
    one_site(
        "everything",
        4,
        &[Kill, KillAll, Freeze, CutNode, CutSide, OneWay, Loss, Slow, FullDisk, PowerLoss, PowerLossOfAll],
        3,
        true,
    ),
    Scenario::OneSite(OneSite {
        name: "heals",
        nodes: 5,
        kinds: &[CutNode, CutSide],
        together: 1,
        has_disks: false,
        plan: heals::plan,
    }),
    Scenario::CutOff,
    Scenario::Crossing(Crossing {
        name: "dial-out",
        is_walled: true,
        has_disks: false,
        delay_ms: None,
        is_fickle: false,
        troubles: &[Trouble::Cut, Trouble::Loss, Trouble::KillLeader(0), Trouble::KillLeader(1)],
    }),
    // A long line, and machines of both sites die while jobs are on it.
    Scenario::Crossing(Crossing {
        name: "far-kills",
        is_walled: false,
        has_disks: false,
        delay_ms: Some(50),
        is_fickle: false,
        troubles: &[Trouble::Latency, Trouble::KillAny, Trouble::KillSite(0), Trouble::KillSite(1), Trouble::Loss],
    }),
    // Moves are accepted, and the power of who accepted them is gone; results come, and that of who had them.
    Scenario::Crossing(Crossing {
        name: "far-power",
        is_walled: false,
        has_disks: true,
        delay_ms: Some(20),
        is_fickle: false,
        troubles: &[Trouble::PowerLoss(1), Trouble::PowerLossOfSite(1), Trouble::PowerLoss(0), Trouble::Cut],
    }),
    // Cancels and recalls meet the arrivals and results of what they are about.
    Scenario::Crossing(Crossing {
        name: "recalls",
        is_walled: true,
        has_disks: false,
        delay_ms: Some(100),
        is_fickle: true,
        troubles: &[Trouble::Cut, Trouble::Cut, Trouble::Latency, Trouble::KillLeader(0), Trouble::KillLeader(1)],
    }),
];

/// The scenario called `name`.
pub(crate) fn named(name: &str) -> Scenario {
    let found = ALL.iter().find(|scenario| scenario.name() == name);
    *found.unwrap_or_else(|| panic!("there is no scenario `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_meaning_each() {
        for scenario in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name() == scenario.name()).count(), 1, "{}", scenario.name());
        }
    }
}
