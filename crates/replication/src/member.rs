//! Who this node is in its group, and what its parts share.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Clock, GroupId, NodeId};

use tokio::sync::watch;

use crate::blobs::Ledger;
use crate::contact::{Acknowledgements, Contact, Reign};
use crate::network::GroupNetwork;
use crate::status::Status;

/// This node as a member of its group.
pub(crate) struct Member {
    pub(crate) group: GroupId,
    pub(crate) epoch: u64,
    pub(crate) node: NodeId,
    /// Names this run of the process.
    pub(crate) run: u64,
    pub(crate) timing: Timing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) network: Arc<dyn GroupNetwork>,
    contact: Mutex<Contact>,
    acknowledgements: Mutex<Acknowledgements>,
    blobs: Mutex<Ledger>,
    transfers: AtomicU64,
    highest_epoch: AtomicU64,
}

/// What makes a member.
pub(crate) struct Identity {
    pub(crate) group: GroupId,
    pub(crate) epoch: u64,
    pub(crate) node: NodeId,
    pub(crate) run: u64,
}

impl Member {
    pub(crate) fn new(
        identity: Identity,
        timing: Timing,
        clock: Arc<dyn Clock>,
        network: Arc<dyn GroupNetwork>,
    ) -> Self {
        let Identity { group, epoch, node, run } = identity;
        let contact = Mutex::new(Contact::new(clock.boot_now()));
        Self {
            group,
            epoch,
            node,
            run,
            timing,
            clock,
            network,
            contact,
            acknowledgements: Mutex::new(Acknowledgements::default()),
            blobs: Mutex::new(Ledger::default()),
            transfers: AtomicU64::new(0),
            highest_epoch: AtomicU64::new(epoch),
        }
    }

    pub(crate) fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn acknowledgements(&self) -> MutexGuard<'_, Acknowledgements> {
        self.acknowledgements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn blobs(&self) -> MutexGuard<'_, Ledger> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `voter` acknowledged what this node sent at `sent_at` as the leader of `term`.
    pub(crate) fn note_acknowledgement(&self, voter: NodeId, term: u64, sent_at: BootInstant) {
        self.acknowledgements().note(voter, term, sent_at);
    }

    /// A number for a transfer, unlike that of any other of this node.
    pub(crate) fn next_transfer(&self) -> u64 {
        (self.run << 32).wrapping_add(self.transfers.fetch_add(1, Ordering::Relaxed))
    }

    /// The term in which this node serves by `status`, unless it has pledged itself to a later leader meanwhile.
    pub(crate) fn serving_term(&self, status: &watch::Receiver<Status>) -> Option<u64> {
        let term = status.borrow().serving_term?;
        let reign = Reign { term, node: self.node, run: self.run };
        self.contact().forbids(reign).is_none().then_some(term)
    }

    /// Another node said that the group is in `epoch`.
    pub(crate) fn notice_epoch(&self, epoch: u64) {
        self.highest_epoch.fetch_max(epoch, Ordering::SeqCst);
    }

    /// The later epoch that made this group void, if one was heard of.
    pub(crate) fn superseded_by(&self) -> Option<u64> {
        Some(self.highest_epoch.load(Ordering::SeqCst)).filter(|epoch| *epoch > self.epoch)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("group", &self.group).field("node", &self.node).finish_non_exhaustive()
    }
}
