//! The payments service: its batches, its recorder, and what runs beside them, around its own decisions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use eventicket_contracts::envelope::Key;
use eventicket_contracts::sagas::{FAILED_REFUND, StartAnswer, StartSaga};
use eventicket_contracts::{Json, SagaId, Timestamp};
use eventicket_nats::{Delivered, Fault, Handled};
use eventicket_payments::simulation::{self, Call, Looked, Row};

use crate::driver::Drive;
use crate::executor::{NEVER, On, Wait};
use crate::flaws::Flaw;
use crate::network::{Answer, Stream};
use crate::orchestrator::Input;
use crate::processes::{LAPSE, ProcessId};
use crate::store::{Lock, Tx, Watch, Write};
use crate::world::{Sim, World};

const SERVICE: &str = "payments";
/// Between two beats, two tries of a transaction, and until a start of a saga is answered, ms.
const BEAT: i64 = 500;
const RETRY: i64 = 100;
const START_TIMEOUT: i64 = 5_000;
/// Looks at one refund.
const LOOKS: u32 = 10;
/// Until a look that brought no answer is made again, ms.
const LEASE: i64 = 30_000;

/// What a replica keeps in memory.
#[derive(Debug, Default)]
pub(crate) struct Driven {
    pub rows: RefCell<BTreeMap<Key, Rc<Drive>>>,
    /// Those whose place newer ones took, which may still run.
    pub replaced: RefCell<Vec<Rc<Drive>>>,
}

/// Starts a replica.
pub(crate) fn start(sim: &Sim, me: ProcessId) {
    sim.store.borrow_mut().tables.payers.insert(sim.name(me));
    sim.driven.borrow_mut().insert(me, Rc::default());
    crate::worker::start(sim, me, Stream::Payments);
    sim.tasks.spawn_waiting(Some(me), "take over", take_over(Rc::clone(sim), me));
    sim.tasks.spawn_waiting(Some(me), "starter", open_sagas(Rc::clone(sim), me));
    sim.tasks.spawn_waiting(Some(me), "refund watch", look_at_refunds(Rc::clone(sim), me));
}

/// Opens a transaction with the locks of its sagas.
async fn begin(sim: &Sim, me: ProcessId, sagas: &BTreeSet<SagaId>) -> Result<Tx, Fault> {
    let mut tx = Tx::begin(sim, me);
    tx.statement().await?;
    // Its next beat makes it known again.
    if !sim.store.borrow_mut().tables.payers.insert(sim.name(me)) {
        tx.lock_sagas(SERVICE, sagas).await?;
        return Ok(tx);
    }
    Err(Fault::Transient("this replica was taken for dead".to_owned()))
}

/// Handles a batch in one transaction.
pub(crate) async fn handle(sim: &Sim, me: ProcessId, items: &[Delivered]) -> Result<Vec<Handled>, Fault> {
    let sagas = items.iter().map(|command| command.item.key.saga).collect();
    let mut tx = begin(sim, me, &sagas).await?;
    tx.statement().await?;
    let found: HashMap<Key, (Row, bool)> = {
        let store = sim.store.borrow();
        let keys = items.iter().map(|command| &command.item.key);
        let rows = keys.filter_map(|key| Some((key.clone(), store.tables.charges.get(key)?)));
        rows.map(|(key, charge)| (key, (charge.row.clone(), charge.owner == sim.name(me)))).collect()
    };
    let decided = simulation::decide(found, items, sim.clock(me), &sim.shop.seal);
    tx.statement().await?;
    for row in &decided.inserted {
        if !insert(sim, &mut tx, me, row).await? {
            return Err(Fault::Transient("a row changed beside its lock".to_owned()));
        }
    }
    for row in &decided.updated {
        if !update(sim, &mut tx, me, row).await? {
            return Err(Fault::Transient("a row changed beside its lock".to_owned()));
        }
    }
    tx.commit().await?;
    for (row, asked) in decided.driven {
        sim.drive(me, row, asked);
    }
    Ok(decided.handled)
}

/// Makes a row; false where it is there already.
async fn insert(sim: &Sim, tx: &mut Tx, me: ProcessId, row: &Row) -> Result<bool, Fault> {
    tx.lock(Lock::Charge(row.key().clone())).await?;
    if sim.store.borrow().tables.charges.contains_key(row.key()) {
        return Ok(false);
    }
    tx.write(Write::Charge(Box::new(row.clone()), sim.name(me)));
    Ok(true)
}

/// Writes a row over the version before it; false where that is another one.
async fn update(sim: &Sim, tx: &mut Tx, me: ProcessId, row: &Row) -> Result<bool, Fault> {
    tx.lock(Lock::Charge(row.key().clone())).await?;
    let version = sim.store.borrow().tables.charges.get(row.key()).map(|charge| charge.row.version());
    if version != Some(row.version() - 1) && !sim.has_flaw(Flaw::ChargesWithoutVersion) {
        return Ok(false);
    }
    tx.write(Write::Charge(Box::new(row.clone()), sim.name(me)));
    Ok(true)
}

