//! What a service implements to take commands.

use std::any::Any;
use std::future::Future;

use eventicket_contracts::envelope::{Answer, Item};
use eventicket_contracts::subjects::Service;
use serde::Deserialize;

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
    /// A dependency is away: the batch is tried again, whole and unacknowledged, until it is back.
    #[error("{0}")]
    Transient(String),
    /// Something in the batch cannot be handled: it is split until that stands alone.
    #[error("{0}")]
    Broken(String),
}

impl Fault {
    /// A panic, which breaks what it was caught in.
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Broken(format!("panicked: {}", text.unwrap_or_else(|| "without a message".into())))
    }
}

/// Only what the data is to blame for breaks a batch (rule 9): a restart of PostgreSQL, or a table that is not there yet,
/// makes no dead letters.
impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let broken = match &error {
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => true,
            // Data exceptions and violated constraints.
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
            }
            _ => false,
        };
        if broken { Self::Broken(error.to_string()) } else { Self::Transient(error.to_string()) }
    }
}

/// Reads an item's body; what is not of the action's form is dead.
///
/// # Errors
/// [`Handled::Dead`] with what is wrong.
pub fn decode<'a, T: Deserialize<'a>>(item: &'a Item) -> Result<T, Handled> {
    item.body.read().map_err(|error| Handled::Dead(format!("the body cannot be read: {error}")))
}
