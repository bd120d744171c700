//! The databases of the services in one: committed rows, and transactions at READ COMMITTED beside each other. A
//! statement sees what is committed when it runs; row and advisory locks and unique keys are waited for; what a
//! transaction writes is seen by others once it commits, and the answer to a commit may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use eventicket_bookings::simulation::{EventRow, HoldRow, Left};
use eventicket_contracts::envelope::{Answer, Key};
use eventicket_contracts::payments::FailedRefund;
use eventicket_contracts::{CustomerId, EventId, SagaId};
use eventicket_nats::Fault;
use eventicket_orchestrator::runtime::replicas::Outstanding;
use eventicket_orchestrator::runtime::row::Row;
use eventicket_payments::simulation::Row as ChargeRow;
use eventicket_saga::Entry;
use eventicket_saga::breaker::Breaker;

use crate::chaos::Kind;
use crate::executor::{On, Wait};
use crate::flaws::Flaw;
use crate::mind::Mind;
use crate::processes::ProcessId;
use crate::world::Sim;

/// How long a lock is waited for, and how long a transaction may stand idle, ms.
const LOCK_TIMEOUT: i64 = 1_000;

/// What one transaction at a time has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lock {
    /// The advisory lock of a saga in a service's database.
    Advisory(&'static str, SagaId),
    Saga(SagaId),
    Request(CustomerId, String),
    Hold(Key),
    Event(EventId),
    Seat(EventId, String),
    Charge(Key),
    Delivery(Key),
}

/// A saga as the journal has it.
#[derive(Clone, Debug)]
pub(crate) struct Journaled {
    pub row: Row,
    pub dispatcher: Name,
    pub history: Vec<Entry>,
}

/// A replica's name, new at each start.
pub(crate) type Name = u64;

#[derive(Clone, Debug)]
pub(crate) struct StoredBreaker {
    pub breaker: Breaker,
    pub version: i64,
}

/// A charge with the replica that drives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Charge {
    pub row: ChargeRow,
    pub owner: Name,
}

/// A refund to look at again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Watch {
    pub due: i64,
    pub looks: u32,
}

/// Committed rows.
#[derive(Default)]
pub(crate) struct Tables {
    pub sagas: BTreeMap<SagaId, Rc<Journaled>>,
    /// The unique key of owner and idempotency key.
    pub requests: BTreeMap<(CustomerId, String), SagaId>,
    /// Commands in flight by replica.
    pub counts: BTreeMap<Name, Outstanding>,
    pub breakers: BTreeMap<String, StoredBreaker>,
    pub holds: BTreeMap<Key, HoldRow>,
    pub events: BTreeMap<EventId, EventRow>,
    pub offers: BTreeMap<Key, Answer>,
    pub fences: BTreeMap<(Key, u32), Answer>,
    pub seats: BTreeMap<(EventId, String), Key>,
    pub charges: BTreeMap<Key, Charge>,
    /// Replicas of payments.
    pub payers: BTreeSet<Name>,
    pub starts: BTreeMap<SagaId, (FailedRefund, bool)>,
    pub watches: BTreeMap<Key, Watch>,
    pub webhooks: BTreeSet<String>,
    pub deliveries: BTreeMap<Key, Answer>,
}

/// Tables that know how often somebody was about to change them, and tell the task that runs that it reads.
pub(crate) struct Counted {
    tables: Tables,
    changes: usize,
    mind: Rc<Mind>,
}

impl Counted {
    /// As long as this is the same, so are the tables.
    pub fn changes(&self) -> usize {
        self.changes
    }
}

impl Deref for Counted {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        self.mind.reads();
        &self.tables
    }
}

impl DerefMut for Counted {
    fn deref_mut(&mut self) -> &mut Tables {
        self.changes += 1;
        self.mind.reads();
        &mut self.tables
    }
}

impl Tables {
    /// The holds of a saga.
    pub fn holds_of(&self, saga: SagaId) -> impl Iterator<Item = (&Key, &HoldRow)> {
        self.holds.range(first(saga)..).take_while(move |(key, _)| key.saga == saga)
    }