impl World {
    /// Commits what was seen at the gateway, however often it takes; `None` where somebody else has changed the row.
    pub async fn record(
        self: &Rc<Self>,
        me: ProcessId,
        before: &Row,
        after: Row,
        webhook: Option<String>,
    ) -> Option<Row> {
        let after = {
            // The same in each repetition, whatever else happens.
            let (high, low) = after.key().saga.0.as_u64_pair();
            let round = u64::from(after.key().round) << 32;
            after.to_write(SagaId(uuid::Uuid::from_u64_pair(high, low ^ round)))
        };
        let mut unsure = false;
        loop {
            match transaction(self, me, before, &after, webhook.clone(), unsure).await {
                Ok(true) => break,
                Ok(false) => return None,
                Err(_) => {
                    unsure = true;
                    self.sleep(RETRY).await;
                }
            }
        }
        self.tell(Some(me), || {
            format!("records {} {:?} to {:?}", crate::story::key(after.key()), before.state(), after.state())
        });
        let replies = after.replies(before);
        if !replies.is_empty() {
            let sim = Rc::clone(self);
            let send = async move {
                let _ = crate::worker::send(&sim, me, replies).await;
            };
            self.beside(me, "replies", send).await;
        }
        Some(after)
    }
}

/// `unsure`: a former try may have been committed; what then stands there already counts.
async fn transaction(
    sim: &Sim,
    me: ProcessId,
    before: &Row,
    after: &Row,
    webhook: Option<String>,
    unsure: bool,
) -> Result<bool, Fault> {
    let mut tx = begin(sim, me, &BTreeSet::from([after.key().saga])).await?;
    tx.statement().await?;
    let is_new = before.version() == 0;
    let written = if is_new { insert(sim, &mut tx, me, after).await? } else { update(sim, &mut tx, me, after).await? };
    if written {
        if let Some((id, input)) = after.opens(before) {
            tx.write(Write::Start(id, Box::new(input)));
        }
        if after.is_watched() {
            let due = sim.clock(me).plus(simulation::gap(0)).millis();
            tx.write(Write::Watch(after.key().clone(), Some(Watch { due, looks: 0 })));
        }
        webhook.map(Write::Webhook).into_iter().for_each(|write| tx.write(write));
    } else if unsure {
        let store = sim.store.borrow();
        let same = store.tables.charges.get(after.key()).is_some_and(|there| {
            let known = (there.row.version(), there.row.state(), there.row.intent());
            there.owner == sim.name(me) && known == (after.version(), after.state(), after.intent())
        });
        return Ok(same);
    }
    tx.commit().await?;
    Ok(written)
}

/// Takes over the charges of replicas that are gone.
async fn take_over(sim: Sim, me: ProcessId) {
    loop {
        sim.pause(Wait::on(On::TakeOver(me))).await;
        while take_over_some(&sim, me).await.is_err() {
            sim.sleep(BEAT).await;
            // The commit may have been made, and its answer lost.
            let rows: Vec<Row> = {
                let store = sim.store.borrow();
                let own = store.tables.charges.values().filter(|charge| charge.owner == sim.name(me));
                own.filter(|charge| charge.row.state().is_due()).map(|charge| charge.row.clone()).collect()
            };
            rows.into_iter().for_each(|row| sim.drive(me, row, false));
        }
    }
}

async fn take_over_some(sim: &Sim, me: ProcessId) -> Result<(), Fault> {
    let dead = sim.dead_payers(me);
    let keys: Vec<(Key, u64)> = {
        let store = sim.store.borrow();
        let of_dead = store.tables.charges.iter().filter(|(_, charge)| dead.contains(&charge.owner));
        let due = of_dead.filter(|(_, charge)| charge.row.state().is_due());
        due.map(|(key, charge)| (key.clone(), charge.owner)).collect()
    };
    let mut tx = Tx::begin(sim, me);
    tx.lock_sagas(SERVICE, &keys.iter().map(|(key, _)| key.saga).collect()).await?;
    tx.statement().await?;
    let mut taken = Vec::new();
    for (key, dead) in &keys {
        tx.lock(Lock::Charge(key.clone())).await?;
        let charge = sim.store.borrow().tables.charges.get(key).cloned();
        let Some(charge) = charge.filter(|charge| charge.owner == *dead && charge.row.state().is_due()) else {
            continue;
        };
        let row = charge.row.taken_over();
        tx.write(Write::Charge(Box::new(row.clone()), sim.name(me)));
        taken.push(row);
    }
    tx.commit().await?;
    sim.store
        .borrow_mut()
        .tables
        .payers
        .retain(|name| !dead.contains(name) || keys.iter().any(|(_, owner)| owner == name));
    sim.tell(Some(me), || format!("takes over {} charges", taken.len()));
    taken.into_iter().for_each(|row| sim.drive(me, row, false));
    Ok(())
}

