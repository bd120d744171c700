//! The notifications service: a delivery is recorded; that mails leave is not simulated.

use std::collections::{BTreeSet, HashMap};

use eventicket_contracts::SagaId;
use eventicket_nats::{Delivered, Fault, Handled};

use crate::network::Stream;
use crate::processes::ProcessId;
use crate::store::{Lock, Tx, Write};
use crate::world::Sim;

/// Starts it.
pub(crate) fn start(sim: &Sim, me: ProcessId) {
    crate::worker::start(sim, me, Stream::Notifications);
}

/// Handles a batch in one transaction.
pub(crate) async fn handle(sim: &Sim, me: ProcessId, items: &[Delivered]) -> Result<Vec<Handled>, Fault> {
    let sagas: BTreeSet<SagaId> = items.iter().map(|command| command.item.key.saga).collect();
    let mut tx = Tx::begin(sim, me);
    tx.lock_sagas("notifications", &sagas).await?;
    tx.statement().await?;
    let recorded = {
        let store = sim.store.borrow();
        let keys = items.iter().map(|command| &command.item.key);
        let answers = keys.filter_map(|key| Some((key.clone(), store.tables.deliveries.get(key)?.clone())));
        answers.collect::<HashMap<_, _>>()
    };
    let (handled, new) = eventicket_notifications::commands::simulate(recorded, items, sim.clock(me));
    tx.statement().await?;
    for (key, answer) in new {
        tx.lock(Lock::Delivery(key.clone())).await?;
        tx.write(Write::Delivery(key, answer));
    }
    tx.commit().await?;
    Ok(handled)
}
