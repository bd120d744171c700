//! The commands of the service, one a file.

pub(crate) mod settle;

use std::sync::Arc;

use eventicket_contracts::subjects::Service;
use eventicket_nats::{Commands, Delivered, Fault, Handled};

use crate::Events;

/// Handles the service's commands in batches.
pub(crate) struct EventCommands(pub Arc<Events>);

impl Commands for EventCommands {
    const SERVICE: Service = Service::EVENTS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        // The worker hands over actions of the contract only, and `settle` is the only one.
        let handled = settle::handle(&self.0.store, &self.0.clock, batch).await?;
        self.0.wake_relay.notify_one();
        Ok(handled)
    }
}
