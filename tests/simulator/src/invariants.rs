//! What must hold after every event: of each commit, each answer, each command that leaves, each movement of money.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_bookings::simulation::HoldRow;
use eventicket_contracts::envelope::{Answer, Fenced, Half, Key, Reply};
use eventicket_contracts::{EventId, SagaId};
use eventicket_mock_gateway::simulation::{Intent, RefundStatus, Status as IntentStatus};
use eventicket_orchestrator::runtime::row::Row;
use eventicket_payments::State;
use eventicket_saga::breaker::{Breaker, Mode, State as BreakerState};
use eventicket_saga::{Phase, Saga, Send};

use crate::breakers::FAILURES;
use crate::processes::ProcessId;
use crate::rounds::Rounds;
use crate::store::{Name, Tables, Write};
use crate::world::World;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What must hold.
    pub rule: &'static str,
    /// What did not.
    pub found: String,
}

/// What is known of the past.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// When the hearts of replicas that are gone beat last.
    gone: BTreeMap<Name, i64>,
    /// The final answers that were given.
    answers: BTreeMap<(Key, Half, u32), Answer>,
    /// The highest attempts that were committed.
    dispatched: BTreeMap<(Key, Half), u32>,
    rounds: Rounds,
    /// Calls that failed, by service.
    failures: BTreeMap<String, u32>,
}

impl Knowledge {
    /// A replica is gone.
    pub fn gone(&mut self, name: Name, last_beat: i64) {
        self.gone.insert(name, last_beat);
    }

    /// How long the heart of a replica that is gone has not beaten.
    pub fn silence(&self, name: Name, now: i64) -> i64 {
        self.gone.get(&name).map_or(0, |beat| now - beat)
    }
}

impl World {
    /// An invariant is broken; the first one counts.
    pub fn violate(&self, rule: &'static str, found: String) {
        self.tell(None, || format!("BROKEN: {rule}: {found}"));
        self.violation.borrow_mut().get_or_insert(Violation { rule, found });
    }

    /// Makes the changes of a commit, each looked at before.
    pub fn apply(&self, by: ProcessId, writes: Vec<Write>) {
        self.commits.set(self.commits.get() + 1);
        let mut touched = BTreeSet::new();
        let mut wakes = false;
        for write in writes {
            {
                let store = self.store.borrow();
                match &write {
                    Write::NewSaga(row, _) => self.new_saga(&store.tables, row),
                    Write::Saga(row, _) => self.changed_saga(&store.tables, row),
                    Write::Hold(key, row) => {
                        touched.insert(row.event());
                        self.changed_hold(&store.tables, by, key, row);
                    }
                    Write::Event(row) => drop(touched.insert(row.id())),
                    Write::Left(left) => drop(touched.insert(left.event)),
                    Write::Charge(row, _) => self.changed_charge(&store.tables, row),
                    Write::Count(..) => wakes = true,
                    _ => {}
                }
            }
            self.store.borrow_mut().tables.make(write);
        }
        if wakes {
            self.wake_who_holds();
        }
        for event in touched {
            self.check_capacity(event);
        }
    }

    fn new_saga(&self, tables: &Tables, row: &Row) {
        let request = row.owner.zip(row.idempotency.as_ref()).map(|(owner, request)| (owner, request.key.clone()));
        if request.is_some_and(|request| tables.requests.contains_key(&request)) || tables.sagas.contains_key(&row.id) {
            self.violate("one saga a request", format!("{} is another one", crate::story::saga(row.id)));
        }
        self.entries(row, None);
    }

    fn changed_saga(&self, tables: &Tables, row: &Row) {
        let Some(old) = tables.sagas.get(&row.id) else { return };
        let first = row.news.first().map_or(old.row.saga.seq + 1, |entry| entry.seq);
        if row.version != old.row.version || first != old.row.saga.seq + 1 {
            let id = crate::story::saga(row.id);
            return self.violate("no row is written over a newer version", format!("{id} of version {}", row.version));
        }
        self.entries(row, Some(&**old));
    }

    /// What the new entries of a saga's history tell.
    fn entries(&self, row: &Row, old: Option<&crate::store::Journaled>) {
        let Some(definition) = self.catalogue.registry.get(&row.saga.definition, row.saga.version).cloned() else {
            return;
        };
        let mut knowledge = self.knowledge.borrow_mut();
        let (id, saga) = (row.id, &row.saga);
        for (at, step) in saga.steps.iter().enumerate() {
            let key = Key { saga: id, step: definition.steps[at].name.clone(), round: step.round };
            for (half, attempts) in
                [(Half::Do, step.attempts), (Half::Undo, step.undo_attempts), (Half::Fence, step.fences)]
            {
                if attempts > 0 {
                    let most = knowledge.dispatched.entry((key.clone(), half)).or_default();
                    *most = attempts.max(*most);
                }
            }
        }
        for (service, failed) in row.news.iter().filter_map(|entry| crate::rounds::call(&definition, entry)) {
            *knowledge.failures.entry(service).or_default() += u32::from(failed);
        }
        let broken = knowledge.rounds.look(row, old, &definition);
        drop(knowledge);
        for entry in &row.news {
            self.tell(None, || format!("      {}: {}", crate::story::saga(id), crate::rounds::shown(entry)));
        }
        if let Some((rule, found)) = broken {
            self.violate(rule, format!("{}: {found}", crate::story::saga(id)));
        }
    }

