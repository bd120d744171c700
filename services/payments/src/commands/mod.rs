//! The commands of the service, one a file.

mod charge;
mod fence;
mod refund;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use eventicket_contracts::envelope::{Half, Key};
use eventicket_contracts::subjects::{FENCE, Service};
use eventicket_contracts::{Clock, SagaId, Timestamp};
use eventicket_kit::seal::SealKeys;
use eventicket_nats::{Commands, Delivered, Fault, Handled};

use crate::charge::{Asker, Charge, State};
use crate::driver::Driver;
use crate::store::{RowsFound, Store};

/// How long rows are kept at least: a do of an older saga is refused, since its record may be gone.
const RETENTION_DAYS: u64 = 30;
/// Why an undo or a fence of an older one needs an operator.
const RECORD_GONE: &str = "the charge's record may be gone: the saga is too old";

/// Handles the service's commands in batches.
pub(crate) struct Payments {
    store: Store,
    clock: Clock,
    driver: Driver,
    seal: SealKeys,
}

/// What a decision needs besides row and command.
pub(crate) struct Surroundings<'a> {
    pub now: Timestamp,
    pub seal: &'a SealKeys,
    pub is_full: bool,
}

/// What a command comes to: how it is handled, and the row as it is to be written where it changes.
struct Decision {
    handled: Handled,
    write: Option<Charge>,
}

impl Decision {
    fn unchanged(handled: Handled) -> Self {
        Self { handled, write: None }
    }
}

impl Payments {
    pub fn new(store: Store, clock: Clock, driver: Driver, seal: SealKeys) -> Self {
        Self { store, clock, driver, seal }
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings { now: self.clock.now(), seal: &self.seal, is_full: self.driver.is_full() }
    }

    /// Handles a batch of charges that all begin, as nearly always, without a look for their rows; `None` where there is
    /// anything else.
    async fn begin(&self, batch: &[Delivered]) -> Result<Option<Vec<Handled>>, Fault> {
        if batch.iter().any(|command| command.item.half != Half::Do) {
            return Ok(None);
        }
        let (surroundings, mut rows) = (self.surroundings(), Rows::new(RowsFound::new()));
        let handled = batch.iter().map(|command| rows.handle(command, &surroundings)).collect();
        let new = rows.written(Origin::New);
        let all_begin = new.len() == batch.len() && new.iter().all(|charge| charge.state == State::Open);
        if !all_begin || !self.store.open(&new, surroundings.now).await? {
            return Ok(None);
        }
        rows.due().for_each(|(charge, _)| self.driver.take(charge));
        Ok(Some(handled))
    }
}

impl Commands for Payments {
    const SERVICE: Service = Service::PAYMENTS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        if let Some(handled) = self.begin(batch).await? {
            return Ok(handled);
        }
        let keys: Vec<Key> = batch.iter().map(|command| command.item.key.clone()).collect();
        let dead = || Fault::Transient("this replica was taken for dead; its next beat revives it".to_owned());
        let (mut tx, found) = self.store.begin(&keys).await?.ok_or_else(dead)?;
        let mut rows = Rows::new(found);
        let surroundings = self.surroundings();
        let handled = batch.iter().map(|command| rows.handle(command, &surroundings)).collect();
        let (new, changed) = (rows.written(Origin::New), rows.written(Origin::Stored));
        let made = tx.insert(&new, surroundings.now).await?;
        let updated = tx.update(&changed, surroundings.now).await?.len();
        if made < new.len() as u64 || updated < changed.len() {
            return Err(Fault::Transient("a row changed beside its lock".to_owned()));
        }
        tx.commit().await?;
        for (charge, origin) in rows.due() {
            match origin {
                Origin::New => self.driver.take(charge),
                Origin::Stored => self.driver.ask(charge),
            }
        }
        Ok(handled)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Origin {
    New,
    Stored,
}

/// The batch's rows, as its commands leave them one after the other.
pub(crate) struct Rows(HashMap<Key, Row>);

struct Row {
    charge: Charge,
    origin: Origin,
    /// The version in the table.
    version: i32,
    /// This replica drives it, or will once it is written.
    mine: bool,
    /// A command named it.
    asked: bool,
}

impl Rows {
    pub fn new(found: RowsFound) -> Self {
        let row = |(charge, mine): (Charge, bool)| {
            let version = charge.version;
            Row { charge, origin: Origin::Stored, version, mine, asked: false }
        };
        Self(found.into_iter().map(|(key, found)| (key, row(found))).collect())
    }

    pub fn handle(&mut self, command: &Delivered, surroundings: &Surroundings<'_>) -> Handled {
        let known = self.0.get(&command.item.key).map(|row| &row.charge);
        let decision = match (command.action.as_str(), command.item.half) {
            ("charge", Half::Do) => charge::decide(command, known, surroundings),
            ("refund", Half::Undo) => refund::decide(command, known, surroundings),
            (FENCE, Half::Fence) => fence::decide(command, known, surroundings),
            (action, _) => Decision::unchanged(Handled::Dead(format!("{action} is not this half of a round"))),
        };
        match (self.0.entry(command.item.key.clone()), decision.write) {
            (Entry::Occupied(mut row), write) => {
                let row = row.get_mut();
                row.asked = true;
                // Whoever is asked about what takes time looks for it, so that the answer does not wait for another one.
                let taken = (!row.mine && row.charge.state.may_wait() && decision.handled == Handled::Later)
                    .then(|| row.charge.next(row.charge.state));
                if let Some(charge) = write.or(taken) {
                    // However many commands change it, it is written once: over the version in the table.
                    row.charge = Charge { version: row.version + 1, ..charge };
                    row.mine = true;
                }
            }
            (Entry::Vacant(row), Some(charge)) => {
                row.insert(Row { charge, origin: Origin::New, version: 0, mine: true, asked: true });
            }
            (Entry::Vacant(_), None) => {}
        }
        decision.handled
    }

    pub fn written(&self, origin: Origin) -> Vec<&Charge> {
        let written = self.0.values().filter(|row| row.origin == origin && row.charge.version != row.version);
        written.map(|row| &row.charge).collect()
    }

    /// What the driver has to take up, or to look at since it was asked for.
    pub fn due(self) -> impl Iterator<Item = (Charge, Origin)> {
        let due = self.0.into_values().filter(|row| row.asked && row.mine && row.charge.state.is_due());
        due.map(|row| (row.charge, row.origin))
    }
}

fn asker(command: &Delivered) -> Asker {
    Asker { reply_to: command.reply_to.clone(), attempt: command.item.attempt }
}

/// Whether the records of a saga may be gone by now; version 7 ids carry the time of their making.
fn is_too_old(saga: SagaId, now: Timestamp) -> bool {
    let made = saga.0.get_timestamp().map(|made| made.to_unix().0);
    let now = u64::try_from(now.millis() / 1000).unwrap_or(0);
    made.is_some_and(|made| now.saturating_sub(made) > RETENTION_DAYS * 24 * 3_600)
}
