//! Questions of operators: whether packets get through to a node and back, beside the failure detector.

use std::time::Duration;

use fleet_core::NodeId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::payload::Payload;

/// Most questions that wait for an answer at once.
const PROBES_MAX: usize = 1_024;

/// A question that waits for its answer.
struct Probe {
    node: NodeId,
    asked: Instant,
    answered: oneshot::Sender<Duration>,
}

/// The questions that wait.
#[derive(Default)]
pub(super) struct Probes {
    waiting: Vec<Probe>,
}

impl Probes {
    /// Notes a question about `node`; what to send, if there is room. The last place is never taken: whoever asks gives up
    /// by itself.
    pub(super) fn ask(&mut self, node: NodeId, answered: oneshot::Sender<Duration>) -> Option<Vec<u8>> {
        self.waiting.retain(|probe| !probe.answered.is_closed());
        if self.waiting.len() >= PROBES_MAX {
            return None;
        }
        let question = Payload::Who.encode()?;
        self.waiting.push(Probe { node, asked: Instant::now(), answered });
        Some(question)
    }

    /// Tells who asked about the node that says in `payload` who it is.
    pub(super) fn answer(&mut self, payload: &[u8]) {
        if self.waiting.is_empty() {
            return;
        }
        let Ok(Payload::Iam(identity)) = Payload::decode(payload) else { return };
        let (answered, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|probe| probe.node == identity.node);
        self.waiting = waiting;
        for probe in answered {
            // Whoever asked may have given up meanwhile.
            let _told = probe.answered.send(probe.asked.elapsed());
        }
    }
}
