//! Known bugs that can be planted, to see that the simulator finds them. They are made in the simulator's own drivers, where
//! production code has its rule; production code has no switch for them.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlantedBug {
    /// Voters acknowledge entries and votes that are not on their disks yet.
    AckBeforeFsync,
    /// The leader takes jobs from a robot whose lease has a second to go.
    ReassignBeforeLeaseEnd,
    /// The leader renews leases without asking a quorum whether it still leads.
    RenewWithoutQuorum,
    /// A leader serves before an entry of its own is applied.
    ServeBeforeOwnEntry,
    /// Nodes apply commands with their own wall clock instead of the command's time.
    ApplyWithWallClock,
    /// Records count whatever fence they carry.
    StaleFenceAccepted,
    /// The target of a move forgets at once what it decided.
    DedupLostOnTransfer,
    /// The source takes a job back by itself that is under way.
    RecallAtTheSource,
    /// A node says that the catalog's writes are on its disk before they are.
    CatalogAckBeforeSync,
    /// What a copy of the catalog knows beside its entries is not written with them.
    CatalogLosesFacts,
    /// A snapshot comes without the moves that were decided.
    SnapshotLacksArrivals,
    /// A job whose move was given up keeps its generation.
    AbandonKeepsGeneration,
}

impl PlantedBug {
    pub(crate) const ALL: [Self; 12] = [
        Self::AckBeforeFsync,
        Self::ReassignBeforeLeaseEnd,
        Self::RenewWithoutQuorum,
        Self::ServeBeforeOwnEntry,
        Self::ApplyWithWallClock,
        Self::StaleFenceAccepted,
        Self::DedupLostOnTransfer,
        Self::RecallAtTheSource,
        Self::CatalogAckBeforeSync,
        Self::CatalogLosesFacts,
        Self::SnapshotLacksArrivals,
        Self::AbandonKeepsGeneration,
    ];

    /// Whether it is in the catalog, so that the groups need not be run to find it.
    pub(crate) fn is_in_catalog(self) -> bool {
        matches!(self, Self::CatalogAckBeforeSync | Self::CatalogLosesFacts)
    }
}
