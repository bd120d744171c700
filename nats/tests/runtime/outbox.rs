//! The outbox: a row is a message, and it leaves until the stream holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::HeaderMap;
use eventicket_contracts::envelope::{DomainEvent, Envelope};
use eventicket_contracts::{Clock, Timestamp, subjects};
use eventicket_nats::outbox::{NewEvent, Relay, write};
use eventicket_nats::{Nats, Outgoing, StreamLimits, ensure_streams};
use futures::StreamExt as _;
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor as _, PgPool, Row as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const GUARD: Duration = Duration::from_secs(30);
const START: Timestamp = Timestamp(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// As the outbox's own documentation has it.
const TABLE: &str = "CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text NOT NULL,
                                          created_at bigint NOT NULL, sequence bigint);
                     CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL";

/// As the services' sessions plan, see the kit's `database.rs`.
const PLANS: [(&str, &str); 5] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// A row of the table, or a message of the stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    id: String,
    subject: String,
    payload: String,
    sequence: Option<u64>,
}

struct Outbox {
    nats: Nats,
    pool: PgPool,
    clock: Clock,
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

impl Outbox {
    async fn new() -> Self {
        let world = eventicket_testkit::world().await;
        let nats = Nats::connect(&world.nats_url, "test").await.unwrap();
        ensure_streams(&nats, &StreamLimits::small()).await.unwrap();
        let url = world.database("outbox", &Migrator::with_migrations(vec![])).await;
        let options = url.parse::<PgConnectOptions>().unwrap().options(PLANS);
        let pool = PgPool::connect_with(options).await.unwrap();
        pool.execute(TABLE).await.unwrap();
        Self { nats, pool, clock: Clock::manual(START) }
    }

    fn relay(&self) -> Running {
        let shutdown = CancellationToken::new();
        let relay = Relay::new(self.pool.clone(), self.nats.clone(), self.clock.clone());
        let task = tokio::spawn(relay.limits(StreamLimits::small()).run(shutdown.clone()));
        Running { shutdown, task }
    }

