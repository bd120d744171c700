//! 6.7: the calls take their time, the envelopes do not.

use eventicket_contracts::Timestamp;
use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::subjects::{self, Service};
use eventicket_nats::ensure_streams;
use eventicket_payments::State;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use crate::messages::{item, refunded};
use crate::world::{Hold, PATIENCE, PRICE, World};

/// Calls to the gateway in flight, at most.
const CALLS: usize = 256;

/// Lets no transaction be committed that makes a charge, or leaves one, for which the condition holds.
async fn refuse_commits(pool: &PgPool, condition: &str) {
    let refuse = format!(
        "CREATE SEQUENCE refused MINVALUE 0;
         CREATE TABLE closed ();
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF to_regclass('closed') IS NOT NULL THEN
                 PERFORM nextval('refused');
                 RAISE EXCEPTION USING ERRCODE = '40001';
             END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON charges DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
    );
    pool.execute(AssertSqlSafe(refuse)).await.unwrap();
}

/// Waits until a few commits were refused.
async fn refused(pool: &PgPool) {
    let tries = async || sqlx::query_scalar::<_, i64>("SELECT last_value FROM refused").fetch_one(pool).await.unwrap();
    let reached = async { while tries().await < 2 {} };
    tokio::time::timeout(PATIENCE, reached).await.expect("commits are tried again");
}

async fn accept_commits(pool: &PgPool) {
    pool.execute("DROP TABLE closed").await.unwrap();
}

/// Commands that are not acknowledged.
async fn unacknowledged(w: &World) -> u64 {
    let stream = w.ctx.nats.jetstream().get_stream(Service::PAYMENTS.stream()).await.unwrap();
    stream.cached_info().state.messages
}

#[tokio::test]
async fn rule_07_an_envelope_is_acknowledged_once_its_charges_are_committed_not_when_their_calls_end() {
    let mut w = World::new().await;
    refuse_commits(&w.pool, "true").await;
    w.gate.hold(Hold::Before("/payment_intents"));
    let keys = [w.key(), w.key()];
    let body = w.charge("pm_card_visa");
    w.send("charge", keys.iter().map(|key| item(key, Half::Do, &body, None)).collect()).await;
    refused(&w.pool).await;
    assert_eq!((unacknowledged(&w).await, w.rows().await.len()), (1, 0));

    accept_commits(&w.pool).await;
    w.gate.holds().await;
    let acknowledged = async { while unacknowledged(&w).await > 0 {} };
    tokio::time::timeout(PATIENCE, acknowledged).await.expect("it is acknowledged while the calls are held");
    assert!(w.rows().await.iter().all(|row| row.state == State::Open && row.outcome.is_none()));
    assert!(w.reply_now().is_none(), "nothing is known yet");
    w.gate.release();
    for key in &keys {
        assert!(matches!(w.answer(key, Half::Do).await, Answer::Done(_)));
    }
    w.end().await;
}

#[tokio::test]
async fn rule_07_calls_are_made_side_by_side_within_a_bound() {
    // No call is given up: the gate would go on with it for a while, and count it.
    let mut w = World::waiting(false, 60).await;
    w.mock_settings(json!({ "latency_ms": 300 })).await;
    let keys: Vec<_> = (0..3 * CALLS).map(|_| w.key()).collect();
    let body = w.charge("pm_card_visa");
    for keys in keys.chunks(CALLS) {
        w.send("charge", keys.iter().map(|key| item(key, Half::Do, &body, None)).collect()).await;
    }
    for key in &keys {
        assert!(matches!(w.answer(key, Half::Do).await, Answer::Done(_)));
    }
    let most = w.gate.most_at_once();
    assert!(most > CALLS / 4 && most <= CALLS, "{most} at once");
    w.end().await;
}

#[tokio::test]
async fn rule_07_a_slow_charge_keeps_no_neighbour_waiting() {
    let mut w = World::new().await;
    w.mock_settings(json!({ "settle_ms": 3_600_000 })).await;
    let [slow, other] = [w.key(), w.key()];
    w.gate.hold(Hold::Before("/confirm"));
    w.send_do(&slow, &w.charge("pm_card_visa")).await;
    w.gate.holds().await;
    w.gate.open(); // the one that is held stays so
    assert!(matches!(w.charged(&other, "pm_card_visa").await, Answer::Done(_)));
    w.gate.release();
    assert!(matches!(w.answer(&slow, Half::Do).await, Answer::Done(_)));
    w.end().await;
}

#[tokio::test]
async fn rule_07_a_reply_leaves_when_its_outcome_is_committed() {
    let mut w = World::new().await;
    refuse_commits(&w.pool, "NEW.outcome = 'done' AND NEW.state = 'done'").await;
    let key = w.key();
    w.send_do(&key, &w.charge("pm_card_visa")).await;
    refused(&w.pool).await;
    assert!(w.reply_now().is_none(), "it is not recorded yet");
    accept_commits(&w.pool).await;
    assert!(matches!(w.answer(&key, Half::Do).await, Answer::Done(_)));
    assert_eq!(w.state(&key).await, State::Done);
    w.end().await;
}

#[tokio::test]
async fn rule_07_a_lost_reply_is_told_again_to_who_asks_also_past_its_deadline() {
    let mut w = World::new().await;
    let (key, jetstream) = (w.key(), w.ctx.nats.jetstream().clone());
    let lose = async || jetstream.delete_stream(subjects::REPLIES_STREAM).await.map(|_| ()).unwrap();
    let stored = async |w: &World| {
        ensure_streams(&w.ctx.nats, &w.ctx.limits).await.unwrap();
        jetstream.get_stream(subjects::REPLIES_STREAM).await.unwrap().cached_info().state.messages
    };
    // Nobody stores what the service says once.
    lose().await;
    let done = w.charged(&key, "pm_card_visa").await;
    assert!(matches!(done, Answer::Done(_)) && stored(&w).await == 0);
    let late = item(&key, Half::Do, &w.charge("pm_card_visa"), Some(Timestamp(1)));
    w.send("charge", vec![late]).await;
    assert_eq!(w.answer(&key, Half::Do).await, done);

    lose().await;
    assert_eq!(w.undone(&key).await, refunded(Some(PRICE)));
    assert_eq!(stored(&w).await, 0);
    assert_eq!(w.undone(&key).await, refunded(Some(PRICE)));
    assert_eq!(w.ledger().refunds.len(), 1);
    w.end().await;
}

#[tokio::test]
async fn rule_13_a_refund_is_called_for_only_once_its_row_is_committed() {
    let mut w = World::new().await;
    let key = w.key();
    assert!(matches!(w.charged(&key, "pm_card_visa").await, Answer::Done(_)));
    refuse_commits(&w.pool, "NEW.state = 'refunding'").await;
    w.send_undo(&key).await;
    refused(&w.pool).await;
    assert!(w.ledger().refunds.is_empty(), "nobody knows of it yet");
    accept_commits(&w.pool).await;
    assert_eq!(w.answer(&key, Half::Undo).await, refunded(Some(PRICE)));
    assert_eq!(w.ledger().refunds.len(), 1);
    w.end().await;
}
