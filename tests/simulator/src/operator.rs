//! Operators: they act on sagas at any time, and end those that wait for a hand.

use std::collections::BTreeMap;
use std::rc::Rc;

use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{ActAnswer, Action};
use eventicket_saga::breaker::Mode;
use eventicket_saga::state::NEVER as NO_TIME;
use eventicket_saga::{Json, Phase, Saga, Status, Undo};

use crate::executor::{NEVER, On, Wait};
use crate::world::{Sim, World};

/// Between two actions on a saga that waits for a hand, ms.
const PAUSE: i64 = 30_000;
/// Actions on one saga after which nobody can end it.
const MOST: u32 = 40;

impl World {
    /// An operator acts on some saga.
    pub fn operator_acts(&self) {
        let live: Vec<SagaId> = {
            let store = self.store.borrow();
            store.tables.sagas.values().filter(|j| !j.row.saga.ended()).map(|j| j.row.id).collect()
        };
        let Some(saga) = live.get(self.choose(u32::try_from(live.len()).unwrap_or(0)) as usize).copied() else {
            return;
        };
        let step = ["PAY", "RESERVE"][self.choose(2) as usize].to_owned();
        let action = match self.choose(9) {
            0 => Action::Cancel,
            1 => Action::Skip { output: Json::NULL },
            2 => Action::Abandon { force: false },
            3 => Action::Pause,
            4 => Action::Retry,
            5 => Action::Resolve { step },
            6 => Action::Compensate,
            7 => Action::Abandon { force: true },
            _ => Action::Resume,
        };
        self.tell(None, || format!("an operator wants to {} {}", action.name(), crate::story::saga(saga)));
        let Some(sim) = self.me.upgrade() else { return };
        let knows = self.mind.hash(&(saga, &action));
        let work = async move {
            sim.act(saga, None, "operator", action, 3).await;
        };
        self.mind.knowing(knows, || self.tasks.spawn(None, "operator", work));
    }

    /// An operator sets a breaker.
    pub fn operator_sets_a_breaker(&self) {
        let service = ["payments", "bookings"][self.choose(2) as usize];
        let mode = [Mode::Open, Mode::Auto, Mode::Closed][self.choose(3) as usize];
        self.tell(None, || format!("an operator sets the breaker of {service} to {}", mode.name()));
        self.set_breaker(service, mode);
    }

    /// Whether a saga waits for a hand.
    fn waits_for_a_hand(saga: &Saga) -> bool {
        !saga.attention.is_empty() || (saga.paused && !saga.ended())
    }

    /// When an operator has something to do: once the world is calm.
    pub fn next_duty(&self) -> i64 {
        let store = self.store.borrow();
        let forced = store.tables.breakers.values().any(|stored| stored.breaker.mode == Mode::Open);
        let waits = forced || store.tables.sagas.values().any(|j| Self::waits_for_a_hand(&j.row.saga));
        if self.is_calm() && waits { 0 } else { NEVER }
    }
}

/// Ends what waits for a hand.
pub(crate) async fn duty(sim: Sim) {
    let mut acted: BTreeMap<SagaId, u32> = BTreeMap::new();
    loop {
        sim.pause(Wait::on(On::Duty)).await;
        for service in ["payments", "bookings", "notifications"] {
            let forced = sim.store.borrow().tables.breakers.get(service).is_some_and(|b| b.breaker.mode == Mode::Open);
            if forced {
                sim.set_breaker(service, Mode::Auto);
            }
        }
        let waiting: Vec<(SagaId, Saga)> = {
            let store = sim.store.borrow();
            let all = store.tables.sagas.values().filter(|j| World::waits_for_a_hand(&j.row.saga));
            all.map(|j| (j.row.id, j.row.saga.clone())).collect()
        };
        for (id, saga) in waiting {
            let tries = acted.entry(id).or_default();
            *tries += 1;
            if *tries > MOST {
                sim.violate("an operator can end every saga", format!("{} waits: {saga:?}", crate::story::saga(id)));
                return;
            }
            let action = next_action(&saga, *tries);
            sim.tell(None, || format!("the operator on duty wants to {} {}", action.name(), crate::story::saga(id)));
            let answer = sim.act(id, None, "duty", action.clone(), 3).await;
            if matches!(answer, Some(ActAnswer::Done { .. })) && action == Action::Compensate {
                *tries = 0;
            }
        }
        sim.sleep(PAUSE).await;
    }
}

/// What an operator tries; another thing where the first ones did not help.
fn next_action(saga: &Saga, tries: u32) -> Action {
    if saga.paused && !saga.ended() {
        return Action::Resume;
    }
    let Some(mark) = saga.attention.get(tries as usize % saga.attention.len().max(1)) else { return Action::Retry };
    let resolve = Action::Resolve { step: mark.step.clone() };
    let dead = saga.steps.iter().any(|step| step.status == Status::Pending(NO_TIME));
    let refused = saga.steps.iter().any(|step| step.undo == Undo::GaveUp);
    let fenced = saga.steps.iter().any(|step| step.fence.as_ref().is_some_and(|fence| fence.due == NO_TIME));
    let live = matches!(saga.phase, Phase::Forward | Phase::Unwinding | Phase::Abandoning);
    match tries % 4 {
        1 | 3 if dead && live => Action::Compensate,
        1 if (refused || fenced) && live => Action::Retry,
        0 if live && tries > 8 => Action::Retry,
        _ => resolve,
    }
}

/// Spawns the operator on duty.
pub(crate) fn start(sim: &Sim) {
    sim.tasks.spawn_waiting(None, "duty", duty(Rc::clone(sim)));
}
