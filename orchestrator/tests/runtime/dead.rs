//! Dead letters: listed, shown, sent again, discarded.

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::{Answer, Half, Key, Reply};
use eventicket_contracts::sagas::{
    DEAD_LETTER, DEAD_LETTERS, DISCARD, DeadLetter, DeadLetterDetail, DeadLetterPage, HandleDeadLetter,
    ListDeadLetters, REPLAY, Replayed,
};
use eventicket_contracts::{codes, subjects};
use eventicket_nats::{Outgoing, QueryFailure, command_headers};
use serde_json::json;

use crate::bench::{Bench, DESK, GUARD};

fn all() -> ListDeadLetters {
    ListDeadLetters { limit: 100, ..ListDeadLetters::default() }
}

/// Waits until there are so many, looking now and then, since nobody tells of them.
async fn letters(bench: &Bench, filter: ListDeadLetters, number: usize) -> Vec<DeadLetter> {
    let listed = async {
        loop {
            let page: DeadLetterPage = bench.query(DEAD_LETTERS, &filter).await;
            if page.items.len() >= number {
                return page.items;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GUARD, listed).await.expect("the letters come")
}

async fn replay(bench: &Bench, id: u64) -> Option<Replayed> {
    let query = HandleDeadLetter { id, actor: "operator:7".into(), reason: "mended".into() };
    bench.query(REPLAY, &query).await
}

async fn publish(bench: &Bench, subject: &str, payload: &'static str) {
    let headers = command_headers(&subjects::reply(0), None);
    let id = uuid::Uuid::new_v4().to_string();
    let message = Outgoing { subject: subject.to_owned(), id, headers, payload: payload.into() };
    bench.ctx.nats.publish_all(vec![message]).await.pop().unwrap().unwrap();
}

async fn stop(bench: Bench, replica: crate::bench::Replica) {
    bench.ctx.shutdown.cancel();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_dead_point_of_no_return_is_replayed_and_completes_its_saga() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.desk.panics.lock().unwrap().insert("seal");
    let saga = bench.started(json!({})).await;
    bench.until(&[saga], |row| !row.saga.attention.is_empty()).await;

    let letter = letters(&bench, all(), 1).await.remove(0);
    assert_eq!((letter.service.as_str(), letter.action.as_str()), ("desk", "seal"));
    assert_eq!((letter.subject.as_str(), &letter.sagas[..]), ("cmd.desk.seal.0", &[saga][..]));
    assert!(letter.reason.contains("the desk is on fire") && letter.deliveries == 1, "{letter:?}");
    let detail: Option<DeadLetterDetail> = bench.query(DEAD_LETTER, &letter.id).await;
    let detail = detail.expect("it is there");
    assert!(detail.letter == letter && detail.payload.contains(&format!("{saga}:SEAL:1")), "{detail:?}");

    bench.desk.panics.lock().unwrap().clear();
    let replayed = replay(&bench, letter.id).await.expect("it is there");
    assert_eq!(
        (replayed.id, replayed.subject.as_str(), &replayed.sagas[..]),
        (letter.id, "cmd.desk.seal.0", &[saga][..])
    );
    bench.completed(&[saga]).await;
    let history = bench.history(saga).await;
    let noted = history.iter().find(|entry| entry.what == "replayed").expect("it stands in the history");
    assert_eq!(
        (noted.step.as_deref(), noted.actor.as_deref(), noted.reason.as_deref()),
        (Some("SEAL"), Some("operator:7"), Some("mended"))
    );
    assert_eq!(replay(&bench, letter.id).await, None, "it is off the list");
    assert_eq!(bench.query::<Option<DeadLetterDetail>>(DEAD_LETTER, &letter.id).await, None);
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_without_an_envelope_and_one_of_an_unknown_saga_are_replayed_too() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.completed(&[bench.started(json!({})).await]).await; // the desk's stream is there
    publish(&bench, "cmd.desk.open.0", "not json").await;
    let stray = Key { saga: SagaId::fresh(), step: "OPEN".into(), round: 1 };
    let reply = Reply { key: stray.clone(), half: Half::Do, attempt: 1, answer: Answer::Expired, trace: None };
    bench.ctx.nats.send_replies(vec![(subjects::reply(0), reply)]).await;
    let first = letters(&bench, all(), 2).await;
    let of = |letters: &[DeadLetter], service: &str| letters.iter().find(|l| l.service == service).cloned().unwrap();
    let (junk, lost) = (of(&first, DESK.name()), of(&first, "orchestrator"));
    assert_eq!((junk.action.as_str(), junk.sagas.len()), ("open", 0));
    assert_eq!((lost.action.as_str(), &lost.sagas[..]), ("reply", &[stray.saga][..]));

    for letter in [&junk, &lost] {
        let replayed = replay(&bench, letter.id).await.expect("it is there");
        assert_eq!(replayed.subject, letter.subject);
    }
    // Nothing has changed for them, so they come back as new letters.
    let again = letters(&bench, ListDeadLetters { after: Some(junk.id.max(lost.id)), ..all() }, 2).await;
    assert_eq!((of(&again, DESK.name()).subject, of(&again, "orchestrator").subject), (junk.subject, lost.subject));
    assert_eq!(letters(&bench, all(), 2).await.len(), 2, "the first ones are off the list");
    stop(bench, replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_discarded_unless_a_saga_may_still_need_it() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.desk.panics.lock().unwrap().insert("seal");
    let saga = bench.started(json!({})).await;
    bench.until(&[saga], |row| !row.saga.attention.is_empty()).await;
    let needed = letters(&bench, all(), 1).await.remove(0);
    publish(&bench, "cmd.desk.open.0", "not json").await;
    let junk = letters(&bench, all(), 2).await.remove(1);
    let discard = async |letter: &DeadLetter| {
        let query = HandleDeadLetter { id: letter.id, actor: "operator:7".into(), reason: "garbage".into() };
        bench.ctx.nats.query::<Option<DeadLetter>>("orchestrator", DISCARD, &query).await
    };
    assert_eq!(discard(&junk).await.unwrap().as_ref(), Some(&junk));
    assert_eq!(discard(&junk).await.unwrap(), None, "it is off the list");
    match discard(&needed).await {
        Err(QueryFailure::Refused(error)) => assert_eq!(error.code, codes::SAGA_UNFINISHED),
        other => panic!("{other:?}"),
    }
    bench.desk.panics.lock().unwrap().clear();
    replay(&bench, needed.id).await.expect("it is still there");
    bench.completed(&[saga]).await;
    bench.end(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_come_in_pages_and_by_service_and_action() {
    let bench = Bench::new().await;
    let (_desk, replica) = (bench.desk(), bench.replica(&[1]).await);
    bench.completed(&[bench.started(json!({})).await]).await; // the desk's stream is there
    for action in ["open", "open", "close", "sing"] {
        publish(&bench, &subjects::command(DESK, action, 0), "not json").await;
    }
    let listed = letters(&bench, all(), 4).await;
    assert!(listed.is_sorted_by_key(|letter| letter.id) && listed.len() == 4);

    let first: DeadLetterPage = bench.query(DEAD_LETTERS, &ListDeadLetters { limit: 3, ..all() }).await;
    assert_eq!((&first.items[..], first.next), (&listed[..3], Some(listed[2].id)));
    let rest: DeadLetterPage = bench.query(DEAD_LETTERS, &ListDeadLetters { after: first.next, ..all() }).await;
    assert_eq!((&rest.items[..], rest.next), (&listed[3..], None));
    let named = |service: &str, action: Option<&str>| ListDeadLetters {
        service: Some(service.into()),
        action: action.map(str::to_owned),
        ..all()
    };
    for (filter, number) in [
        (named("desk", None), 4),
        (named("desk", Some("open")), 2),
        (ListDeadLetters { action: Some("sing".into()), ..all() }, 1),
        (named("vault", None), 0),
        (named("desk.>", None), 0),
    ] {
        let page: DeadLetterPage = bench.query(DEAD_LETTERS, &filter).await;
        assert_eq!(page.items.len(), number, "{filter:?}");
    }
    stop(bench, replica).await;
}
