//! What a service implements to take commands.

use std::future::Future;

use eventicket_contracts::envelope::{Answer, Item};
use eventicket_contracts::subjects::Service;
use serde::de::DeserializeOwned;

/// A service's commands. The worker flattens the items of the envelopes that are ready into one batch and calls
/// [`Commands::handle`] once for it.
pub trait Commands: Send + Sync + 'static {
    /// The service whose stream is worked off.
    const SERVICE: Service;

    /// Handles a batch in one transaction: one [`Handled`] an item, in the batch's order.
    ///
    /// # Errors
    /// [`Fault`] where nothing was committed.
    fn handle(&self, batch: &[Delivered]) -> impl Future<Output = Result<Vec<Handled>, Fault>> + Send;
}

/// An item of an envelope, as it was delivered.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The action, one of the service's own.
    pub action: String,
    /// The command.
    pub item: Item,
    /// The subject that its reply goes to.
    pub reply_to: String,
    /// How often its envelope was delivered, this time included.
    pub deliveries: u64,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Handled {
    /// This is its answer.
    Answer(Answer),
    /// It is dead-lettered for this reason, and answered `dead`.
    Dead(String),
    /// It is recorded, and the service answers by itself once it knows the end.
    Later,
}

/// Why a batch was not handled; nothing of it was committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A dependency is away: worth another try.
    #[error("{0}")]
    Transient(String),
    /// Something in the batch cannot be handled: it is split until that stands alone.
    #[error("{0}")]
    Broken(String),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let transient = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                // Connections, rollbacks, resources, operator intervention, system errors; a lock not got in time.
                ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "55P03"
            }),
            _ => false,
        };
        if transient { Self::Transient(error.to_string()) } else { Self::Broken(error.to_string()) }
    }
}

/// Reads an item's body; what is not of the action's form is dead.
///
/// # Errors
/// [`Handled::Dead`] with what is wrong.
pub fn decode<T: DeserializeOwned>(item: &Item) -> Result<T, Handled> {
    serde_json::from_str(item.body.get()).map_err(|error| Handled::Dead(format!("the body cannot be read: {error}")))
}
