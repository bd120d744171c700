//! Replies that nobody awaits.

use eventicket_contracts::envelope::{Answer, Half, Key, Reply};
use eventicket_contracts::{SagaId, subjects};
use futures::StreamExt;
use serde_json::json;

use crate::bench::{Bench, GUARD};

fn reply(saga: SagaId, step: &str, answer: Answer) -> (String, Reply) {
    let key = Key { saga, step: step.into(), round: 1 };
    (subjects::reply(0), Reply { key, half: Half::Do, attempt: 1, answer, trace: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_a_contradiction_and_a_stray_are_dead_lettered_and_a_repeat_is_not() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    let saga = bench.started(json!({})).await;
    bench.completed(&[saga]).await;
    let stream = bench.ctx.nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
    let consumer = stream.create_consumer(async_nats::jetstream::consumer::pull::Config::default()).await.unwrap();
    let mut dead = consumer.messages().await.unwrap();

    let stray = SagaId::fresh();
    bench
        .ctx
        .nats
        .send_replies(vec![
            reply(saga, "OPEN", Answer::done("open")),
            reply(saga, "OPEN", Answer::rejected("no", "no")),
            reply(stray, "OPEN", Answer::done("open")),
        ])
        .await;
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let message = tokio::time::timeout(GUARD, dead.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(message.subject.as_str(), subjects::dead_letter("orchestrator", "reply"));
        reasons.push(message.headers.as_ref().unwrap().get(subjects::HEADER_REASON).unwrap().to_string());
    }
    reasons.sort();
    assert_eq!(reasons, ["OPEN was answered otherwise before", "no such saga"]);
    bench.ctx.shutdown.cancel();
    replica.stop().await;
}
