//! The commands of the service, one a file.

pub mod send;

use std::sync::Arc;

use eventicket_contracts::Clock;
use eventicket_contracts::subjects::Service;
use eventicket_nats::{Commands, Delivered, Fault, Handled};
use tokio::sync::Notify;

use crate::store::Store;

/// Handles the service's commands in batches.
pub struct Notifications {
    store: Store,
    clock: Clock,
    wake: Arc<Notify>,
}

impl Notifications {
    pub(crate) fn new(store: Store, clock: Clock, wake: Arc<Notify>) -> Self {
        Self { store, clock, wake }
    }
}

impl Commands for Notifications {
    const SERVICE: Service = Service::NOTIFICATIONS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        // The worker hands over actions of the contract only, and `send` is the only one.
        let handled = send::handle(&self.store, &self.clock, batch).await?;
        self.wake.notify_one();
        Ok(handled)
    }
}
