//! The robot's end of the link: dials the leader, and passes what comes from it to the actor, a bounded number at a time.

use std::sync::Arc;

use ractor::ActorRef;
use tokio::sync::{Semaphore, mpsc};

use fleet_core::NodeId;

use super::actor::RobotMessage;
use crate::link::{Heartbeat, RobotStreams, STREAM_DEPTH, WorkUp};
use crate::ports::RobotLink;
use crate::scheduler::LinkServer;

/// A link in use.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    heartbeats: mpsc::Sender<Heartbeat>,
    work: mpsc::Sender<WorkUp>,
}

impl Link {
    /// Sends a heartbeat; one that finds no room is lost, the next one serves as well.
    pub(super) fn send_heartbeat(&self, heartbeat: Heartbeat) {
        if self.heartbeats.try_send(heartbeat).is_err() {
            tracing::debug!("a heartbeat found no room on the link");
        }
    }

    /// Sends a work message; `false` if the link is broken or full.
    pub(super) fn send_work(&self, message: WorkUp) -> bool {
        self.work.try_send(message).is_ok()
    }
}

/// Dials `leader` and reports the streams to `robot` as link `number`. The leader on this node is reached in process.
pub(super) fn dial(
    robot: ActorRef<RobotMessage>,
    port: &Arc<dyn RobotLink>,
    local: Option<LinkServer>,
    leader: NodeId,
    number: u64,
) {
    if let Some(server) = local {
        let streams = server.connect_local(leader);
        report(&robot, RobotMessage::Dialled { number, streams: Some(Box::new(streams)) });
        return;
    }
    let connecting = port.connect(leader);
    tokio::spawn(async move {
        let streams = match connecting.await {
            Ok(streams) => Some(Box::new(streams)),
            Err(error) => {
                tracing::debug!(%leader, error = %fleet_core::error::chain(&error), "the leader cannot be reached");
                None
            }
        };
        report(&robot, RobotMessage::Dialled { number, streams });
    });
}

/// Begins to use `streams` as link `number`.
pub(super) fn open(robot: &ActorRef<RobotMessage>, number: u64, streams: RobotStreams) -> Link {
    let RobotStreams { heartbeats, work } = streams;
    let mut answers = heartbeats.receiver;
    let to = robot.clone();
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            report(&to, RobotMessage::Answer { number, answer });
        }
        report(&to, RobotMessage::Unlinked { number });
    });
    let mut messages = work.receiver;
    let to = robot.clone();
    let room = Arc::new(Semaphore::new(STREAM_DEPTH));
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            // The permit lives as long as the message waits for the actor.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            report(&to, RobotMessage::Down { message: Box::new(message), permit });
        }
        report(&to, RobotMessage::Unlinked { number });
    });
    Link { number, heartbeats: heartbeats.sender, work: work.sender }
}

pub(super) fn report(robot: &ActorRef<RobotMessage>, message: RobotMessage) {
    if robot.cast(message).is_err() {
        tracing::debug!("the robot is gone");
    }
}
