use std::sync::Mutex;

use super::platform::Platform;
use super::*;
use eventicket_contracts::sagas::{
    Act, ActAnswer, Action, BREAKERS, BULK, BreakerMode, BreakerView, BulkAct, BulkAnswer, BulkItem, DEAD_LETTER,
    DEAD_LETTERS, DISCARD, DeadLetter, DeadLetterDetail, DeadLetterPage, GET_SAGA, HandleDeadLetter, ListDeadLetters,
    ListSagas, REPLAY, Replayed, SET_BREAKER, SagaDetail, SagaSummary, SetBreaker,
};
use eventicket_contracts::{Json, SagaId, codes, subjects};
use eventicket_nats::QueryError;

const ORCHESTRATOR: &str = "orchestrator";

impl Platform {
    /// An operator's id and token.
    fn operator(&self) -> (CustomerId, String) {
        let id = CustomerId::fresh();
        (id, self.gateway.token(id, &[Role::Operator]))
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.gateway.send(post(path, token, &[], &body)).await
    }
}

fn saga(id: SagaId) -> SagaDetail {
    let summary = SagaSummary {
        id,
        kind: "booking".into(),
        definition_version: 1,
        state: "running".into(),
        step: Some("PAY".into()),
        status: "pending".into(),
        attention: vec![],
        event_id: None,
        user_id: None,
        started_at: Timestamp(0),
        updated_at: Timestamp(0),
        trace_id: None,
        version: 4,
    };
    SagaDetail { summary, input: json!({}), steps: vec![] }
}

#[tokio::test]
async fn each_action_reaches_the_saga_with_its_actor_and_reason() {
    let platform = Platform::start().await;
    let (id, token) = platform.operator();
    let acts: Arc<Mutex<Vec<Act>>> = Arc::default();
    let kept = acts.clone();
    platform
        .answer(subjects::ACT, move |act: Act| {
            kept.lock().unwrap().push(act);
            Some(ActAnswer::Done { view: Json::NULL, repeated: false })
        })
        .await;
    platform.query(ORCHESTRATOR, GET_SAGA, |id: SagaId| Ok(Some(saga(id)))).await;
    let about = SagaId::fresh();
    let output = json!({"intent": "by hand"});
    for (name, more, action) in [
        ("retry", json!({}), Action::Retry),
        ("skip", json!({"output": output}), Action::Skip { output: output.clone().into() }),
        ("skip", json!({}), Action::Skip { output: Json::NULL }),
        ("cancel", json!({}), Action::Cancel),
        ("compensate", json!({}), Action::Compensate),
        ("pause", json!({}), Action::Pause),
        ("resume", json!({}), Action::Resume),
        ("resolve", json!({"step": "PAY"}), Action::Resolve { step: "PAY".into() }),
        ("abandon", json!({}), Action::Abandon { force: false }),
        ("abandon", json!({"force": true}), Action::Abandon { force: true }),
    ] {
        let mut body = more;
        body["reason"] = json!("because");
        let answer = platform.post(&format!("/v1/sagas/{about}/{name}"), &token, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["version"]), (200, &json!(4)), "{name}: {}", answer.text);
        let act = acts.lock().unwrap().pop().unwrap();
        assert_eq!((act.saga, act.owner, &act.action), (about, None, &action));
        assert_eq!((act.actor, act.reason), (format!("operator:{id}"), "because".to_owned()));
        assert!(act.trace.is_some());
    }
}

#[tokio::test]
async fn an_action_that_is_not_possible_is_told_with_the_engines_code() {
    let platform = Platform::start().await;
    let (_, token) = platform.operator();
    let conflict = |code: &str| ActAnswer::Conflict { code: code.into(), message: "not now".into() };
    let answers = Mutex::new(vec![
        ActAnswer::NotFound,
        conflict("not_awaited"),
        conflict("conflict"),
        conflict("ended"),
        conflict("unwinding"),
        conflict("past_no_return"),
    ]);
    platform.answer(subjects::ACT, move |_: Act| answers.lock().unwrap().pop()).await;
    let path = format!("/v1/sagas/{}/cancel", SagaId::fresh());
    for code in ["past_no_return", "unwinding", "ended", "conflict", "not_awaited"] {
        let problem = platform.post(&path, &token, json!({"reason": "x"})).await.is_problem(409, code);
        assert_eq!(problem["detail"], "not now");
    }
    platform.post(&path, &token, json!({"reason": "x"})).await.is_problem(404, "not_found");
    platform.post(&path, &token, json!({"reason": "x"})).await.is_problem(503, "outcome-unknown");
}

