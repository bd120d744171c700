//! The commands of the service, one a file.

mod desk;
mod fence;
mod send;

use std::collections::HashMap;
use std::sync::Arc;

use eventicket_contracts::envelope::{Answer, Half, Key};
use eventicket_contracts::subjects::{FENCE, Service};
use eventicket_contracts::{Clock, SagaId, Timestamp};
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

    /// Handles a batch of new deliveries, as nearly always, without a look for what is recorded; `None` where there is
    /// anything else.
    async fn record(&self, batch: &[Delivered]) -> Result<Option<Vec<Handled>>, sqlx::Error> {
        if batch.iter().any(|command| command.item.half != Half::Do) {
            return Ok(None);
        }
        let mut desk = Desk::new(HashMap::new(), self.clock.now());
        let handled = batch.iter().map(|command| decide(&mut desk, command)).collect();
        let all_new = desk.new.len() == batch.len() && desk.new.iter().all(|delivery| delivery.refused.is_none());
        if !all_new || !self.store.insert(&desk.new).await? {
            return Ok(None);
        }
        self.wake.notify_one();
        Ok(Some(handled))
    }
}

impl Commands for Notifications {
    const SERVICE: Service = Service::NOTIFICATIONS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        if let Some(handled) = self.record(batch).await? {
            return Ok(handled);
        }
        let sagas: Vec<SagaId> = batch.iter().map(|command| command.item.key.saga).collect();
        let (mut tx, recorded) = self.store.begin(&sagas).await?;
        let mut desk = Desk::new(recorded, self.clock.now());
        let handled = batch.iter().map(|command| decide(&mut desk, command)).collect();
        tx.insert(&desk.new).await?;
        tx.commit().await?;
        self.wake.notify_one();
        Ok(handled)
    }
}

/// The worker hands over actions of the contract only, and these are all.
fn decide(desk: &mut Desk, command: &Delivered) -> Handled {
    match command.action.as_str() {
        FENCE => fence::decide(desk, &command.item),
        _ => send::decide(desk, &command.item),
    }
}

/// The service without its store, for the simulator: a batch over what is recorded of its sagas. Returns how each command is
/// handled, and the answers to be recorded.
pub fn simulate(
    recorded: HashMap<Key, Answer>,
    batch: &[Delivered],
    now: Timestamp,
) -> (Vec<Handled>, Vec<(Key, Answer)>) {
    let mut desk = Desk::new(recorded, now);
    let handled = batch.iter().map(|command| decide(&mut desk, command)).collect();
    let answer = |key: &Key| Some((key.clone(), desk.recorded(key)?.clone()));
    let new = desk.new.iter().filter_map(|delivery| answer(&delivery.key)).collect();
    (handled, new)
}