impl World {
    /// The replicas of payments whose heart is silent.
    fn dead_payers(&self, me: ProcessId) -> Vec<u64> {
        let store = self.store.borrow();
        let others = store.tables.payers.iter().copied().filter(|name| *name != self.name(me));
        others.filter(|name| self.silence(*name) >= LAPSE).collect()
    }

    /// When somebody's charges are to be taken over.
    pub fn next_take_over(&self, me: ProcessId) -> i64 {
        if self.has_flaw(Flaw::NobodyTakesOver) {
            return NEVER;
        }
        let store = self.store.borrow();
        let others = store.tables.payers.iter().filter(|name| **name != self.name(me));
        let silent = others.map(|name| (self.silence(*name), *name)).filter(|(silence, _)| *silence > 0);
        silent.map(|(silence, _)| self.now() + (LAPSE - silence).max(0)).min().unwrap_or(NEVER)
    }
}

/// Opens the sagas that stand for refunds which failed.
async fn open_sagas(sim: Sim, me: ProcessId) {
    loop {
        sim.pause(Wait::on(On::Starts)).await;
        let due = {
            let store = sim.store.borrow();
            let open = store.tables.starts.iter().find(|(_, (_, done))| !done);
            open.map(|(id, (input, _))| (*id, input.clone()))
        };
        let Some((id, input)) = due else { continue };
        let start = StartSaga {
            id,
            definition: FAILED_REFUND.to_owned(),
            owner: Some(input.customer),
            idempotency: None,
            event: None,
            input: Json::of(&input).unwrap_or_default(),
            give_up_at: Timestamp(sim.clock(me).millis() + START_TIMEOUT),
            trace: None,
            blind: false,
        };
        let answer = match sim.request(|to| Input::Start(Box::new(start.clone()), to)) {
            Some(inbox) => {
                sim.pause(Wait { until: sim.now() + START_TIMEOUT, on: On::Flag(inbox.came.here.clone()) }).await;
                inbox.came.answer.borrow_mut().take()
            }
            None => None,
        };
        if let Some(Answer::Start(StartAnswer::Started { .. })) = answer {
            sim.step().await;
            if let Some(start) = sim.store.borrow_mut().tables.starts.get_mut(&id) {
                start.1 = true;
            }
        } else {
            sim.sleep(BEAT).await;
        }
    }
}

/// Looks again at refunds that have succeeded.
async fn look_at_refunds(sim: Sim, me: ProcessId) {
    loop {
        sim.pause(Wait::on(On::Watches(me))).await;
        let now = sim.clock(me).millis();
        let due = {
            let mut store = sim.store.borrow_mut();
            let due = store.tables.watches.iter_mut().find(|(_, watch)| watch.due <= now);
            due.map(|(key, watch)| {
                watch.due = now + LEASE;
                (key.clone(), watch.looks)
            })
        };
        if let Some((key, looks)) = due {
            look(&sim, me, key, looks).await;
        }
    }
}

async fn look(sim: &Sim, me: ProcessId, key: Key, before: u32) {
    let row = sim.store.borrow().tables.charges.get(&key).map(|charge| charge.row.clone());
    let Some(row) = row.filter(Row::is_watched) else {
        sim.apply(me, vec![Write::Watch(key, None)]);
        return;
    };
    let observed = match sim.shop.requests.request(&row, Call::READ_REFUND) {
        Ok(request) => sim.call(me, request, Call::READ_REFUND).await,
        Err(observed) => observed,
    };
    let next = match row.looked_at(&observed) {
        Looked::Failed(failed) => sim.record(me, &row, *failed, None).await.map(|_| None),
        Looked::Stands if before + 1 >= LOOKS => Some(None),
        Looked::Stands => {
            let due = sim.clock(me).plus(simulation::gap(before + 1)).millis();
            Some(Some(Watch { due, looks: before + 1 }))
        }
        Looked::Unknown => None,
    };
    if let Some(next) = next {
        sim.apply(me, vec![Write::Watch(key, next)]);
    }
}

impl World {
    /// When a refund is to be looked at. Where nothing at the gateway will change any more, and nothing has unseen, the
    /// remaining looks are left out.
    pub fn next_watch(&self, me: ProcessId) -> i64 {
        let store = self.store.borrow();
        if store.tables.watches.is_empty() {
            return NEVER;
        }
        let gateway = self.gateway.borrow();
        let failed = gateway.refunds().any(|r| r.status == eventicket_mock_gateway::simulation::RefundStatus::Failed);
        let news = gateway.next_due().is_some() || failed;
        let due = store.tables.watches.values().map(|watch| self.when(me, watch.due)).min();
        due.filter(|_| news).unwrap_or(NEVER)
    }
}
