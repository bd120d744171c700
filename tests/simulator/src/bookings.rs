//! The bookings service: its batches and its sweep, statement by statement, around its own decisions.

use std::rc::Rc;

use eventicket_bookings::simulation::{Batch, Written};
use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::{CustomerId, EventId};
use eventicket_nats::{Delivered, Fault, Handled};
use eventicket_planted::Fault as Planted;

use crate::executor::{NEVER, On, Wait};
use crate::flaws::Flaw;
use crate::network::Stream;
use crate::processes::ProcessId;
use crate::store::{Lock, Tables, Tx, Write};
use crate::world::{Sim, World};

const SERVICE: &str = "bookings";
/// Between two passes of the sweep, ms.
const PASS: i64 = 1_000;

/// Starts a replica.
pub(crate) fn start(sim: &Sim, me: ProcessId) {
    crate::worker::start(sim, me, Stream::Bookings);
    sim.tasks.spawn_waiting(Some(me), "sweep", sweep(Rc::clone(sim), me));
}

/// Handles a batch in one transaction.
pub(crate) async fn handle(sim: &Sim, me: ProcessId, items: &[Delivered]) -> Result<Vec<Handled>, Fault> {
    let mut batch = Batch::of_commands(items);
    let mut tx = begin(sim, me, &mut batch).await?;
    let (offers, fences) = batch.wants_answers();
    let sagas = batch.sagas();
    let of_batch = |key: &Key| sagas.contains(&key.saga);
    if offers {
        tx.statement().await?;
        let store = sim.store.borrow();
        batch.add_offers(store.tables.offers.iter().filter(|(key, _)| of_batch(key)).map(pair));
    }
    if fences {
        tx.statement().await?;
        let store = sim.store.borrow();
        batch.add_fences(store.tables.fences.iter().filter(|((key, _), _)| of_batch(key)).map(pair));
    }
    supply(sim, &mut tx, &mut batch).await?;
    let handled = batch.decide(sim.clock(me));
    for (command, _) in items.iter().zip(&handled).filter(|(_, handled)| **handled == Handled::Answer(Answer::Expired))
    {
        if sim.store.borrow().tables.holds.contains_key(&command.item.key) {
            sim.expired_although_recorded(&command.item.key);
        }
    }
    write(sim, tx, batch.finish()).await?;
    Ok(handled)
}

fn pair<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// A transaction that holds the locks of the batch's sagas, with what is recorded of them.
async fn begin(sim: &Sim, me: ProcessId, batch: &mut Batch) -> Result<Tx, Fault> {
    let sagas = batch.sagas();
    let mut tx = Tx::begin(sim, me);
    let read = |tables: &Tables| {
        let rows = sagas.iter().flat_map(|saga| tables.holds_of(*saga)).map(pair);
        rows.collect::<Vec<_>>()
    };
    let mut early = None;
    if Planted::LookBeforeLock.is_planted() || sim.has_flaw(Flaw::NoSagaLock) {
        tx.statement().await?;
        early = Some(read(&sim.store.borrow().tables));
    }
    if !sim.has_flaw(Flaw::NoSagaLock) {
        tx.lock_sagas(SERVICE, &sagas).await?;
    }
    // A statement of its own: it sees what the former holder of a lock committed.
    tx.statement().await?;
    batch.add_records(early.unwrap_or_else(|| read(&sim.store.borrow().tables)));
    Ok(tx)
}

/// Locks the events of a batch, and reads what its decisions need.
async fn supply(sim: &Sim, tx: &mut Tx, batch: &mut Batch) -> Result<(), Fault> {
    let events = batch.events();
    if !events.is_empty() {
        tx.statement().await?;
        let read = || {
            let store = sim.store.borrow();
            events.iter().filter_map(|event| store.tables.events.get(event).cloned()).collect::<Vec<_>>()
        };
        if sim.has_flaw(Flaw::NoCapacityLock) {
            let found = read();
            sim.step().await;
            batch.add_events(found);
        } else {
            for event in &events {
                tx.lock(Lock::Event(*event)).await?;
            }
            tx.statement().await?;
            batch.add_events(read());
        }
    }
    let store = sim.store.borrow();
    for event in events.iter().filter(|event| store.tables.events.get(event).is_some_and(|row| row.has_seats())) {
        batch.add_seats(*event, |label| store.tables.seats.get(&(*event, label.to_owned())).cloned());
    }
    for (event, customer) in batch.customers() {
        batch.add_customer(event, customer, bought(&store.tables, event, customer));
    }
    Ok(())
}

