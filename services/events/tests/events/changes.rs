//! Changes of what is sold: each is a saga, and bookings decides.

use eventicket_contracts::envelope::Answer;
use eventicket_contracts::events::{
    CANCEL, DELETE, EventPublished, EventState, OwnEvent, PUBLISH, STOP, SaleChange, Viewer,
};
use eventicket_contracts::sagas::StartAnswer;
use eventicket_contracts::{CustomerId, EventId, Json, SagaId, codes};

use crate::platform::{HOUR, Orchestrator, Platform, concert, dearer, key, organizer_of, refused, settlement, written};

const DONE: Answer = Answer::Done(Json::NULL);

fn under_way(version: i64) -> Option<SaleChange> {
    Some(SaleChange { version, refused: None })
}

fn was_refused(version: i64, code: &str) -> Option<SaleChange> {
    Some(SaleChange { version, refused: Some(code.into()) })
}

#[tokio::test]
async fn rule_14_publishing_opens_a_saga_until_it_is_answered_and_settle_ends_it() {
    let platform = Platform::start().await;
    let mut told = platform.told().await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    let publishing = platform.turn(PUBLISH, &event).await.unwrap();
    assert_eq!((publishing.state, publishing.version), (EventState::Publishing, 2));
    assert_eq!(publishing.change, under_way(2));
    assert_eq!(platform.turn(PUBLISH, &event).await.unwrap(), publishing, "a repeat changes nothing");
    assert_eq!(platform.get(event.id, Viewer::Public).await, None);

    // Nobody has answered so far; the first to answer is busy.
    let mut orchestrator = Orchestrator::of(&platform).await;
    let (first, _) = orchestrator.asked(|_| StartAnswer::Busy { retry_after_ms: 1 }).await;
    let (saga, offer) = orchestrator.opened().await;
    assert_eq!(first, saga, "a repeat is the same saga");
    assert_eq!((offer.event, offer.version, offer.ticket_types.len()), (event.id, 2, 2));
    assert!(offer.on_sale && !offer.cancelled);

    let settle = (key(saga, "SETTLE"), settlement(&offer, None));
    assert_eq!(platform.settle(&[settle.clone(), settle.clone()]).await, [DONE, DONE]);
    assert_eq!(platform.settle(&[settle]).await, [DONE]);
    let published = platform.get(event.id, Viewer::Public).await.unwrap();
    assert_eq!((published.state, published.version, &published.change), (EventState::Published, 3, &None));
    assert_eq!(platform.turn(PUBLISH, &event).await.unwrap(), published);

    let (subject, created) = told.next().await;
    assert_eq!((subject.as_str(), created.version), ("evt.event.created", 1));
    let (subject, done) = told.next().await;
    assert_eq!((subject.as_str(), done.version), ("evt.event.published", 3));
    let payload: EventPublished = serde_json::from_value(done.data).unwrap();
    assert_eq!((&payload.event, payload.saga), (&published, saga));
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&platform.pool).await.unwrap();
    assert_eq!(rows, 2, "each change is told once");

    let own = OwnEvent { id: event.id, viewer: organizer_of(&event), version: None };
    assert_eq!(refused(platform.ask::<Option<bool>>(DELETE, &own).await).code, codes::NOT_DRAFT);
    platform.stop().await;
}

#[tokio::test]
async fn a_publication_that_is_refused_leaves_the_draft() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let mut told = platform.told().await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    told.until("created").await;

    // The saga cannot be, or bookings refuses.
    platform.turn(PUBLISH, &event).await.unwrap();
    let refusal = StartAnswer::Refused { code: "unknown_definition".into(), message: "none of that name".into() };
    orchestrator.asked(|_| refusal).await;
    let (subject, updated) = told.next().await;
    assert_eq!((subject.as_str(), updated.version), ("evt.event.updated", 3));
    let draft = platform.shown(&event).await;
    assert_eq!((draft.state, draft.version), (EventState::Draft, 3));
    assert_eq!(draft.change, was_refused(2, "unknown_definition"));
    platform.turn(PUBLISH, &draft).await.unwrap();
    platform.decide(&mut orchestrator, Some(codes::BELOW_SOLD)).await;
    let draft = platform.shown(&event).await;
    assert_eq!((draft.state, &draft.change), (EventState::Draft, &was_refused(4, codes::BELOW_SOLD)));

    // A draft is edited at once. An old version conflicts, and what has begun cannot be published.
    let edited = platform.edit(&draft, dearer(&draft)).await.unwrap();
    assert_eq!((edited.version, &edited.change), (6, &None));
    assert_eq!(refused(platform.turn(PUBLISH, &draft).await).code, codes::VERSION_CONFLICT);
    platform.ctx.clock.advance(HOUR * 24);
    assert_eq!(refused(platform.turn(PUBLISH, &edited).await).code, codes::EVENT_OVER);
    platform.stop().await;
}