    /// A batch with these events, by the last word of their subject.
    async fn batch(&self, events: &[&'static str]) {
        let mut tx = self.pool.begin().await.unwrap();
        write(&mut tx, events.iter().map(|what| event(what)).collect(), self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn rows(&self) -> BTreeSet<Message> {
        let rows = sqlx::query("SELECT * FROM outbox").fetch_all(&self.pool).await.unwrap();
        let row = |r: &sqlx::postgres::PgRow| Message {
            id: r.get::<Uuid, _>("id").to_string(),
            subject: r.get("subject"),
            payload: r.get("payload"),
            sequence: r.get::<Option<i64>, _>("sequence").map(i64::cast_unsigned),
        };
        rows.iter().map(row).collect()
    }

    /// What the stream holds; nothing where there is none.
    async fn stored(&self) -> BTreeSet<Message> {
        let mut stored = BTreeSet::new();
        let Ok(stream) = self.nats.jetstream().get_stream(subjects::EVENTS_STREAM).await else { return stored };
        let state = stream.cached_info().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            stored.insert(Message {
                id: message.headers.get("Nats-Msg-Id").unwrap().to_string(),
                subject: message.subject.to_string(),
                payload: String::from_utf8(message.payload.to_vec()).unwrap(),
                sequence: Some(sequence),
            });
        }
        stored
    }

    /// Waits until the stream holds each row once, where the row says; nobody tells when that is.
    async fn settled(&self) -> BTreeSet<Message> {
        let waited = async {
            loop {
                let rows = self.rows().await;
                if rows == self.stored().await {
                    return rows;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(GUARD, waited).await {
            Ok(rows) => rows,
            Err(_) => panic!("{:#?} is not {:#?}", self.rows().await, self.stored().await),
        }
    }

    /// Publishes these messages by hand, as they are.
    async fn publish(&self, messages: impl Iterator<Item = Message>) {
        let outgoing = |m: Message| Outgoing {
            subject: m.subject,
            id: m.id,
            headers: HeaderMap::new(),
            payload: m.payload.into(),
        };
        for stored in self.nats.publish_all(messages.map(outgoing).collect()).await {
            stored.unwrap();
        }
    }

    async fn delete_stream(&self) {
        self.nats.jetstream().delete_stream(subjects::EVENTS_STREAM).await.unwrap();
    }
}

fn event(what: &'static str) -> NewEvent {
    let (id, aggregate) = (Uuid::now_v7(), Uuid::now_v7());
    let event = DomainEvent { id, aggregate, version: 1, at: START, trace: None, data: json!(what) };
    NewEvent { aggregate: "test", what, event }
}

fn sequences(messages: &BTreeSet<Message>) -> Vec<u64> {
    messages.iter().map(|m| m.sequence.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_a_batch_writes_one_row_a_subject_and_the_row_is_the_message() {
    let outbox = Outbox::new().await;
    let mut lost = outbox.pool.begin().await.unwrap();
    write(&mut lost, vec![event("lost")], START).await.unwrap();
    lost.rollback().await.unwrap();
    outbox.batch(&["made", "sold", "made", "made"]).await;
    let written = outbox.rows().await;
    let _relay = outbox.relay();

    let sent = outbox.settled().await;
    let unsent = |m: &Message| Message { sequence: None, ..m.clone() };
    assert_eq!(sent.iter().map(unsent).collect::<BTreeSet<_>>(), written, "nothing but the sequence is new");
    let of = |what: &str| {
        let row = sent.iter().find(|m| m.subject == subjects::event("test", what)).unwrap();
        let envelope: Envelope<DomainEvent> = serde_json::from_str(&row.payload).unwrap();
        envelope.items.iter().map(|e| e.data.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((sent.len(), of("made"), of("sold")), (2, vec!["made".to_owned(); 3], vec!["sold".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_a_row_that_two_publish_or_whose_mark_was_lost_is_stored_once() {
    let outbox = Outbox::new().await;
    for _ in 0..40 {
        outbox.batch(&["made", "sold"]).await;
    }
    let first = outbox.rows().await;
    outbox.publish(first.iter().take(10).cloned()).await; // by one that died before it could say so
    let _relays = [outbox.relay(), outbox.relay()];
    assert_eq!(outbox.settled().await.len(), 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_what_a_deleted_stream_had_is_sent_again() {
    let outbox = Outbox::new().await;
    let _relay = outbox.relay();
    outbox.batch(&["made", "sold"]).await;
    let before = outbox.settled().await;
    outbox.delete_stream().await;
    let after = outbox.settled().await;
    assert_eq!(after.len(), 2);
    let highest = sequences(&before).into_iter().max();
    assert!(sequences(&after).into_iter().min() > highest, "no sequence is used twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_rows_beyond_a_stream_that_went_back_are_sent_again() {
    let outbox = Outbox::new().await;
    let stream = outbox.nats.jetstream().get_stream(subjects::EVENTS_STREAM).await.unwrap();
    let config = stream.cached_info().config.clone();
    let _relay = outbox.relay();
    for _ in 0..5 {
        outbox.batch(&["made"]).await;
    }
    let before = outbox.settled().await;
    // An older store comes back, with the first two.
    let kept = before.iter().take(2).cloned();
    outbox.delete_stream().await;
    outbox.nats.jetstream().create_stream(config).await.unwrap();
    outbox.publish(kept).await;

    let after = outbox.settled().await;
    assert_eq!(after, before, "the same rows at the same places");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_a_start_finds_what_was_lost_meanwhile() {
    let outbox = Outbox::new().await;
    let relay = outbox.relay();
    outbox.batch(&["made", "sold"]).await;
    outbox.settled().await;
    relay.stop().await;
    outbox.delete_stream().await;
    ensure_streams(&outbox.nats, &StreamLimits::small()).await.unwrap();
    let _relay = outbox.relay();
    assert_eq!(outbox.settled().await.len(), 2);
}

/// What the planner knows is of a table whose rows have all left.
#[tokio::test(flavor = "multi_thread")]
async fn rule_15_much_that_was_lost_leaves_again_soon() {
    const ROWS: i64 = 50_000;
    let outbox = Outbox::new().await;
    let insert = "INSERT INTO outbox
                  SELECT gen_random_uuid(), 'evt.test.made', '{}', $1, n FROM generate_series(1, $2::bigint) AS n";
    sqlx::query(insert).bind(START.millis()).bind(ROWS).execute(&outbox.pool).await.unwrap();
    outbox.pool.execute("ANALYZE outbox").await.unwrap();
    let _relay = outbox.relay(); // the stream, whose sequences begin far beyond these, has none of them
    let waiting = "SELECT count(*) FROM outbox WHERE sequence IS NULL OR sequence <= $1";
    let sent = async {
        while sqlx::query_scalar::<_, i64>(waiting).bind(ROWS).fetch_one(&outbox.pool).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await; // nobody tells
        }
    };
    tokio::time::timeout(GUARD, sent).await.expect("they leave");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_sent_rows_are_deleted_by_age_and_unsent_ones_never() {
    let outbox = Outbox::new().await;
    let stuck = "INSERT INTO outbox (id, subject, payload, created_at) VALUES ($1, 'nobody.takes.it', '{}', 1)";
    let relay = outbox.relay();
    outbox.batch(&["old"]).await;
    outbox.settled().await;
    relay.stop().await;
    outbox.clock.advance(DAY);
    outbox.batch(&["young"]).await;
    sqlx::query(stuck).bind(Uuid::now_v7()).execute(&outbox.pool).await.unwrap();
    outbox.clock.advance(Duration::from_millis(1));

    let _relay = outbox.relay();
    let subjects = async || outbox.rows().await.into_iter().map(|m| m.subject).collect::<BTreeSet<_>>();
    let old = subjects::event("test", "old");
    let deleted = async {
        while subjects().await.contains(&old) {
            tokio::time::sleep(Duration::from_millis(20)).await; // nobody tells
        }
    };
    tokio::time::timeout(GUARD, deleted).await.expect("what is old is deleted");
    assert_eq!(subjects().await, BTreeSet::from(["evt.test.young".to_owned(), "nobody.takes.it".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_08_a_rows_id_is_used_again_for_the_same_bytes_only() {
    let outbox = Outbox::new().await;
    let mut published = outbox.nats.subscriber().subscribe(subjects::EVENTS).await.unwrap();
    outbox.nats.flush().await;
    let _relay = outbox.relay();
    outbox.batch(&["made", "sold"]).await;
    outbox.settled().await;
    outbox.delete_stream().await;
    outbox.batch(&["made", "sold"]).await;
    outbox.settled().await;

    let mut bytes: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut times = 0;
    while times < 6 || bytes.len() < 4 {
        let message = tokio::time::timeout(GUARD, published.next()).await.expect("published").unwrap();
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
        bytes.entry(id).or_default().insert(message.payload.to_vec());
        times += 1;
    }
    assert!(bytes.values().all(|payloads| payloads.len() == 1), "{bytes:?}");
}
