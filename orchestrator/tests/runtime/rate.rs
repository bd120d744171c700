//! How fast a replica sends again what it took over.

use std::collections::BTreeSet;
use std::time::Duration;

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::{Envelope, Item};
use eventicket_nats::Nats;
use eventicket_orchestrator::runtime::admission::Bound;
use eventicket_orchestrator::runtime::journal::{self, Shown, Write};
use eventicket_orchestrator::runtime::row::Row;
use eventicket_saga::{Input, Moment, Saga};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::bench::{Bench, DESK, visit};
use crate::wire::Wire;

/// Publishing stages beside each other, and commands of one.
const UNDER_WAY: usize = 4 * 512;
/// An acknowledgement that does not come is waited for for two seconds; nothing is looked at after this.
const WATCHED: Duration = Duration::from_millis(1_200);

/// Visits whose OPEN was sent by a replica that has died.
async fn left_behind(bench: &Bench, number: usize) -> Vec<SagaId> {
    let (dead, now, nobody) = (Uuid::now_v7(), bench.ctx.clock.now(), BTreeSet::new());
    let definition = visit(&[1]).definitions.remove(0);
    let moment = Moment { now: now.millis(), noise: 0, closed: &nobody };
    let row = |_| {
        let id = SagaId::fresh();
        let mut saga = Saga::new(id.0, &definition, json!({}).into(), now.millis());
        let news = eventicket_saga::apply(&definition, &mut saga, Input::Start, &moment).unwrap().history;
        let (owner, event, idempotency, trace) = (None, None, None, None);
        Row { id, saga, owner, event, idempotency, trace, version: 0, updated_at: now, news }
    };
    let rows: Vec<Row> = (0..number).map(row).collect();
    let shown = |row: &Row| Shown { state: row.saga.state().name(), step: None };
    let writes: Vec<Write<'_>> = rows.iter().map(|row| Write { row, shown: shown(row) }).collect();
    let mut tx = bench.pool.begin().await.unwrap();
    journal::write(&mut tx, dead, &writes).await.unwrap();
    tx.commit().await.unwrap();
    sqlx::query("INSERT INTO replicas VALUES ($1, 0)").bind(dead).execute(&bench.pool).await.unwrap();
    rows.iter().map(|row| row.id).collect()
}

/// Commands that wait for the desk.
async fn waiting(bench: &Bench) -> usize {
    let stream = bench.ctx.nats.jetstream().get_stream(DESK.stream()).await.unwrap();
    let state = stream.cached_info().state.clone();
    let mut waiting = 0;
    for sequence in state.first_sequence..=state.last_sequence {
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        waiting += serde_json::from_slice::<Envelope<Item>>(&message.payload).unwrap().items.len();
    }
    waiting
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_what_is_sent_again_waits_for_acknowledgements_which_bound_its_rate() {
    let bench = Bench::new().await;
    let url: async_nats::ServerAddr = bench.ctx.settings.nats_url.parse().unwrap();
    let wire = Wire::new((url.host(), url.port()), |_| None).await;
    let (user, password) = (url.username().unwrap(), url.password().unwrap());
    let nats = Nats::connect(&format!("nats://{user}:{password}@{}", wire.address), "wired").await.unwrap();
    let desk = bench.desk();
    let replica = bench.replica_over(bench.pool.clone(), nats, &[1], Bound::default()).await;
    bench.completed(&[bench.started(json!({})).await]).await;
    desk.abort(); // its stream stays
    let _ = desk.await;

    wire.hold(true);
    let sagas = left_behind(&bench, 3 * UNDER_WAY).await;
    let mut began: Option<Instant> = None;
    while began.is_none_or(|began| began.elapsed() < WATCHED) {
        let looked = Instant::now();
        let sent = waiting(&bench).await;
        assert!(sent <= UNDER_WAY, "{sent} are under way");
        began = began.or_else(|| (sent > 0).then_some(looked));
    }
    wire.hold(false);
    let _desk = bench.desk();
    bench.completed(&sagas).await;
    assert_eq!(bench.desk.effects.lock().unwrap().len(), 2 * (sagas.len() + 1), "OPEN and SEAL of each");
    bench.end(vec![replica]).await;
}