#[tokio::test]
async fn rule_14_an_edit_of_what_is_sold_waits_for_bookings() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let mut told = platform.told().await;
    let before = platform.on_sale(&mut orchestrator).await;
    told.until("published").await;
    let mut details = dearer(&before);
    details.title = "Midsummer Night".into();
    details.max_per_customer = Some(2);
    details.ticket_types[1].seats = (0..100).map(|seat| format!("B-{seat}")).collect();
    let pending = platform.edit(&before, details).await.unwrap();
    assert_eq!((pending.version, &pending.change), (4, &under_way(4)));
    assert_eq!((pending.state, &pending.details), (EventState::Published, &before.details), "shown as it was");
    assert_eq!(platform.shown(&before).await, pending);
    let seen = platform.get(before.id, Viewer::Public).await.unwrap();
    assert_eq!((seen.version, &seen.details, seen.change), (4, &before.details, None));

    // Until bookings has decided nothing else changes; what is asked for twice is the same.
    let own = OwnEvent { id: before.id, viewer: organizer_of(&before), version: None };
    assert_eq!(refused(platform.edit(&pending, written(&pending)).await).code, codes::CHANGE_PENDING);
    assert_eq!(refused(platform.edit(&before, written(&pending)).await).code, codes::VERSION_CONFLICT);
    for name in [STOP, CANCEL] {
        assert_eq!(refused(platform.turn(name, &pending).await).code, codes::CHANGE_PENDING, "{name}");
    }
    assert_eq!(platform.turn(PUBLISH, &before).await.unwrap(), pending);
    assert_eq!(refused(platform.ask::<Option<bool>>(DELETE, &own).await).code, codes::NOT_DRAFT);

    let offer = platform.decide(&mut orchestrator, None).await;
    assert_eq!((offer.version, offer.on_sale, offer.max_per_customer), (4, true, Some(2)));
    let (first, second) = (&offer.ticket_types[0], &offer.ticket_types[1]);
    assert_eq!(
        (offer.title.as_str(), first.price.amount, second.seats[99].as_str()),
        ("Midsummer Night", 4300, "B-99")
    );
    let after = platform.shown(&before).await;
    assert_eq!((after.version, &after.change, after.details.title.as_str()), (5, &None, "Midsummer Night"));
    assert_eq!((first.id, &second.seats), (after.details.ticket_types[0].id, &after.details.ticket_types[1].seats));
    let (subject, updated) = told.next().await;
    assert_eq!((subject.as_str(), updated.version), ("evt.event.updated", 5));
    platform.stop().await;
}

#[tokio::test]
async fn rule_14_a_change_whose_saga_ended_without_a_word_is_superseded() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let before = platform.on_sale(&mut orchestrator).await;
    let pending = platform.edit(&before, dearer(&before)).await.unwrap();
    let (given_up, former) = orchestrator.opened().await;
    platform.ctx.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(refused(platform.turn(STOP, &pending).await).code, codes::CHANGE_PENDING);
    platform.ctx.clock.advance(std::time::Duration::from_millis(1));
    let stopping = platform.turn(STOP, &pending).await.unwrap();
    assert_eq!((stopping.version, &stopping.change), (5, &under_way(5)));
    let (saga, offer) = orchestrator.opened().await;
    assert_eq!((former.version, offer.version, offer.on_sale), (4, 5, false));
    let answers = platform
        .settle(&[
            (key(given_up, "SETTLE"), settlement(&former, None)),
            (key(saga, "SETTLE"), settlement(&offer, None)),
        ])
        .await;
    assert!(matches!(&answers[0], Answer::Rejected(no) if no.code == codes::STALE_VERSION), "{answers:?}");
    assert_eq!(answers[1], DONE);
    let stopped = platform.shown(&before).await;
    assert_eq!((stopped.state, stopped.version, &stopped.change), (EventState::Stopped, 6, &None));
    assert_eq!(stopped.details, before.details);
    platform.stop().await;
}