#[tokio::test]
async fn an_action_needs_a_reason_and_nothing_that_belongs_to_another() {
    let gateway = Gateway::alone(|_| ());
    let token = gateway.token(CustomerId::fresh(), &[Role::Operator]);
    let id = SagaId::fresh();
    for (path, body, field) in [
        (format!("/v1/sagas/{id}/retry"), json!({}), "reason"),
        (format!("/v1/sagas/{id}/retry"), json!({"reason": " "}), "reason"),
        (format!("/v1/sagas/{id}/retry"), json!({"reason": "x".repeat(501)}), "reason"),
        (format!("/v1/sagas/{id}/retry"), json!({"reason": "x", "force": true}), "force"),
        (format!("/v1/sagas/{id}/resolve"), json!({"reason": "x"}), "step"),
        (format!("/v1/sagas/{id}/abandon"), json!({"reason": "x", "force": "yes"}), "force"),
        ("/v1/breakers/payments/open".into(), json!({}), "reason"),
        ("/v1/dead-letters/7/replay".into(), json!({"reason": ""}), "reason"),
        ("/v1/dead-letters/7/discard".into(), json!({"reason": ""}), "reason"),
        ("/v1/sagas/bulk".into(), json!({"action": "retry", "reason": "x"}), "filter"),
        ("/v1/sagas/bulk".into(), json!({"filter": {}, "action": "retry", "reason": "x"}), "filter"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "retry"}), "reason"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "dance", "reason": "x"}), "action"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "resolve", "reason": "x"}), "step"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "retry", "step": "PAY", "reason": "x"}), "step"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "retry", "output": 1, "reason": "x"}), "output"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "skip", "force": true, "reason": "x"}), "force"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "retry", "limit": 501, "reason": "x"}), "limit"),
        ("/v1/sagas/bulk".into(), json!({"all": true, "action": "retry", "cursor": "x", "reason": "x"}), "cursor"),
        (
            "/v1/sagas/bulk".into(),
            json!({"filter": {"state": "odd"}, "action": "retry", "reason": "x"}),
            "filter.state",
        ),
    ] {
        let problem = gateway.send(post(&path, &token, &[], &body)).await.is_problem(422, "validation");
        assert_eq!(problem["errors"][0]["field"], field, "{path} {body}: {problem}");
    }
    let dance = json!({"all": true, "action": "dance", "reason": "x"});
    let problem = gateway.send(post("/v1/sagas/bulk", &token, &[], &dance)).await.is_problem(422, "validation");
    let allowed = "one of retry, skip, cancel, compensate, pause, resume, resolve, abandon";
    assert_eq!(problem["errors"][0]["detail"], allowed);
    let longest = json!({"reason": "\u{fc}".repeat(500)});
    let known = gateway.send(post(&format!("/v1/sagas/{id}/retry"), &token, &[], &longest)).await;
    known.is_problem(503, "unavailable");
}

#[tokio::test]
async fn bulk_actions_page_by_their_cursor() {
    let platform = Platform::start().await;
    let (id, token) = platform.operator();
    let (first, second) = (SagaId::fresh(), SagaId::fresh());
    platform
        .query(ORCHESTRATOR, BULK, move |act: BulkAct| {
            assert_eq!((act.actor, act.reason.as_str()), (format!("operator:{id}"), "because"));
            assert_eq!((act.action, act.dry_run), (Action::Abandon { force: true }, act.filter.before.is_none()));
            let ListSagas { state, kind, q, limit, before, .. } = act.filter;
            assert_eq!(
                (state.as_deref(), kind.as_deref(), q.as_deref()),
                (Some("attention"), Some("booking"), Some("01"))
            );
            assert_eq!((limit, before), (1, before.is_some().then_some(second)));
            let item = |id, outcome: &str| BulkItem {
                id,
                kind: "booking".into(),
                state: "compensating".into(),
                outcome: outcome.into(),
            };
            Ok(match before {
                None => BulkAnswer { items: vec![item(second, "done")], next: Some(second) },
                Some(_) => BulkAnswer { items: vec![item(first, "past_no_return")], next: None },
            })
        })
        .await;
    let body = |dry_run: bool, cursor: Option<&str>| {
        json!({
            "filter": {"state": "attention", "kind": "booking", "q": "01"},
            "action": "abandon", "force": true, "reason": "because", "dry_run": dry_run, "limit": 1, "cursor": cursor,
        })
    };
    let page = platform.post("/v1/sagas/bulk", &token, body(true, None)).await.json();
    assert_eq!((&page["items"][0]["id"], &page["items"][0]["outcome"]), (&json!(second), &json!("done")));
    let last = platform.post("/v1/sagas/bulk", &token, body(false, page["next"].as_str())).await.json();
    assert_eq!((&last["items"][0]["outcome"], &last["next"]), (&json!("past_no_return"), &Value::Null));
}