    fn changed_hold(&self, tables: &Tables, by: ProcessId, key: &Key, row: &HoldRow) {
        let id = || crate::story::key(key);
        if let Some(old) = tables.holds.get(key)
            && !old.is_held()
            && old.word() != row.word()
        {
            self.violate("a hold leaves `held` once", format!("{}: {} becomes {}", id(), old.word(), row.word()));
        }
        let undone = self.knowledge.borrow().answers.contains_key(&(key.clone(), Half::Undo, 0));
        if undone && (row.is_held() || row.is_confirmed()) {
            self.violate("what is undone stays so", format!("{} is {} after its undo", id(), row.word()));
        }
        let forward = tables.sagas.get(&key.saga).is_some_and(|j| j.row.saga.phase == Phase::Forward);
        // Its clock may have jumped back since it looked.
        let latest = self.now() + self.processes.borrow()[by.0].furthest;
        let early = row.grace_until().is_some_and(|until| latest < until.millis());
        if row.is_expired() && forward && early {
            self.violate("no hold is freed before its grace", format!("{} is, and its saga goes on", id()));
        }
        self.tell(Some(by), || format!("      hold {} is {}", id(), row.word()));
    }

    fn changed_charge(&self, tables: &Tables, row: &eventicket_payments::simulation::Row) {
        let Some(old) = tables.charges.get(row.key()).map(|charge| &charge.row) else { return };
        let id = || crate::story::key(row.key());
        if row.version() != old.version() + 1 {
            let found = format!("{}: {} over {}", id(), row.version(), old.version());
            return self.violate("no charge is written over a newer version", found);
        }
        if old.intent().is_some() && old.intent() != row.intent() {
            self.violate("the first committed intent counts", format!("{} has another one", id()));
        }
        let refused = matches!(row.state(), State::Rejected | State::Void);
        let status = row.intent().and_then(|id| self.gateway.borrow().intents().find(|i| i.id == id).map(|i| i.status));
        if refused && status.is_some_and(|status| status != IntentStatus::Canceled) {
            self.violate("what is refused cannot be paid any more", format!("{}: its intent is {status:?}", id()));
        }
        if old.outcome().is_some() && old.outcome() != row.outcome() {
            self.violate("an outcome is final", format!("{}: {:?} becomes {:?}", id(), old.outcome(), row.outcome()));
        }
    }

    /// Nothing is sold twice, and nobody has more than the limit.
    fn check_capacity(&self, event: EventId) {
        let store = self.store.borrow();
        let tables = &store.tables;
        let Some(row) = tables.events.get(&event) else { return };
        let holds = || tables.holds.values().filter(|hold| hold.event() == event);
        for (kind, quantity, available) in row.types() {
            let lines = holds().flat_map(|hold| hold.takes()).filter(|line| line.ticket_type_id == kind);
            let used: u32 = lines.map(|line| line.quantity).sum();
            if used > quantity || used + available != quantity {
                let found = format!("{used} of {quantity} are held or sold, {available} are said to be left");
                self.violate("capacity is never exceeded", found);
            }
        }
        let mut seats = BTreeSet::new();
        if !holds().flat_map(|hold| hold.takes()).flat_map(|line| &line.seats).all(|seat| seats.insert(seat)) {
            self.violate("no seat is sold twice", format!("{seats:?}"));
        }
        let Some(most) = row.max_per_customer() else { return };
        let mut by_customer = BTreeMap::new();
        for hold in holds() {
            let tickets: u32 = hold.takes().iter().map(|line| line.quantity).sum();
            *by_customer.entry(hold.customer()).or_insert(0) += tickets;
        }
        if by_customer.iter().any(|(customer, tickets)| customer.is_some() && *tickets > most) {
            self.violate("no customer has more than the limit", format!("{by_customer:?} of {most}"));
        }
    }

