//! The rules of the robot lease that the model can do without, one at a time.

/// A rule of the design ("Robot lease and sessions"), or of the group it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// A heartbeat is answered only after a quorum confirmed the leadership.
    QuorumConfirms,
    /// A confirmation begun before a heartbeat came does not count for it.
    FreshConfirmation,
    /// The leader serves only after its own first entry is applied.
    OwnFirstEntry,
    /// A new leader waits for a lease after the latest time an earlier one was heard.
    TakeoverWait,
    /// A restarted voter reports its boot, because it forgot what it heard.
    RestartedVoterCounts,
    /// A leader that led before counts the moment it stopped.
    ResumedLeaderCounts,
    /// A held job is made `stopping` before it may be assigned elsewhere.
    StoppingFirst,
    /// Messages are bound to their session.
    MessagesBound,
    /// A job is never requeued because its session does not list it yet.
    UnlistedIsNotGone,
    /// The robot remembers, within a session, what it ended.
    RobotRemembers,
    /// An opening counts its lease from its first sending.
    OpeningCountsFromFirst,
    /// Boot numbers rise.
    BootsOrdered,
    /// Assignments and stops are sent again until seen done.
    Resending,
    /// Only confirmed messages of a leader raise the robot's term.
    ConfirmedTermsOnly,
    /// The robot refuses terms lower than the highest seen.
    TermsMonotonic,
    /// The state machine checks preconditions, fences included.
    Preconditions,
    /// The robot counts 1 % less than the leader.
    ClockMargin,
    /// A robot's session that ran out on its clock is not renewed any more.
    RobotNeverRevives,
    /// The robot ends what it held when its lease runs out.
    RobotCountsLease,
    /// A job that may be finished cut off is taken away only past its bound, not at the end of the lease.
    AbsenceWaits,
    /// The leader counts 1 % more of an absence than the robot.
    AbsenceMargin,
    /// A return begins an absence with nothing elapsed.
    ReturnBeginsAnew,
    /// A release for an absence is void once the holder was back.
    AbsencesNumbered,
    /// A new leader counts on from what is committed of an absence.
    CountsOn,
    /// After its own restart the robot runs nothing on.
    RestartEndsAll,
}

impl Rule {
    /// Rules whose absence random walks find: two robots act for one job, or a job is stuck.
    pub(crate) const CAUGHT: [Self; 8] = [
        Self::TakeoverWait,
        Self::StoppingFirst,
        Self::MessagesBound,
        Self::UnlistedIsNotGone,
        Self::Resending,
        Self::RobotCountsLease,
        Self::ConfirmedTermsOnly,
        Self::RobotNeverRevives,
    ];

    /// The same, of those for jobs that may be finished cut off.
    pub(crate) const FINISHING_CAUGHT: [Self; 2] = [Self::AbsenceWaits, Self::RestartEndsAll];

    /// Like [`Self::REDUNDANT`]: a release for an absence comes before a return in every log, or after the robot's bound.
    pub(crate) const FINISHING_REDUNDANT: [Self; 1] = [Self::AbsencesNumbered];

    /// Rules whose absence alone harms nothing, because another covers them: an opening tried again and a repeated boot
    /// number find every old assignment settled (the answer to the first heartbeat says so); terms and preconditions are
    /// covered by the sessions, in a model that has one proposal of a kind under way.
    pub(crate) const REDUNDANT: [Self; 4] =
        [Self::OpeningCountsFromFirst, Self::BootsOrdered, Self::TermsMonotonic, Self::Preconditions];
}