    /// The charges of a saga.
    pub fn charges_of(&self, saga: SagaId) -> impl Iterator<Item = (&Key, &Charge)> {
        self.charges.range(first(saga)..).take_while(move |(key, _)| key.saga == saga)
    }
}

fn first(saga: SagaId) -> Key {
    Key { saga, step: String::new(), round: 0 }
}

/// A change that a commit makes.
pub(crate) enum Write {
    NewSaga(Box<Row>, Name),
    Saga(Box<Row>, Name),
    Count(Name, Outstanding),
    Hold(Key, HoldRow),
    Event(EventRow),
    Left(Left),
    Offer(Key, Answer),
    Fence((Key, u32), Answer),
    Seat(EventId, String, Option<Key>),
    Charge(Box<ChargeRow>, Name),
    Start(SagaId, Box<FailedRefund>),
    Watch(Key, Option<Watch>),
    Webhook(String),
    Delivery(Key, Answer),
}

/// Rows and locks.
pub(crate) struct Store {
    pub tables: Counted,
    pub locks: BTreeMap<Lock, u64>,
    open: BTreeMap<u64, Open>,
    number: u64,
}

struct Open {
    process: ProcessId,
    /// When its last statement ended.
    idle_since: i64,
}

impl Store {
    pub fn new(mind: Rc<Mind>) -> Self {
        let tables = Counted { tables: Tables::default(), changes: 0, mind };
        Self { tables, locks: BTreeMap::new(), open: BTreeMap::new(), number: 0 }
    }

    pub fn is_free(&self, lock: &Lock) -> bool {
        !self.locks.contains_key(lock)
    }

    fn release(&mut self, tx: u64) {
        self.open.remove(&tx);
        self.locks.retain(|_, holder| *holder != tx);
    }

    /// Ends the transactions that a process which stands still has left idle for too long.
    pub fn end_idle(&mut self, process: ProcessId, now: i64) {
        let idle = |open: &Open| open.process == process && now - open.idle_since > LOCK_TIMEOUT;
        let gone: Vec<u64> = self.open.iter().filter(|(_, open)| idle(open)).map(|(tx, _)| *tx).collect();
        gone.into_iter().for_each(|tx| self.release(tx));
    }
}

/// A transaction; rolled back where it is dropped.
pub(crate) struct Tx {
    sim: Sim,
    number: u64,
    process: ProcessId,
    writes: Vec<Write>,
    held: BTreeSet<Lock>,
}

impl Tx {
    pub fn begin(sim: &Sim, process: ProcessId) -> Self {
        let mut store = sim.store.borrow_mut();
        store.number += 1;
        let number = store.number;
        store.open.insert(number, Open { process, idle_since: sim.now() });
        Self { sim: sim.clone(), number, process, writes: Vec::new(), held: BTreeSet::new() }
    }

    /// A statement reaches the database, unless something is in its way.
    pub async fn statement(&mut self) -> Result<(), Fault> {
        self.sim.step().await;
        if self.sim.befalls(Kind::Statement) {
            self.sim.tell(Some(self.process), || "a statement fails: the connection is cut".to_owned());
            return Err(Fault::Transient("the connection was cut".to_owned()));
        }
        let now = self.sim.now();
        match self.sim.store.borrow_mut().open.get_mut(&self.number) {
            Some(open) => open.idle_since = now,
            None => return Err(Fault::Transient("the transaction stood idle for too long".to_owned())),
        }
        Ok(())
    }

    /// Waits for a lock, which it has until its end.
    pub async fn lock(&mut self, lock: Lock) -> Result<(), Fault> {
        if self.held.contains(&lock) {
            return Ok(());
        }
        let until = self.sim.now() + LOCK_TIMEOUT;
        loop {
            if !self.sim.store.borrow().open.contains_key(&self.number) {
                return Err(Fault::Transient("the transaction stood idle for too long".to_owned()));
            }
            if self.sim.store.borrow().is_free(&lock) {
                break;
            }
            if self.sim.now() >= until {
                return Err(Fault::Transient("a lock was waited for too long".to_owned()));
            }
            self.sim.pause(Wait { until, on: On::Lock(lock.clone()) }).await;
        }
        self.sim.store.borrow_mut().locks.insert(lock.clone(), self.number);
        self.held.insert(lock);
        Ok(())
    }