    /// An answer is given.
    pub fn answered(&self, by: ProcessId, reply: &Reply) {
        let Reply { key, half, answer, .. } = reply;
        let number = match answer {
            Answer::Done(output) if *half == Half::Fence => output.read().map_or(0, |found: Fenced| found.id),
            Answer::Done(_) => 0,
            // An undo that was refused may be tried again.
            Answer::Rejected(_) if *half == Half::Do => 0,
            _ => return,
        };
        let mut knowledge = self.knowledge.borrow_mut();
        let place = (key.clone(), *half, number);
        let first = knowledge.answers.entry(place).or_insert_with(|| answer.clone());
        if *first != *answer {
            let found = format!("{} was answered {first:?}, and is {answer:?}", crate::story::half(key, *half));
            drop(knowledge);
            self.tell(Some(by), || "answers otherwise than before".to_owned());
            self.violate("no answer is given twice in two ways", found);
        }
    }

    /// A command leaves.
    pub fn sent(&self, by: ProcessId, key: &Key, send: &Send) {
        let half = match send.half {
            eventicket_saga::Half::Do => Half::Do,
            eventicket_saga::Half::Undo => Half::Undo,
            eventicket_saga::Half::Fence => Half::Fence,
        };
        let number = send.question.map_or(send.attempt, |question| question.id);
        let most = self.knowledge.borrow().dispatched.get(&(key.clone(), half)).copied().unwrap_or(0);
        if number > most {
            let found = format!("attempt {number} of {}, by process {}", crate::story::half(key, half), by.0);
            self.violate("nothing leaves before its commit", found);
        }
    }

    /// Something is dead-lettered, which nothing here should be.
    pub fn dead_lettered(&self, by: ProcessId, key: &Key, reason: &str) {
        let found = format!("{} by process {}: {reason}", crate::story::key(key), by.0);
        self.violate("nothing is dead-lettered", found);
    }

    /// A late command finds its round recorded.
    pub fn expired_although_recorded(&self, key: &Key) {
        let found = format!("{} is answered `expired`", crate::story::key(key));
        self.violate("a recorded answer comes before the deadline", found);
    }

    /// An intent is confirmed at the gateway.
    pub fn confirmed(&self, by: ProcessId, intent: &str) {
        let committed = self.mind.aside(|| {
            let store = self.store.borrow();
            store.tables.charges.values().any(|charge| charge.row.intent() == Some(intent))
        });
        if !committed {
            let found = format!("{intent} is, at process {}", by.0);
            self.violate("no intent is confirmed before its id is committed", found);
        }
    }

    /// A breaker was moved by what was counted.
    pub fn breaker_moved(&self, service: &str, from: Breaker, to: Breaker) {
        let opens =
            to.mode == Mode::Auto && from.state == BreakerState::Closed && matches!(to.state, BreakerState::Open(_));
        let failures = self.knowledge.borrow().failures.get(service).copied().unwrap_or(0);
        if opens && failures < FAILURES {
            self.violate("a breaker opens after failures only", format!("{service} had {failures}"));
        }
    }

    /// Money moved, or may have.
    pub fn money_moved(&self) {
        self.mind.aside(|| self.check_money());
    }

    fn check_money(&self) {
        let (store, gateway) = (self.store.borrow(), self.gateway.borrow());
        let failed: BTreeSet<&str> = gateway
            .refunds()
            .filter(|refund| refund.status == RefundStatus::Failed)
            .map(|refund| refund.intent.as_str())
            .collect();
        let mut standing: BTreeMap<&str, u32> = BTreeMap::new();
        let mut rounds: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
        for intent in gateway.intents() {
            let part = |name: &str| intent.metadata.get(name).map_or("", String::as_str);
            *rounds.entry((part("saga"), part("step"), part("round"))).or_default() += 1;
            if stands(intent) && !failed.contains(intent.id.as_str()) {
                *standing.entry(part("saga")).or_default() += 1;
            }
        }
        let twice = standing.into_iter().find(|(_, charges)| *charges > 1);
        if let Some((saga, charges)) = twice {
            self.violate("at most one charge stands a saga", format!("{charges} of {saga}"));
        }
        for ((saga, step, round), made) in rounds.into_iter().filter(|(_, made)| *made > 1) {
            let key = format!("{saga}:{step}:{round}").parse::<Key>();
            let row = key.ok().and_then(|key| store.tables.charges.get(&key).map(|charge| charge.row.create_keys()));
            if made > 1 + row.unwrap_or(0) {
                self.violate("a repeated call has the same key", format!("{made} intents of {saga}:{step}:{round}"));
            }
        }
    }
}

/// Whether an intent has taken money that was not given back.
pub(crate) fn stands(intent: &Intent) -> bool {
    intent.status == IntentStatus::Succeeded && intent.refunded < intent.amount
}

/// A saga's word for its end.
pub(crate) fn end(saga: &Saga) -> &'static str {
    saga.state().name()
}

/// The id of a saga as the gateway's metadata have it.
pub(crate) fn named(intent: &Intent) -> Option<SagaId> {
    intent.metadata.get("saga")?.parse().ok()
}