#[tokio::test]
async fn rule_14_a_refused_edit_leaves_the_event_as_it_was() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let before = platform.on_sale(&mut orchestrator).await;
    platform.edit(&before, dearer(&before)).await.unwrap();
    platform.decide(&mut orchestrator, Some(codes::BELOW_SOLD)).await;
    let after = platform.shown(&before).await;
    assert_eq!((after.state, &after.details, after.version), (EventState::Published, &before.details, 5));
    assert_eq!(after.change, was_refused(4, codes::BELOW_SOLD));
    assert_eq!(platform.get(before.id, Viewer::Public).await.unwrap().change, None, "nobody else's business");

    // What bookings does not sell changes at once, and the refusal is told until the next change.
    let mut details = written(&after);
    details.description = "Bring a blanket.".into();
    let described = platform.edit(&after, details).await.unwrap();
    assert_eq!((described.version, described.details.description.as_str()), (6, "Bring a blanket."));
    assert_eq!(described.change, was_refused(4, codes::BELOW_SOLD));
    let pending = platform.edit(&described, dearer(&described)).await.unwrap();
    assert_eq!(pending.change, under_way(7));
    assert_eq!(platform.decide(&mut orchestrator, None).await.version, 7);
    assert_eq!(platform.shown(&before).await.change, None);
    platform.stop().await;
}

#[tokio::test]
async fn rule_14_what_is_stopped_can_be_published_again() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let mut told = platform.told().await;
    let event = platform.on_sale(&mut orchestrator).await;
    told.until("published").await;
    let stopping = platform.turn(STOP, &event).await.unwrap();
    assert_eq!((stopping.state, &stopping.change), (EventState::Published, &under_way(4)));
    assert_eq!(platform.turn(STOP, &event).await.unwrap(), stopping, "a repeat changes nothing");
    assert_eq!(refused(platform.turn(PUBLISH, &stopping).await).code, codes::CHANGE_PENDING);
    let offer = platform.decide(&mut orchestrator, None).await;
    assert!(!offer.on_sale && !offer.cancelled && offer.ticket_types.len() == 2);
    let stopped = platform.get(event.id, Viewer::Public).await.unwrap();
    assert_eq!((stopped.state, stopped.version), (EventState::Stopped, 5));
    assert_eq!(platform.turn(STOP, &stopped).await.unwrap(), stopped);

    // It is edited off sale, and then on sale again.
    platform.edit(&stopped, dearer(&stopped)).await.unwrap();
    assert!(!platform.decide(&mut orchestrator, None).await.on_sale);
    let edited = platform.shown(&event).await;
    assert_eq!((edited.state, edited.details.ticket_types[0].price.amount), (EventState::Stopped, 4300));
    platform.turn(PUBLISH, &edited).await.unwrap();
    assert!(platform.decide(&mut orchestrator, None).await.on_sale);
    assert_eq!(platform.get(event.id, Viewer::Public).await.unwrap().state, EventState::Published);
    for what in ["updated", "updated", "published"] {
        assert_eq!(told.next().await.0, format!("evt.event.{what}"));
    }
    platform.stop().await;
}

