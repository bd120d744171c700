//! Fences of `settle`.

use eventicket_contracts::envelope::{Answer, Fence, Fenced, Half, Key, Recorded};
use eventicket_contracts::events::{EventState, PUBLISH};
use eventicket_contracts::subjects::FENCE;
use eventicket_contracts::{CustomerId, Json, SagaId, codes};
use serde_json::{Value, json};

use crate::platform::{Orchestrator, Platform, concert, envelope, key, settlement};

fn fence(key: &Key, id: u32, undo: bool) -> (Key, Half, Value) {
    let fence = Fence { id, action: "settle".into(), undo, body: Json::NULL };
    (key.clone(), Half::Fence, json!(fence))
}

async fn fenced(platform: &Platform, key: &Key, id: u32, undo: bool) -> Fenced {
    let answers = platform.command(FENCE, &[fence(key, id, undo)]).await;
    let [Answer::Done(output)] = &answers[..] else { panic!("{answers:?}") };
    output.read().unwrap()
}

#[tokio::test]
async fn rule_13_a_fence_closes_a_settlement_that_has_not_come() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    platform.turn(PUBLISH, &event).await.unwrap();
    let (saga, offer) = orchestrator.opened().await;
    let (closed, open) = (key(saga, "SETTLE"), key(saga, "REVERT"));

    let first = fenced(&platform, &closed, 1, false).await;
    assert_eq!(first, Fenced { id: 1, effect: Recorded::Closed, undo: None });
    assert_eq!(fenced(&platform, &closed, 1, false).await, first, "a repeat gets the same answer");
    let later = Fenced { id: 2, effect: Recorded::Closed, undo: Some(Recorded::Closed) };
    assert_eq!(fenced(&platform, &closed, 2, true).await, later);

    let late = platform.settle(&[(closed, settlement(&offer, None))]).await;
    assert!(matches!(&late[..], [Answer::Rejected(no)] if no.code == codes::CLOSED), "{late:?}");
    assert_eq!(platform.shown(&event).await.state, EventState::Publishing);
    // Another round of the saga is not closed.
    let answers = platform.settle(&[(open, settlement(&offer, Some(codes::OPERATOR)))]).await;
    assert_eq!(answers, [Answer::Done(Json::NULL)]);
    assert_eq!(platform.shown(&event).await.state, EventState::Draft);
    platform.stop().await;
}

#[tokio::test]
async fn rule_13_a_fence_settles_what_its_round_would_have_settled() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    for (step, refusal, state) in
        [("SETTLE", None, EventState::Published), ("REVERT", Some(codes::BELOW_SOLD), EventState::Draft)]
    {
        let event = platform.create(CustomerId::fresh(), concert(24)).await;
        platform.turn(PUBLISH, &event).await.unwrap();
        let (saga, offer) = orchestrator.opened().await;
        let (key, body) = (key(saga, step), json!(settlement(&offer, refusal)));
        let fence = Fence { id: 1, action: "settle".into(), undo: true, body: body.into() };
        let fence = (key.clone(), Half::Fence, json!(fence));
        let told = Fenced { id: 1, effect: Recorded::Done(Json::NULL), undo: Some(Recorded::Closed) };
        let answers = platform.command(FENCE, &[fence.clone(), fence]).await;
        assert_eq!(answers, [Answer::done(&told), Answer::done(&told)]);
        let after = platform.shown(&event).await;
        let refused = after.change.as_ref().and_then(|change| change.refused.as_deref());
        assert_eq!((after.state, after.version, refused), (state, 3, refusal));
        // The round itself comes too late, and changes nothing more.
        let late = platform.settle(&[(key, settlement(&offer, refusal))]).await;
        assert_eq!((late, platform.shown(&event).await), (vec![Answer::Done(Json::NULL)], after));
    }
    platform.stop().await;
}

#[tokio::test]
async fn rule_13_a_fence_tells_what_is_recorded() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    platform.turn(PUBLISH, &event).await.unwrap();
    let (saga, offer) = orchestrator.opened().await;
    let (done, stale) = (key(saga, "SETTLE"), key(SagaId::fresh(), "SETTLE"));
    let settles = [(done.clone(), settlement(&offer, None)), (stale.clone(), settlement(&offer, None))];
    let Answer::Rejected(rejection) = platform.settle(&settles).await.remove(1) else { panic!("a change ends once") };

    let both = platform.command(FENCE, &[fence(&done, 1, false), fence(&stale, 1, false)]).await;
    let told = |effect| Answer::done(Fenced { id: 1, effect, undo: None });
    assert_eq!(both, [told(Recorded::Done(Json::NULL)), told(Recorded::Rejected(rejection))]);
    let repeats = platform.settle(&settles).await;
    assert_eq!(repeats[0], Answer::Done(Json::NULL));
    assert!(matches!(&repeats[1], Answer::Rejected(no) if no.code == codes::STALE_VERSION));
    assert_eq!(platform.shown(&event).await.state, EventState::Published);
    platform.stop().await;
}

#[tokio::test]
async fn rule_13_a_fence_and_its_settlement_in_any_order_agree() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    for number in 0..8 {
        let event = platform.create(CustomerId::fresh(), concert(24)).await;
        platform.turn(PUBLISH, &event).await.unwrap();
        let (saga, offer) = orchestrator.opened().await;
        let key = key(saga, "SETTLE");
        let settle = (key.clone(), Half::Do, json!(settlement(&offer, None)));
        // Both are on their way at once, in envelopes of their own.
        let mut both =
            vec![envelope("settle", std::slice::from_ref(&settle)), envelope(FENCE, &[fence(&key, 1, false)])];
        both.rotate_left(number % 2);
        platform.exchange(both, 2).await;
        let answers = platform.command("settle", &[settle]).await;
        let fenced = fenced(&platform, &key, 1, false).await;
        let state = platform.shown(&event).await.state;
        match &answers[..] {
            [Answer::Done(_)] => {
                assert_eq!((fenced.effect, state), (Recorded::Done(Json::NULL), EventState::Published));
            }
            [Answer::Rejected(no)] => {
                assert_eq!((no.code.as_str(), fenced.effect), (codes::CLOSED, Recorded::Closed));
                assert_eq!(state, EventState::Publishing);
            }
            other => panic!("{other:?}"),
        }
    }
    platform.stop().await;
}
