//! What replicas of the orchestrator do for each other: the sagas and counts of those that are gone, breakers, a lost store.

use std::rc::Rc;

use eventicket_contracts::SagaId;
use eventicket_saga::Input as SagaInput;

use crate::executor::{NEVER, On, Wait};
use crate::flaws::Flaw;
use crate::orchestrator::Input;
use crate::processes::{LAPSE, ProcessId};
use crate::world::{Sim, World};

/// Between two beats, ms.
const BEAT: i64 = 500;

/// Looks after the other replicas: adopts the sagas of those that are gone, then buries them.
pub(crate) async fn watch(sim: Sim, me: ProcessId) {
    loop {
        sim.pause(Wait::on(On::Orphans(me))).await;
        let Some(inputs) = sim.replicas.borrow().get(&me).cloned() else { return };
        let dead = sim.dead_replicas(me);
        let orphans: Vec<SagaId> = {
            let store = sim.store.borrow();
            let of_dead = |j: &Rc<crate::store::Journaled>| !j.row.saga.ended() && dead.contains(&j.dispatcher);
            store.tables.sagas.iter().filter(|(_, j)| of_dead(j)).map(|(id, _)| *id).collect()
        };
        if orphans.is_empty() {
            for name in dead {
                if let Some(counts) = sim.store.borrow_mut().tables.counts.remove(&name) {
                    inputs.inherit(counts);
                }
            }
        }
        for saga in orphans {
            inputs.push(Input::Adopt(saga));
        }
        sim.sleep(BEAT).await;
    }
}

impl World {
    /// Breakers or counts have changed: who holds sagas looks at them.
    pub fn wake_who_holds(&self) {
        let replicas = self.replicas.borrow();
        replicas.values().filter(|inputs| inputs.holds.get()).for_each(|inputs| inputs.wake.set(true));
    }

    /// The replicas whose heart is silent, by their names in the journal.
    fn dead_replicas(&self, me: ProcessId) -> Vec<u64> {
        let store = self.store.borrow();
        let others = store.tables.counts.keys().copied().filter(|name| *name != self.name(me));
        others.filter(|name| self.silence(*name) >= LAPSE).collect()
    }

    /// When somebody's sagas are to be adopted.
    pub fn next_orphans(&self, me: ProcessId) -> i64 {
        if self.has_flaw(Flaw::NobodyAdopts) {
            return NEVER;
        }
        let store = self.store.borrow();
        let others = store.tables.counts.keys().filter(|name| **name != self.name(me));
        let silent = others.map(|name| self.silence(*name)).filter(|silence| *silence > 0);
        silent.map(|silence| self.now() + (LAPSE - silence).max(0)).min().unwrap_or(NEVER)
    }

    /// The broker's store was lost: each replica sends again what its sagas await, once it has seen that.
    pub fn store_was_lost(&self, pause: i64) {
        for me in self.living("orchestrator") {
            let Some(inputs) = self.replicas.borrow().get(&me).cloned() else { continue };
            let name = self.name(me);
            let Some(sim) = self.me.upgrade() else { return };
            self.tasks.spawn(Some(me), "resend", async move {
                sim.sleep(pause + 2 * BEAT).await;
                let own: Vec<SagaId> = {
                    let store = sim.store.borrow();
                    let own = store.tables.sagas.values().filter(|j| !j.row.saga.ended() && j.dispatcher == name);
                    own.map(|j| j.row.id).collect()
                };
                own.into_iter().for_each(|saga| inputs.push(Input::Within(saga, SagaInput::Resend)));
            });
        }
    }
}
