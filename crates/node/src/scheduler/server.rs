//! The leader's end of robot links: takes the streams in, whoever carries them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc};

use fleet_core::NodeId;

use super::actor::SchedulerMessage;
use super::work;
use crate::link::{Duplex, Heartbeat, RobotStreams, STREAM_DEPTH, WorkDown, WorkUp, duplex};
use crate::ports::Group;
use crate::session::BeatAnswer;
use crate::tasks::Slot;

/// Most heartbeats of one robot that wait for the scheduler.
const HEARTBEATS_WAITING_MAX: usize = 16;

/// Takes in the streams of robots. Cheap to clone. The caller has authenticated the node.
#[derive(Clone)]
pub struct LinkServer {
    scheduler: Slot<SchedulerMessage>,
    group: Arc<dyn Group>,
    streams: Arc<AtomicU64>,
}

impl LinkServer {
    pub(crate) fn new(scheduler: Slot<SchedulerMessage>, group: Arc<dyn Group>) -> Self {
        Self { scheduler, group, streams: Arc::default() }
    }

    /// Takes in a heartbeat stream of the robot of `node`. It is closed when this node does not lead.
    pub fn accept_heartbeats(&self, node: NodeId, streams: Duplex<BeatAnswer, Heartbeat>) {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let Duplex { sender, mut receiver } = streams;
        let scheduler = self.scheduler.clone();
        if !scheduler.tell(SchedulerMessage::HeartbeatsOpened { node, number, sender }) {
            return;
        }
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(HEARTBEATS_WAITING_MAX));
            while let Some(heartbeat) = receiver.recv().await {
                if heartbeat.beat.session.node != node {
                    tracing::warn!(%node, "a robot sent a heartbeat in another's name");
                    break;
                }
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
                if !scheduler.tell(SchedulerMessage::Heard { heartbeat: Box::new(heartbeat), permit }) {
                    break;
                }
            }
            scheduler.tell(SchedulerMessage::Closed { node, number });
        });
    }

    /// Takes in a work stream of the robot of `node`. It is closed when this node does not lead.
    pub fn accept_work(&self, node: NodeId, streams: Duplex<WorkDown, WorkUp>) {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let (orders, receiver) = mpsc::channel(STREAM_DEPTH);
        let scheduler = self.scheduler.clone();
        if !scheduler.tell(SchedulerMessage::WorkOpened { node, number, sender: orders }) {
            return;
        }
        let group = Arc::clone(&self.group);
        tokio::spawn(async move {
            work::serve(node, &group, &scheduler, receiver, streams).await;
            scheduler.tell(SchedulerMessage::Closed { node, number });
        });
    }

    /// The streams of this node's own robot, without a network.
    pub(crate) fn connect_local(&self, node: NodeId) -> RobotStreams {
        let (heartbeats, leader_heartbeats) = duplex();
        let (work, leader_work) = duplex();
        self.accept_heartbeats(node, leader_heartbeats);
        self.accept_work(node, leader_work);
        RobotStreams { heartbeats, work }
    }
}
