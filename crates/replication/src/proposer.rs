//! Turns many proposals into few log entries: takes all that wait while the previous entry is under way.
//!
//! After its deadline an entry's outcome is unknown and the proposer moves on; commands are safe to repeat.

use std::time::Duration;

use fleet_core::limits::ENTRY_BYTES_MAX;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::command::{Batch, Command, Outcome};
use crate::consensus::{EntryData, Raft};
use crate::error::Error;
use crate::status::Status;

/// Most proposals that wait.
pub(crate) const WAITING_MAX: usize = 4_096;
/// The queue's name, in errors and metrics.
pub(crate) const QUEUE: &str = "proposals";
/// Most commands of one entry.
const COMMANDS_MAX: usize = 2_048;
/// Bytes of an entry kept for what is not commands.
const FRAME_BYTES: usize = 256;
/// How long the proposer waits for an entry before its outcome counts as unknown, in group leases.
const ENTRY_LEASES_MAX: u32 = 4;

/// A command that waits for an entry.
pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Outcome, Error>>,
}

/// Bytes of `command` in an entry; an error if no entry can hold it.
pub(crate) fn measure(command: &Command) -> Result<usize, Error> {
    let flavor = postcard::ser_flavors::Size::default();
    let bytes = postcard::serialize_with_flavor(command, flavor).map_err(|_| Error::TooLarge { bytes: usize::MAX })?;
    if bytes > ENTRY_BYTES_MAX - FRAME_BYTES { Err(Error::TooLarge { bytes }) } else { Ok(bytes) }
}

/// The proposer's task.
pub(crate) struct Proposer {
    pub(crate) raft: Raft,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) queue: mpsc::Receiver<Proposal>,
    pub(crate) group_lease: Duration,
}

impl Proposer {
    pub(crate) async fn run(mut self) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(proposal) => proposal,
                None => match self.queue.recv().await {
                    Some(proposal) => proposal,
                    None => return,
                },
            };
            let (batch, overflow) = self.collect(first);
            next = overflow;
            if !batch.is_empty() {
                self.propose(batch).await;
            }
        }
    }

    /// Takes what waits and fits, and what did not fit any more. Whoever gave up waiting is left out.
    fn collect(&mut self, first: Proposal) -> (Vec<Proposal>, Option<Proposal>) {
        let mut batch = Vec::new();
        let mut bytes = FRAME_BYTES;
        let mut candidate = Some(first);
        while let Some(proposal) = candidate {
            if !proposal.reply.is_closed() {
                if bytes + proposal.bytes > ENTRY_BYTES_MAX || batch.len() >= COMMANDS_MAX {
                    return (batch, Some(proposal));
                }
                bytes += proposal.bytes;
                batch.push(proposal);
            }
            candidate = self.queue.try_recv().ok();
        }
        (batch, None)
    }

    async fn propose(&self, batch: Vec<Proposal>) {
        metrics::histogram!("fleet_group_entry_commands").record(batch.len() as f64);
        let (commands, replies): (Vec<Command>, Vec<_>) =
            batch.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
        let results = self.write(Batch { commands }, replies.len()).await;
        for (reply, result) in replies.into_iter().zip(results) {
            // Whoever does not listen any more does not care.
            let _ = reply.send(result);
        }
    }

    /// Writes one entry; a result for each of its `count` commands.
    async fn write(&self, batch: Batch, count: usize) -> Vec<Result<Outcome, Error>> {
        let fail = |make: &dyn Fn() -> Error| (0..count).map(|_| Err(make())).collect();
        if self.status.borrow().serving_term.is_none() {
            return fail(&|| self.not_leader());
        }
        let data = match batch.encode() {
            Ok(bytes) => EntryData(bytes.into()),
            Err(error) => return fail(&|| Error::consensus("propose a command", &error)),
        };
        let write = self.raft.client_write(data);
        match tokio::time::timeout(self.group_lease * ENTRY_LEASES_MAX, write).await {
            Ok(Ok(response)) if response.data.outcomes.len() == count => {
                response.data.outcomes.into_iter().map(Ok).collect()
            }
            Ok(Ok(_)) | Err(_) => fail(&|| Error::OutcomeUnknown),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => fail(&|| self.not_leader()),
            Ok(Err(error)) => fail(&|| Error::consensus("propose a command", &error)),
        }
    }

    fn not_leader(&self) -> Error {
        Error::NotLeader { operation: "propose a command", leader: self.status.borrow().leader }
    }
}
