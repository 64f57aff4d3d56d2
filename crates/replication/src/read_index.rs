//! Confirms that this node still leads: one round of the consensus serves all that wait, and only rounds that began
//! after a question count for it.

use std::sync::Arc;
use std::time::Duration;

use openraft::LogIdOptionExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::consensus::Raft;
use crate::error::Error;
use crate::member::Member;
use crate::status::Status;

/// Most questions that wait.
pub(crate) const WAITING_MAX: usize = 4_096;
/// The queue's name, in errors and metrics.
pub(crate) const QUEUE: &str = "confirmations";
/// What is confirmed, in errors.
const OPERATION: &str = "confirm the leadership";

/// This node led, and its state was current, at some moment after the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The term.
    pub term: u64,
    /// Everything committed up to here is applied on this node.
    pub index: u64,
}

/// Somebody who waits for a confirmation.
pub(crate) type Question = oneshot::Sender<Result<Confirmed, Error>>;

/// The task that confirms.
pub(crate) struct Confirmations {
    pub(crate) member: Arc<Member>,
    pub(crate) raft: Raft,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) queue: mpsc::Receiver<Question>,
}

impl Confirmations {
    pub(crate) async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.queue.recv_many(&mut waiting, WAITING_MAX).await > 0 {
            let result = self.round().await;
            for question in waiting.drain(..) {
                let answer = match &result {
                    Ok(confirmed) => Ok(*confirmed),
                    Err(failure) => Err(failure.error(&self.status)),
                };
                // Whoever does not listen any more does not care.
                let _ = question.send(answer);
            }
        }
    }

    async fn round(&self) -> Result<Confirmed, Failure> {
        let term = self.member.serving_term(&self.status).ok_or(Failure::NotLeader)?;
        let deadline: Duration = self.member.timing.group_lease;
        let round = tokio::time::timeout(deadline, self.raft.get_read_log_id()).await;
        let (read_id, _) = round.map_err(|_| Failure::NoQuorum)?.map_err(|_| Failure::NoQuorum)?;
        let index = read_id.index().unwrap_or(0);
        let applied = self.raft.wait(Some(deadline)).applied_index_at_least(Some(index), "read index").await;
        applied.map_err(|_| Failure::NoQuorum)?;
        match self.member.serving_term(&self.status) {
            Some(still) if still == term => Ok(Confirmed { term, index }),
            _ => Err(Failure::NotLeader),
        }
    }
}

/// Why a round failed; each who waits gets an error of its own.
enum Failure {
    NotLeader,
    NoQuorum,
}

impl Failure {
    fn error(&self, status: &watch::Receiver<Status>) -> Error {
        match self {
            Self::NotLeader => Error::NotLeader { operation: OPERATION, leader: status.borrow().leader },
            Self::NoQuorum => Error::NoQuorum { operation: OPERATION },
        }
    }
}