    /// Takes the advisory locks of sagas, in one statement.
    pub async fn lock_sagas(&mut self, service: &'static str, sagas: &BTreeSet<SagaId>) -> Result<(), Fault> {
        self.statement().await?;
        for saga in sagas {
            self.lock(Lock::Advisory(service, *saga)).await?;
        }
        Ok(())
    }

    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Commits. An error leaves open whether it was; it is so in about half of the cases.
    pub async fn commit(mut self) -> Result<(), Fault> {
        self.statement().await?;
        let lost = self.sim.befalls(Kind::Commit).then(|| self.sim.choose(2) == 0);
        if lost == Some(false) {
            self.sim.tell(Some(self.process), || "its commit is lost, and not made".to_owned());
            if self.sim.has_flaw(Flaw::CommitInParts) {
                let half = self.writes.len() / 2;
                self.sim.apply(self.process, self.writes.drain(..half).collect());
            }
            return Err(Fault::Transient("the connection was cut at the commit".to_owned()));
        }
        let writes = std::mem::take(&mut self.writes);
        self.sim.apply(self.process, writes);
        self.sim.store.borrow_mut().release(self.number);
        self.sim.edge(self.process).await;
        if lost == Some(true) {
            self.sim.tell(Some(self.process), || "its commit is made, and the answer is lost".to_owned());
            return Err(Fault::Transient("the connection was cut at the commit".to_owned()));
        }
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.sim.store.borrow_mut().release(self.number);
    }
}

impl Tables {
    /// What a commit makes of the rows.
    pub fn make(&mut self, write: Write) {
        match write {
            Write::NewSaga(mut row, dispatcher) => {
                if let Some((owner, request)) = row.owner.zip(row.idempotency.as_ref()) {
                    self.requests.insert((owner, request.key.clone()), row.id);
                }
                let history = std::mem::take(&mut row.news);
                row.version = 1;
                self.sagas.insert(row.id, Rc::new(Journaled { row: *row, dispatcher, history }));
            }
            Write::Saga(mut row, dispatcher) => {
                let Some(known) = self.sagas.remove(&row.id) else { return };
                let news = std::mem::take(&mut row.news);
                row.version = known.row.version + 1;
                let mut history = Rc::try_unwrap(known).map_or_else(|rc| rc.history.clone(), |j| j.history);
                history.extend(news);
                self.sagas.insert(row.id, Rc::new(Journaled { row: *row, dispatcher, history }));
            }
            Write::Count(name, counts) => {
                // Of a replica that was buried there is no row.
                if let Some(row) = self.counts.get_mut(&name) {
                    *row = counts;
                }
            }
            Write::Hold(key, row) => drop(self.holds.insert(key, row)),
            Write::Event(row) => drop(self.events.insert(row.id(), row)),
            Write::Left(left) => {
                if let Some(row) = self.events.get_mut(&left.event) {
                    row.set_left(&left);
                }
            }
            Write::Offer(key, answer) => drop(self.offers.insert(key, answer)),
            Write::Fence(key, answer) => drop(self.fences.insert(key, answer)),
            Write::Seat(event, label, Some(key)) => drop(self.seats.insert((event, label), key)),
            Write::Seat(event, label, None) => drop(self.seats.remove(&(event, label))),
            Write::Charge(row, owner) => drop(self.charges.insert(row.key().clone(), Charge { row: *row, owner })),
            Write::Start(id, input) => drop(self.starts.entry(id).or_insert((*input, false))),
            Write::Watch(key, Some(watch)) => drop(self.watches.insert(key, watch)),
            Write::Watch(key, None) => drop(self.watches.remove(&key)),
            Write::Webhook(id) => drop(self.webhooks.insert(id)),
            Write::Delivery(key, answer) => drop(self.deliveries.insert(key, answer)),
        }
    }
}
