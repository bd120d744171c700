//! Envelopes and their message ids.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use eventicket_contracts::envelope::{Envelope, Item};
use serde_json::json;

use crate::bench::{Bench, DESK, GUARD};

/// All commands that wait for the desk, once there are so many.
async fn waiting(bench: &Bench, number: u64) -> Vec<StreamMessage> {
    let waited = async {
        loop {
            let stream = bench.ctx.nats.jetstream().get_stream(DESK.stream()).await.unwrap();
            let state = stream.cached_info().state.clone();
            if state.messages < number {
                tokio::time::sleep(Duration::from_millis(20)).await; // nobody tells of them
                continue;
            }
            let mut messages = Vec::new();
            for sequence in state.first_sequence..=state.last_sequence {
                messages.extend(stream.get_raw_message(sequence).await.ok());
            }
            return messages;
        }
    };
    tokio::time::timeout(GUARD, waited).await.expect("they are stored")
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_08_what_is_sent_again_within_the_duplicate_window_is_stored_again() {
    let bench = Bench::new().await;
    let (desk, doomed) = (bench.desk(), bench.replica(&[1]).await);
    bench.completed(&[bench.started(json!({})).await]).await;
    desk.abort(); // its stream stays
    let _ = desk.await;
    let saga = bench.started(json!({})).await;
    waiting(&bench, 1).await;
    doomed.kill().await;
    let heir = bench.replica(&[1]).await;

    let twice = waiting(&bench, 2).await;
    let ids: BTreeSet<_> = twice.iter().map(|m| m.headers.get("Nats-Msg-Id").unwrap().to_string()).collect();
    assert_eq!(ids.len(), 2, "the stream would take the same one for a repetition");
    let item = |message: &StreamMessage| {
        let mut envelope: Envelope<Item> = serde_json::from_slice(&message.payload).unwrap();
        let Item { key, attempt, .. } = envelope.items.remove(0);
        (key.saga, key.step, attempt)
    };
    assert!(twice.iter().all(|message| item(message) == (saga, "OPEN".into(), 1)), "the same item, no attempt spent");
    let _desk = bench.desk();
    bench.completed(&[saga]).await;
    assert_eq!(bench.desk.effects.lock().unwrap().len(), 4, "OPEN and SEAL of both");
    bench.end(vec![heir]).await;
}
