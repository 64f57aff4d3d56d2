//! Keeps the node's actors running: each is started again by itself when it fails, unless it fails too often.
//!
//! The decision is [`Restarts`]; the actor is its driver. When an actor may not be started again the supervisor ends, and
//! the node says so: something outside has to start the process again.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::RactorMessage;
use tokio::sync::watch;

use fleet_core::{BootInstant, Clock};

use crate::courier::actor::{Courier, CourierArguments};
use crate::robot::actor::{Robot, RobotArguments, RobotMessage};
use crate::scheduler::actor::{Scheduler, SchedulerArguments};
use crate::tasks::Slot;

/// Most failures of one actor within [`WINDOW`].
const FAILURES_MAX: usize = 5;
/// Over how long failures count.
const WINDOW: Duration = Duration::from_secs(60);

/// The failures of one actor that still count.
#[derive(Debug, Default)]
struct Restarts {
    failures: Vec<BootInstant>,
}

impl Restarts {
    /// The actor failed at `now`: whether it may be started again.
    fn may_restart(&mut self, now: BootInstant) -> bool {
        self.failures.retain(|at| now.saturating_since(*at) < WINDOW);
        self.failures.push(now);
        self.failures.len() <= FAILURES_MAX
    }
}

/// A child of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    Scheduler,
    Robot,
    Courier,
}

/// What the supervisor is told: nothing, so far.
#[derive(Debug, RactorMessage)]
pub(crate) enum SupervisorMessage {}

/// What the supervisor is made of.
pub(crate) struct SupervisorArguments {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scheduler: Arc<SchedulerArguments>,
    pub(crate) robot: Arc<RobotArguments>,
    pub(crate) robot_slot: Slot<RobotMessage>,
    pub(crate) courier: Arc<CourierArguments>,
    /// Turns true when the supervisor gives up.
    pub(crate) failed: watch::Sender<bool>,
}

pub(crate) struct SupervisorState {
    arguments: SupervisorArguments,
    scheduler: (ActorCell, Restarts),
    robot: (ActorCell, Restarts),
    courier: (ActorCell, Restarts),
}

/// The supervisor.
pub(crate) struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        arguments: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let scheduler = start_scheduler(&myself, &arguments).await?;
        let robot = start_robot(&myself, &arguments).await?;
        let courier = start_courier(&myself, &arguments).await?;
        Ok(SupervisorState {
            arguments,
            scheduler: (scheduler, Restarts::default()),
            robot: (robot, Restarts::default()),
            courier: (courier, Restarts::default()),
        })
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_default()),
            _ => return Ok(()),
        };
        let Some(child) = state.child(&cell) else { return Ok(()) };
        tracing::error!(?child, reason, "an actor failed");
        let now = state.arguments.clock.boot_now();
        let restarts = match child {
            Child::Scheduler => &mut state.scheduler.1,
            Child::Robot => &mut state.robot.1,
            Child::Courier => &mut state.courier.1,
        };
        if !restarts.may_restart(now) {
            state.arguments.failed.send_replace(true);
            myself.stop(Some(format!("{child:?} failed too often")));
            return Ok(());
        }
        match child {
            Child::Scheduler => state.scheduler.0 = start_scheduler(&myself, &state.arguments).await?,
            Child::Robot => state.robot.0 = start_robot(&myself, &state.arguments).await?,
            Child::Courier => state.courier.0 = start_courier(&myself, &state.arguments).await?,
        }
        Ok(())
    }
}

impl SupervisorState {
    fn child(&self, cell: &ActorCell) -> Option<Child> {
        let children =
            [(&self.scheduler.0, Child::Scheduler), (&self.robot.0, Child::Robot), (&self.courier.0, Child::Courier)];
        children.into_iter().find(|(known, _)| known.get_id() == cell.get_id()).map(|(_, child)| child)
    }
}

async fn start_scheduler(
    myself: &ActorRef<SupervisorMessage>,
    arguments: &SupervisorArguments,
) -> Result<ActorCell, ActorProcessingErr> {
    let own = Arc::clone(&arguments.scheduler);
    let (scheduler, _) = Actor::spawn_linked(None, Scheduler, own, myself.get_cell()).await?;
    Ok(scheduler.get_cell())
}

async fn start_courier(
    myself: &ActorRef<SupervisorMessage>,
    arguments: &SupervisorArguments,
) -> Result<ActorCell, ActorProcessingErr> {
    let own = Arc::clone(&arguments.courier);
    let (courier, _) = Actor::spawn_linked(None, Courier, own, myself.get_cell()).await?;
    Ok(courier.get_cell())
}

async fn start_robot(
    myself: &ActorRef<SupervisorMessage>,
    arguments: &SupervisorArguments,
) -> Result<ActorCell, ActorProcessingErr> {
    let own = Arc::clone(&arguments.robot);
    let (robot, _) = Actor::spawn_linked(None, Robot, own, myself.get_cell()).await?;
    arguments.robot_slot.set(robot.clone());
    Ok(robot.get_cell())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_started_again_until_it_fails_too_often_within_the_window() {
        let at = |seconds| BootInstant(Duration::from_secs(seconds));
        let mut restarts = Restarts::default();
        assert!((0..5).all(|second| restarts.may_restart(at(second))));
        assert!(!restarts.may_restart(at(5)));
        assert!(restarts.may_restart(at(64)), "old failures do not count");
    }
}
