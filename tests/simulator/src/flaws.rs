//! Faults in the simulator's own store, network and glue: what a careless implementation of them would do. They show
//! that the invariants see more than the faults that are planted in the platform's decisions.

/// A fault of the surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// A process that ends while it commits has committed the first half of its writes.
    CommitInParts,
    /// The payment gateway forgets its keys when it ends.
    GatewayForgets,
    /// The orchestrator publishes commands before their commit.
    PublishBeforeCommit,
    /// A commit without an answer is taken for one that was made.
    UnknownCommitIsDone,
    /// Events are read without their capacity locks.
    NoCapacityLock,
    /// A batch does not take the locks of its sagas.
    NoSagaLock,
    /// Nobody adopts the sagas of a replica that is gone.
    NobodyAdopts,
    /// Nobody takes over the charges of a replica that is gone.
    NobodyTakesOver,
    /// Charges are written over whatever version stands there.
    ChargesWithoutVersion,
    /// The journal has no unique key of owner and idempotency key.
    NoUniqueRequest,
    /// Holds are swept at their end, not at the end of their grace.
    SweepWithoutGrace,
    /// The driver confirms an intent while its id is being committed.
    ConfirmBesideCommit,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CommitInParts,
        Self::GatewayForgets,
        Self::PublishBeforeCommit,
        Self::UnknownCommitIsDone,
        Self::NoCapacityLock,
        Self::NoSagaLock,
        Self::NobodyAdopts,
        Self::NobodyTakesOver,
        Self::ChargesWithoutVersion,
        Self::NoUniqueRequest,
        Self::SweepWithoutGrace,
        Self::ConfirmBesideCommit,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommitInParts => "commit_in_parts",
            Self::GatewayForgets => "gateway_forgets",
            Self::PublishBeforeCommit => "publish_before_commit",
            Self::UnknownCommitIsDone => "unknown_commit_is_done",
            Self::NoCapacityLock => "no_capacity_lock",
            Self::NoSagaLock => "no_saga_lock",
            Self::NobodyAdopts => "nobody_adopts",
            Self::NobodyTakesOver => "nobody_takes_over",
            Self::ChargesWithoutVersion => "charges_without_version",
            Self::NoUniqueRequest => "no_unique_request",
            Self::SweepWithoutGrace => "sweep_without_grace",
            Self::ConfirmBesideCommit => "confirm_beside_commit",
        }
    }
}
