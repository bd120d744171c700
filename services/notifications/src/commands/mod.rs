//! The commands of the service, one a file.

mod desk;
mod fence;
mod send;

use std::sync::Arc;

use eventicket_contracts::Clock;
use eventicket_contracts::envelope::Key;
use eventicket_contracts::subjects::{FENCE, Service};
use eventicket_nats::{Commands, Delivered, Fault, Handled};
use tokio::sync::Notify;

use crate::store::Store;
use desk::Desk;

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
        let keys: Vec<Key> = batch.iter().map(|command| command.item.key.clone()).collect();
        let mut tx = self.store.begin(&keys).await?;
        let mut desk = Desk::new(tx.recorded(&keys).await?, self.clock.now());
        // The worker hands over actions of the contract only, and these are all.
        let decide = |command: &Delivered| match command.action.as_str() {
            FENCE => fence::decide(&mut desk, &command.item),
            _ => send::decide(&mut desk, &command.item),
        };
        let handled = batch.iter().map(decide).collect();
        tx.insert(&desk.new).await?;
        tx.commit().await?;
        self.wake.notify_one();
        Ok(handled)
    }
}