#[tokio::test]
async fn rule_14_a_cancelled_event_is_so_for_good() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let mut told = platform.told().await;
    let event = platform.on_sale(&mut orchestrator).await;
    told.until("published").await;
    platform.turn(CANCEL, &event).await.unwrap();
    let offer = platform.decide(&mut orchestrator, Some(codes::HAS_BOOKINGS)).await;
    assert!(!offer.on_sale && offer.cancelled);
    let kept = platform.shown(&event).await;
    assert_eq!((kept.state, &kept.change), (EventState::Published, &was_refused(4, codes::HAS_BOOKINGS)));
    platform.turn(CANCEL, &kept).await.unwrap();
    platform.decide(&mut orchestrator, None).await;
    let cancelled = platform.get(event.id, Viewer::Public).await.unwrap();
    assert_eq!((cancelled.state, cancelled.version), (EventState::Cancelled, 7));
    for what in ["updated", "cancelled"] {
        assert_eq!(told.next().await.0, format!("evt.event.{what}"));
    }

    assert_eq!(platform.turn(CANCEL, &cancelled).await.unwrap(), cancelled);
    assert_eq!(refused(platform.turn(PUBLISH, &cancelled).await).code, codes::EVENT_CANCELLED);
    assert_eq!(refused(platform.turn(STOP, &cancelled).await).code, codes::NOT_PUBLISHED);
    assert_eq!(refused(platform.edit(&cancelled, written(&cancelled)).await).code, codes::EVENT_CANCELLED);
    let draft = platform.create(CustomerId::fresh(), concert(24)).await;
    for name in [STOP, CANCEL] {
        assert_eq!(refused(platform.turn(name, &draft).await).code, codes::NOT_PUBLISHED, "{name}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn what_is_over_is_not_changed_in_what_is_sold() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let event = platform.on_sale(&mut orchestrator).await;
    // It has begun, and is sold until its end.
    platform.ctx.clock.advance(HOUR * 25);
    platform.edit(&event, dearer(&event)).await.unwrap();
    platform.decide(&mut orchestrator, None).await;
    let event = platform.shown(&event).await;
    platform.ctx.clock.advance(HOUR);
    assert_eq!(refused(platform.edit(&event, dearer(&event)).await).code, codes::EVENT_OVER);
    for name in [STOP, CANCEL] {
        assert_eq!(refused(platform.turn(name, &event).await).code, codes::EVENT_OVER, "{name}");
    }
    let mut details = written(&event);
    details.description = "Thank you for coming.".into();
    assert_eq!(platform.edit(&event, details).await.unwrap().details.description, "Thank you for coming.");
    platform.stop().await;
}

#[tokio::test]
async fn rule_01_of_two_settlements_the_first_counts_in_any_order_and_however_often() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let stale = |answer: &Answer| matches!(answer, Answer::Rejected(no) if no.code == codes::STALE_VERSION);
    for refusal_first in [false, true] {
        for together in [false, true] {
            let event = platform.on_sale(&mut orchestrator).await;
            platform.edit(&event, dearer(&event)).await.unwrap();
            let (saga, offer) = orchestrator.opened().await;
            let settle = (key(saga, "SETTLE"), settlement(&offer, None));
            let revert = (key(saga, "REVERT"), settlement(&offer, Some(codes::BELOW_SOLD)));
            let (first, late) = if refusal_first { (revert, settle) } else { (settle, revert) };
            let all = [first.clone(), late.clone(), first, late];
            let mut answers = Vec::new();
            for some in all.chunks(if together { 4 } else { 1 }) {
                answers.extend(platform.settle(some).await);
            }
            assert!(answers[0] == DONE && stale(&answers[1]), "{answers:?}");
            assert_eq!(answers[..2], answers[2..], "{refusal_first} {together}");
            let after = platform.shown(&event).await;
            let (price, version) = (after.details.ticket_types[0].price.amount, after.version);
            assert_eq!((price, version), (if refusal_first { 4200 } else { 4300 }, 5), "{together}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn settle_refuses_what_is_not_under_way_and_has_no_undo() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let draft = platform.create(CustomerId::fresh(), concert(24)).await;
    platform.turn(PUBLISH, &draft).await.unwrap();
    let (_, offer) = orchestrator.opened().await;
    let fresh = || key(SagaId::fresh(), "SETTLE");
    let mut older = settlement(&offer, None);
    older.version -= 1;
    let mut unknown = settlement(&offer, None);
    unknown.event = EventId::fresh();
    for answer in platform.settle(&[(fresh(), older), (fresh(), unknown)]).await {
        let Answer::Rejected(rejection) = answer else { panic!("{answer:?}") };
        assert_eq!(rejection.code, codes::STALE_VERSION);
    }
    let undo = (fresh(), eventicket_contracts::envelope::Half::Undo, serde_json::json!(settlement(&offer, None)));
    assert!(matches!(&platform.command("settle", &[undo]).await[..], [Answer::Dead(_)]));
    assert_eq!(platform.shown(&draft).await.state, EventState::Publishing);
    platform.stop().await;
}

#[tokio::test]
async fn the_largest_seat_plan_fits_into_every_message() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let mut told = platform.told().await;
    let mut details = concert(24);
    for (kind, details) in details.ticket_types.iter_mut().enumerate() {
        // With their punctuation 20 bytes each, and quotation marks are written as two.
        details.seats = (0..10_000).map(|seat| format!("{kind}{seat:04}{}", "\"".repeat(12))).collect();
        details.quantity = 10_000;
    }
    let event = platform.create(CustomerId::fresh(), details).await;
    platform.turn(PUBLISH, &event).await.unwrap();
    let offer = platform.decide(&mut orchestrator, None).await;
    let event = platform.shown(&event).await;
    assert_eq!(
        (event.state, &event.details.ticket_types[1].seats),
        (EventState::Published, &offer.ticket_types[1].seats)
    );
    told.until("published").await;
    platform.stop().await;
}
