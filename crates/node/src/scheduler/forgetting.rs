//! On the leader, now and then: proposes that what is long over is forgotten.

use std::time::Duration;

use ractor::ActorRef;

use fleet_core::{BootInstant, Timestamp};
use fleet_replication::command::{Action, Outcome};
use fleet_store::StateReader;
use fleet_store::state::{members, moves, queue};

use super::actor::{SchedulerMessage, SchedulerState, cast};
use crate::Error;

/// How often the leader looks for what is long over.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Most tokens that are looked at.
const TOKENS_LOOKED_AT_MAX: usize = 1_000;

impl SchedulerState {
    /// Proposes to forget, if something is old enough. The group takes a bounded piece; while there is more, the next is
    /// proposed as soon as this one is applied.
    pub(super) fn forget_old(&mut self, myself: &ActorRef<SchedulerMessage>, now: BootInstant) -> Result<(), Error> {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.may_forget(now)) else { return Ok(()) };
        leading.forgets_from = now.saturating_add(LOOK_EVERY);
        let kept_ms = u64::try_from(self.arguments.ended_jobs_kept.as_millis()).unwrap_or(u64::MAX);
        let before = Timestamp(self.arguments.clock.now().0.saturating_sub(kept_ms));
        if !is_anything_over(&self.arguments.group.reader()?, before)? {
            return Ok(());
        }
        let proposed = self.arguments.group.propose(Action::Forget { before });
        let myself = myself.clone();
        tokio::spawn(async move {
            if matches!(proposed.await, Ok(Outcome::Forgotten { more: true, .. })) {
                cast(&myself, SchedulerMessage::ForgetMore);
            }
        });
        Ok(())
    }
}

fn is_anything_over(reader: &StateReader, before: Timestamp) -> Result<bool, Error> {
    let read = |result| Error::store("look for what is long over")(result);
    if !queue::ended_before(reader, before, 1).map_err(read)?.is_empty()
        || !moves::ended_before(reader, before, 1).map_err(read)?.is_empty()
    {
        return Ok(true);
    }
    let tokens = members::tokens(reader, None, TOKENS_LOOKED_AT_MAX).map_err(read)?;
    Ok(tokens.iter().any(|(_, token)| token.expires_at < before))
}