#[tokio::test]
async fn breakers_are_shown_and_set() {
    let platform = Platform::start().await;
    let (id, token) = platform.operator();
    let view = |service: &str, mode: &str| BreakerView {
        service: service.into(),
        state: "open".into(),
        mode: mode.into(),
        until: None,
        held: 3,
        changed_at: None,
        actor: None,
        reason: None,
    };
    platform.query(ORCHESTRATOR, BREAKERS, move |(): ()| Ok(vec![view("payments", "auto")])).await;
    platform
        .query(ORCHESTRATOR, SET_BREAKER, move |set: SetBreaker| {
            assert_eq!((set.actor, set.reason.as_str()), (format!("operator:{id}"), "because"));
            let mode = match set.mode {
                BreakerMode::Open => "open",
                BreakerMode::Closed => "closed",
                BreakerMode::Auto => "auto",
            };
            Ok((set.service == "payments").then(|| view("payments", mode)))
        })
        .await;
    let listed = platform.gateway.send(get("/v1/breakers", &token)).await.json();
    assert_eq!((&listed["items"][0]["held"], &listed["next"]), (&json!(3), &Value::Null));
    for (name, mode) in [("open", "open"), ("close", "closed"), ("auto", "auto")] {
        let path = format!("/v1/breakers/payments/{name}");
        let answer = platform.post(&path, &token, json!({"reason": "because"})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["mode"]), (200, &json!(mode)), "{}", answer.text);
    }
    let nobody = platform.post("/v1/breakers/nobody/open", &token, json!({"reason": "because"})).await;
    nobody.is_problem(404, "not_found");
}

fn letter(id: u64) -> DeadLetter {
    DeadLetter {
        id,
        service: "bookings".into(),
        action: "confirm".into(),
        reason: "panicked".into(),
        subject: "cmd.bookings.confirm.0".into(),
        sagas: vec![SagaId::fresh()],
        first_delivery: Timestamp(0),
        last_delivery: Timestamp(0),
        deliveries: 1,
    }
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_discarded() {
    let platform = Platform::start().await;
    let (id, token) = platform.operator();
    let number = 1_799_746_200_000_001;
    platform
        .query(ORCHESTRATOR, DEAD_LETTERS, move |q: ListDeadLetters| {
            assert_eq!((q.service.as_deref(), q.action.as_deref(), q.limit), (Some("bookings"), Some("confirm"), 1));
            assert!(q.after.is_none_or(|after| after == number));
            let next = q.after.is_none().then_some(number);
            Ok(DeadLetterPage { items: vec![letter(q.after.map_or(number, |n| n + 1))], next })
        })
        .await;
    platform
        .query(ORCHESTRATOR, DEAD_LETTER, move |n: u64| {
            Ok((n == number).then(|| DeadLetterDetail { letter: letter(n), payload: "{}".into() }))
        })
        .await;
    platform
        .query(ORCHESTRATOR, REPLAY, move |q: HandleDeadLetter| {
            assert_eq!((q.actor, q.reason.as_str()), (format!("operator:{id}"), "because"));
            match q.id {
                7 => Ok(None),
                8 => Err(QueryError::new(codes::UNAVAILABLE, "it could not be sent again")),
                id => Ok(Some(Replayed { id, subject: "cmd.bookings.confirm.0".into(), sagas: vec![] })),
            }
        })
        .await;
    platform
        .query(ORCHESTRATOR, DISCARD, move |q: HandleDeadLetter| {
            assert_eq!((q.actor, q.reason.as_str()), (format!("operator:{id}"), "because"));
            match q.id {
                7 => Ok(None),
                8 => Err(QueryError::new(codes::SAGA_UNFINISHED, "its saga has not ended")),
                id => Ok(Some(letter(id))),
            }
        })
        .await;

    let list = "/v1/dead-letters?service=bookings&action=confirm&limit=1";
    let first = platform.gateway.send(get(list, &token)).await.json();
    let cursor = first["next"].as_str().unwrap();
    let second = platform.gateway.send(get(&format!("{list}&cursor={cursor}"), &token)).await.json();
    assert_eq!((&second["items"][0]["id"], &second["next"]), (&json!(number + 1), &Value::Null));

    let show = async |id: &str| platform.gateway.send(get(&format!("/v1/dead-letters/{id}"), &token)).await;
    assert_eq!(show(&number.to_string()).await.json()["payload"], "{}");
    for unknown in ["7", "-1", "x", "99999999999999999999"] {
        show(unknown).await.is_problem(404, "not_found");
    }

    let why = json!({"reason": "because"});
    for (action, status, code, why_not) in [
        ("replay", 503, "unavailable", "it could not be sent again"),
        ("discard", 409, "saga_unfinished", "its saga has not ended"),
    ] {
        let act = async |id: u64| platform.post(&format!("/v1/dead-letters/{id}/{action}"), &token, why.clone()).await;
        let done = act(number).await;
        assert_eq!((done.status.as_u16(), &done.json()["subject"]), (200, &json!("cmd.bookings.confirm.0")));
        act(7).await.is_problem(404, "not_found");
        assert_eq!(act(8).await.is_problem(status, code)["detail"], why_not);
    }
}