/// What a customer holds and has bought of an event.
pub(crate) fn bought(tables: &Tables, event: EventId, customer: CustomerId) -> u32 {
    let counts = |row: &eventicket_bookings::simulation::HoldRow| {
        row.is_confirmed() || row.is_held() && !Planted::LimitForgetsHolds.is_planted()
    };
    let of = tables.holds.values().filter(|row| row.event() == event && row.customer() == Some(customer));
    of.filter(|row| counts(row)).flat_map(|row| row.takes()).map(|line| line.quantity).sum()
}

async fn write(sim: &Sim, mut tx: Tx, written: Written) -> Result<(), Fault> {
    tx.statement().await?;
    for (key, row) in written.inserted {
        tx.lock(Lock::Hold(key.clone())).await?;
        if sim.store.borrow().tables.holds.contains_key(&key) {
            return Err(Fault::Broken("duplicate key value violates a unique constraint of holds".to_owned()));
        }
        tx.write(Write::Hold(key, row));
    }
    for (key, row) in written.updated {
        tx.lock(Lock::Hold(key.clone())).await?;
        tx.write(Write::Hold(key, row));
    }
    for (event, label, holder) in written.seats {
        tx.lock(Lock::Seat(event, label.clone())).await?;
        let taken = sim.store.borrow().tables.seats.contains_key(&(event, label.clone()));
        if holder.is_some() && taken {
            return Err(Fault::Broken("duplicate key value violates a unique constraint of taken_seats".to_owned()));
        }
        tx.write(Write::Seat(event, label, holder));
    }
    written.left.into_iter().map(Write::Left).for_each(|write| tx.write(write));
    written.offered.into_iter().map(Write::Event).for_each(|write| tx.write(write));
    written.offers.into_iter().for_each(|(key, answer)| tx.write(Write::Offer(key, answer)));
    written.fences.into_iter().for_each(|(key, answer)| tx.write(Write::Fence(key, answer)));
    tx.commit().await
}

/// Frees holds whose grace has run out.
async fn sweep(sim: Sim, me: ProcessId) {
    loop {
        sim.pause(Wait::on(On::Sweep(me))).await;
        let now = sim.clock(me).millis();
        let due: Vec<Key> = {
            let store = sim.store.borrow();
            let due = store.tables.holds.iter().filter(|(_, row)| row.is_held() && sim.free_at(row) <= now);
            due.map(|(key, _)| key.clone()).collect()
        };
        if due.is_empty() || free(&sim, me, due).await.is_err() {
            sim.sleep(PASS).await;
        }
    }
}

async fn free(sim: &Sim, me: ProcessId, keys: Vec<Key>) -> Result<(), Fault> {
    sim.tell(Some(me), || format!("sweeps {}", keys.iter().map(crate::story::key).collect::<Vec<_>>().join(", ")));
    let mut batch = Batch::of_sweep(keys);
    let mut tx = begin(sim, me, &mut batch).await?;
    supply(sim, &mut tx, &mut batch).await?;
    batch.decide(sim.clock(me));
    write(sim, tx, batch.finish()).await
}

impl World {
    /// When the sweep frees a hold.
    fn free_at(&self, row: &eventicket_bookings::simulation::HoldRow) -> i64 {
        let grace = row.grace_until().map_or(NEVER, |at| at.millis());
        if self.has_flaw(Flaw::SweepWithoutGrace) { grace - crate::scenario::GRACE } else { grace }
    }

    /// When the sweep of a process has something to do.
    pub fn next_sweep(&self, me: ProcessId) -> i64 {
        let store = self.store.borrow();
        let held = store.tables.holds.values().filter(|row| row.is_held());
        held.map(|row| self.when(me, self.free_at(row))).min().unwrap_or(NEVER)
    }
}
