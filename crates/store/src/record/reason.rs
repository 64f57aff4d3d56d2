//! Why a job is in its state, for people: `reason` of `job get`.

use std::fmt;

use fleet_core::{NodeId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

/// Why a job is queued, waiting or ended. New reasons are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Its robot was lost; it waits for another one.
    RobotLost {
        /// The node it was on.
        node: NodeId,
        /// How often that has happened.
        lost: u32,
        /// How often it may.
        lost_max: u32,
    },
    /// Its robot did not take it or let go of it.
    GivenBack {
        /// The node it was on.
        node: NodeId,
    },
    /// Its node is drained.
    Drained {
        /// The node it was on.
        node: NodeId,
    },
    /// A timer runs.
    TimerRuns {
        /// When it is due.
        due: Timestamp,
    },
    /// It waits for an event.
    EventAwaited,
    /// An operator paused it.
    PausedByOperator,
    /// An operator cancelled it.
    CancelledByOperator,
    /// Its time was over.
    TimeOver,
    /// Its robots were lost too often.
    LostTooOften {
        /// How often.
        lost: u32,
        /// How often it may.
        lost_max: u32,
    },
    /// Its journal would have passed the bound.
    JournalFull {
        /// The bound, bytes.
        bytes_max: u64,
    },
    /// Anything else, in words.
    Text(String),
    /// It goes to another site.
    Moving {
        /// The site.
        site: SiteName,
        /// Why there; empty if it was asked for.
        because: String,
    },
    /// Another site can never run it; it is queued here again.
    Returned {
        /// That site.
        site: SiteName,
        /// What it said.
        why: String,
    },
    /// It was recalled before another site had accepted it.
    Recalled {
        /// That site.
        site: SiteName,
    },
    /// Another site was given up; it may run there too.
    Abandoned {
        /// That site.
        site: SiteName,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RobotLost { lost, lost_max, .. } => {
                write!(f, "its robot was lost ({lost} of at most {lost_max} times)")
            }
            Self::GivenBack { .. } => f.write_str("its robot gave it back"),
            Self::Drained { .. } => f.write_str("its node is being drained"),
            Self::TimerRuns { due } => write!(f, "waits until {due}"),
            Self::EventAwaited => f.write_str("waits for an event"),
            Self::PausedByOperator => f.write_str("paused by an operator"),
            Self::CancelledByOperator => f.write_str("cancelled by an operator"),
            Self::TimeOver => f.write_str("its time was over"),
            Self::LostTooOften { lost, lost_max } => {
                write!(f, "its robot was lost {lost} times, more than the {lost_max} allowed")
            }
            Self::JournalFull { bytes_max } => write!(f, "its journal would be larger than {bytes_max} bytes"),
            Self::Text(text) => f.write_str(text),
            Self::Moving { site, because } if because.is_empty() => write!(f, "goes to site {site}"),
            Self::Moving { site, because } => write!(f, "goes to site {site}: {because}"),
            Self::Returned { site, why } => write!(f, "came back from site {site}: {why}"),
            Self::Recalled { site } => write!(f, "recalled on its way to site {site}"),
            Self::Abandoned { site } => write!(f, "site {site} was given up; the job may run there too"),
        }
    }
}
