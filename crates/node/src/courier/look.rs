//! The look at queued jobs for which another site may have a robot: what is found, and when it goes on.

use std::time::Duration;

use fleet_core::BootInstant;
use fleet_core::limits::OUTBOX_JOBS_MAX;
use fleet_replication::command::{Moving, SITES_VERSION};
use fleet_store::record::JobState;
use fleet_store::state::queue::QueuePlace;
use fleet_store::state::{jobs, queue};

use crate::Error;
use crate::ports::{Group, KnownSites};
use crate::routing::{needs_anywhere, own_robots, route};

/// Queued jobs that are looked at in one go.
const LOOKED_AT_MAX: usize = 256;
/// How long the look pauses before it goes on: a long queue must not keep the leader busy.
const PAUSE: Duration = Duration::from_millis(100);
/// After how long the queued jobs are looked at again of which none was left: robots of this site may have gone.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// After how long those are looked at again that could not be sent: the outbox is full, or the group did not answer.
const BLOCKED_FOR: Duration = Duration::from_secs(1);

/// Where the look at queued jobs stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It begins with the first.
    Begins,
    /// It goes on after this place, but not yet.
    Rests {
        /// Until when.
        until: BootInstant,
        /// Where it goes on then.
        after: Option<QueuePlace>,
    },
    /// What the last look found is being proposed.
    UnderWay,
    /// No other site is known to have a robot.
    Idle,
}

impl Look {
    /// Everything was looked at.
    pub fn done(now: BootInstant) -> Self {
        Self::Rests { until: now.saturating_add(LOOK_AGAIN_AFTER), after: None }
    }

    /// It goes on after `after`.
    pub fn goes_on(now: BootInstant, after: QueuePlace) -> Self {
        Self::Rests { until: now.saturating_add(PAUSE), after: Some(after) }
    }

    /// The jobs after `after` are to be looked at again.
    pub fn blocked(now: BootInstant, after: Option<QueuePlace>) -> Self {
        Self::Rests { until: now.saturating_add(BLOCKED_FOR), after }
    }

    /// After which place to go on now, if so.
    pub fn due(self, now: BootInstant) -> Option<Option<QueuePlace>> {
        match self {
            Self::Begins => Some(None),
            Self::Rests { until, after } => (now >= until).then_some(after),
            Self::UnderWay | Self::Idle => None,
        }
    }

    /// When [`Self::due`] is to be asked again, if nothing happens before.
    pub(super) fn due_at(self) -> Option<BootInstant> {
        match self {
            Self::Rests { until, .. } => Some(until),
            Self::Begins | Self::UnderWay | Self::Idle => None,
        }
    }
}

/// What a look at some of the queued jobs found.
pub struct Looked {
    /// The commands that send jobs away.
    pub moving: Vec<Moving>,
    /// Where to go on; `None`: this was the end.
    pub up_to: Option<QueuePlace>,
    /// Whether everything that is to go fits into the outbox.
    pub has_room: bool,
}

/// The moves of queued jobs after `after` for which only other sites have a robot.
///
/// # Errors
/// The state could not be read.
pub fn begin_moves(group: &dyn Group, known: &KnownSites, after: Option<QueuePlace>) -> Result<Looked, Error> {
    let failed = || Error::store("look at queued jobs");
    let reader = group.reader()?;
    let site = jobs::site(&reader).map_err(failed())?;
    if site.gate < SITES_VERSION {
        return Ok(Looked { moving: Vec::new(), up_to: None, has_room: true });
    }
    let mut room = OUTBOX_JOBS_MAX.saturating_sub(site.counters.jobs_in(JobState::Transferring));
    let own = own_robots(&reader).map_err(failed())?;
    let heads = queue::heads(&reader, after, LOOKED_AT_MAX).map_err(failed())?;
    let up_to = heads.last().map(|(place, _)| *place).filter(|_| heads.len() == LOOKED_AT_MAX);
    let mut moving = Vec::new();
    for (_, job) in heads {
        let (Some(row), Some(spec)) =
            (jobs::job(&reader, job).map_err(failed())?, jobs::spec(&reader, job).map_err(failed())?)
        else {
            continue;
        };
        // One that came back, or that a robot had, stays.
        if row.generation > 0 || row.attempt > 0 {
            continue;
        }
        if let Some(route) = route(&needs_anywhere(&spec), &own, known) {
            if room == 0 {
                return Ok(Looked { moving, up_to, has_room: false });
            }
            room -= 1;
            moving.push(Moving::Begin { job, generation: 0, to: route.to, because: route.because });
        }
    }
    Ok(Looked { moving, up_to, has_room: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    #[test]
    fn queued_jobs_that_were_not_sent_are_looked_at_again_and_all_of_them_now_and_then() {
        let place = QueuePlace::new(10, 3);
        let after = Some(place);
        assert_eq!(Look::Begins.due(at(0)), Some(None));
        assert_eq!((Look::UnderWay.due(at(0)), Look::Idle.due(at(0))), (None, None));
        let goes_on = Look::goes_on(at(0), place);
        assert_eq!((goes_on.due(at(0)), goes_on.due(at(1))), (None, Some(after)));
        assert_eq!(goes_on.due_at(), Some(BootInstant(PAUSE)));
        let blocked = Look::blocked(at(5), after);
        assert_eq!((blocked.due(at(5)), blocked.due(at(6))), (None, Some(after)), "none is passed by");
        let done = Look::done(at(5));
        assert_eq!((done.due(at(34)), done.due(at(35))), (None, Some(None)), "from the first");
    }
}
