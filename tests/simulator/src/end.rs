//! What must hold once nothing is left to do.

use std::collections::BTreeMap;

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{BOOKING, FAILED_REFUND};
use eventicket_payments::State;
use eventicket_saga::{Entry, Phase, Saga, Status, What};

use crate::invariants::{end, named, stands};
use crate::store::{Journaled, Tables};
use crate::world::World;

/// Where PAY and CONFIRM stand in the booking saga.
const PAY: usize = 2;
const CONFIRM: usize = 3;

impl World {
    /// Sagas that have not ended, for people.
    pub fn unfinished(&self) -> String {
        let store = self.store.borrow();
        let open = store.tables.sagas.values().filter(|j| !j.row.saga.ended());
        open.map(|j| format!("{} is {}", crate::story::saga(j.row.id), end(&j.row.saga))).collect::<Vec<_>>().join(", ")
    }

    /// Looks at a world in which nothing is left to do.
    pub fn check_the_end(&self) {
        let unfinished = self.unfinished();
        if !unfinished.is_empty() {
            return self.violate("every saga ends", unfinished);
        }
        let broken = {
            let store = self.store.borrow();
            let tables = &store.tables;
            let sagas = tables.sagas.values().filter(|j| j.row.saga.definition == BOOKING);
            let broken = sagas.filter_map(|j| booking(tables, j.row.id, &j.row.saga)).next();
            broken.or_else(|| self.money(tables)).or_else(|| self.leftovers(tables))
        };
        if let Some((rule, found)) = broken {
            self.violate(rule, found);
        }
    }

    /// Charged means tickets or a refund.
    fn money(&self, tables: &Tables) -> Option<(&'static str, String)> {
        let gateway = self.gateway.borrow();
        let mut standing: BTreeMap<SagaId, i64> = BTreeMap::new();
        for intent in gateway.intents().filter(|intent| stands(intent)) {
            let saga = named(intent)?;
            let rule = "charged means tickets or a refund";
            let Some(journaled) = tables.sagas.get(&saga) else {
                return Some((rule, format!("{} took money of a saga that is not there", intent.id)));
            };
            let row = tables.charges_of(saga).find(|(_, c)| c.row.intent() == Some(&intent.id)).map(|(_, c)| &c.row);
            let by_hand = row.is_some_and(|row| {
                let opened = row.failed_refund().and_then(|id| tables.sagas.get(&id));
                let refused = matches!(row.state(), State::RefundRefused | State::RefundFailed);
                refused && opened.map_or_else(|| given_back(journaled), |j| j.row.saga.definition == FAILED_REFUND)
            });
            let abandoned = journaled.row.saga.phase == Phase::Abandoned;
            let sold = journaled.row.saga.phase == Phase::Completed
                && journaled.row.saga.steps[PAY].status == Status::Done
                && row.is_some_and(|row| row.state() == State::Done);
            if !(by_hand || abandoned || sold) {
                let state = row.map(eventicket_payments::simulation::Row::state);
                let found = format!(
                    "{} of {} stands; its row is {state:?}, its saga {}",
                    intent.id,
                    crate::story::saga(saga),
                    end(&journaled.row.saga)
                );
                return Some((rule, found));
            }
            if !by_hand {
                *standing.entry(saga).or_default() += 1;
            }
        }
        let twice = standing.into_iter().find(|(_, charges)| *charges > 1);
        if let Some((saga, charges)) = twice {
            return Some(("at most one charge stands a saga", format!("{charges} of {}", crate::story::saga(saga))));
        }
        for j in
            tables.sagas.values().filter(|j| j.row.saga.definition == BOOKING && j.row.saga.phase == Phase::Completed)
        {
            let paid = j.row.saga.steps[PAY].status == Status::Done;
            let charged = tables.charges_of(j.row.id).any(|(_, charge)| charge.row.state() == State::Done);
            if paid != charged {
                let found = format!("{}: paid {paid}, charged {charged}", crate::story::saga(j.row.id));
                return Some(("what is paid is charged", found));
            }
        }
        None
    }

    /// Nothing is left behind.
    fn leftovers(&self, tables: &Tables) -> Option<(&'static str, String)> {
        let rule = "nothing is left behind";
        if let Some((key, _)) = tables.holds.iter().find(|(_, hold)| hold.is_held()) {
            return Some((rule, format!("the hold {}", crate::story::key(key))));
        }
        if let Some((key, charge)) = tables.charges.iter().find(|(_, charge)| charge.row.state().is_due()) {
            return Some((rule, format!("the charge {} is {:?}", crate::story::key(key), charge.row.state())));
        }
        if let Some(j) = tables.sagas.values().find(|j| !j.row.saga.attention.is_empty()) {
            return Some((rule, format!("{} is marked: {:?}", crate::story::saga(j.row.id), j.row.saga.attention)));
        }
        if !self.broker.borrow().is_empty() {
            return Some((rule, "messages that nobody takes".to_owned()));
        }
        None
    }
}

/// Whether an operator gave the money of a booking back by hand.
fn given_back(journaled: &Journaled) -> bool {
    let by_hand = |entry: &Entry| entry.what == What::Resolved && entry.step.as_deref() == Some("PAY");
    journaled.history.iter().any(by_hand)
}

/// A booking that has ended has tickets, or nothing.
fn booking(tables: &Tables, id: SagaId, saga: &Saga) -> Option<(&'static str, String)> {
    let sold = tables.holds_of(id).any(|(_, hold)| hold.is_confirmed());
    let confirmed = saga.steps.get(CONFIRM).is_some_and(|step| step.status == Status::Done);
    let name = crate::story::saga(id);
    if sold != confirmed || (saga.phase == Phase::Completed && !sold) {
        let found = format!("{name} is {}, and its hold is {}sold", end(saga), if sold { "" } else { "not " });
        return Some(("tickets are made by a confirmed booking, and by nothing else", found));
    }
    None
}
