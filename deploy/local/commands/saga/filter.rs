//! Which sagas, as flags.

use eventicket_contracts::sagas::ListSagas;
use eventicket_contracts::{CustomerId, EventId, Timestamp};

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Filter {
    /// By state, as `running` or `completed`, or `attention`
    #[arg(long)]
    state: Option<String>,
    /// By kind, as `booking`
    #[arg(long)]
    kind: Option<String>,
    /// By the step that it is at, as `PAY`
    #[arg(long)]
    pub step: Option<String>,
    /// By event
    #[arg(long)]
    event: Option<EventId>,
    /// By the user it belongs to
    #[arg(long)]
    user: Option<CustomerId>,
    /// Started at or after this time, as `2027-01-12T09:30:00Z`
    #[arg(long)]
    from: Option<Timestamp>,
    /// Started before this time
    #[arg(long)]
    to: Option<Timestamp>,
    /// By idempotency key, or by how the id begins
    #[arg(long)]
    q: Option<String>,
}

impl Filter {
    /// For the orchestrator, from the newest on.
    pub fn query(self) -> ListSagas {
        let Self { state, kind, step, event, user, from, to, q } = self;
        ListSagas { state, kind, step, event, user, from, to, q, ..ListSagas::default() }
    }
}
