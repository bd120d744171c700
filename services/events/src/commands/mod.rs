//! The commands of the service, one a file.

mod desk;
mod fence;
mod settle;

use std::sync::Arc;

use eventicket_contracts::EventId;
use eventicket_contracts::envelope::Key;
use eventicket_contracts::events::Settle;
use eventicket_contracts::subjects::{FENCE, Service};
use eventicket_nats::{Commands, Delivered, Fault, Handled, decode};

use crate::Events;
use desk::Desk;

/// Handles the service's commands in batches.
pub(crate) struct EventCommands(pub Arc<Events>);

impl Commands for EventCommands {
    const SERVICE: Service = Service::EVENTS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        let keys: Vec<Key> = batch.iter().map(|command| command.item.key.clone()).collect();
        let settled = batch.iter().filter_map(|command| match command.action.as_str() {
            FENCE => decode(&command.item).ok().as_ref().and_then(fence::settlement),
            _ => decode::<Settle>(&command.item).ok(),
        });
        let mut ids: Vec<EventId> = settled.map(|settle| settle.event).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut tx = self.0.store.begin_batch(&keys).await?;
        let mut desk = Desk::new(tx.recorded(&keys).await?, tx.lock_all(&ids).await?, self.0.clock.now());
        // The worker hands over actions of the contract only, and these are all.
        let decide = |command: &Delivered| match command.action.as_str() {
            FENCE => fence::decide(&mut desk, &command.item),
            _ => settle::decide(&mut desk, &command.item),
        };
        let handled = batch.iter().map(decide).collect();
        desk.write(&mut tx).await?;
        tx.commit().await?;
        self.0.wake_relay.notify_one();
        Ok(handled)
    }
}
