//! Events before they are on sale.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, Half};
use eventicket_contracts::events::{
    CANCEL, CREATE, CreateEvent, DELETE, Event, EventState, OwnEvent, PUBLISH, STOP, UPDATE, UpdateEvent, Viewer,
};
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::{CustomerId, Json, codes};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::platform::{
    HOUR, Orchestrator, Platform, START, concert, kept, key, kind, organizer_of, refused, settlement,
};

#[tokio::test]
async fn a_draft_is_its_organizers_alone() {
    let platform = Platform::start().await;
    let organizer = CustomerId::fresh();
    let event = platform.create(organizer, concert(24)).await;
    assert_eq!((event.state, event.version, event.organizer_id), (EventState::Draft, 1, organizer));
    let ids: HashSet<_> = event.details.ticket_types.iter().map(|kind| kind.id).collect();
    assert_eq!(ids.len(), 2);

    let other = Viewer::Organizer(CustomerId::fresh());
    for (viewer, sees) in [(Viewer::Public, false), (other, false), (organizer_of(&event), true), (Viewer::Admin, true)]
    {
        assert_eq!(platform.get(event.id, viewer).await.is_some(), sees, "{viewer:?}");
    }
    assert_eq!(platform.get(event.id, Viewer::Admin).await.unwrap(), event);
    for name in [DELETE, PUBLISH, STOP, CANCEL] {
        let own = OwnEvent { id: event.id, viewer: other, version: None };
        assert!(platform.ask::<Option<Value>>(name, &own).await.unwrap().is_none());
    }
    let update = UpdateEvent { id: event.id, viewer: other, version: 1, details: concert(1) };
    assert!(platform.ask::<Option<Event>>(UPDATE, &update).await.unwrap().is_none());
    platform.stop().await;
}

#[tokio::test]
async fn a_draft_is_edited_under_its_version_and_deleted() {
    let platform = Platform::start().await;
    let event = platform.create(CustomerId::fresh(), concert(24)).await;
    let viewer = organizer_of(&event);
    let mut details = concert(48);
    details.ticket_types = vec![kept(&event.details.ticket_types[1]), kind("Balcony", 9000)];
    let update = |version, details| UpdateEvent { id: event.id, viewer, version, details };
    let edited: Option<Event> = platform.ask(UPDATE, &update(1, details.clone())).await.unwrap();
    let edited = edited.unwrap();
    assert_eq!((edited.version, edited.details.starts_at), (2, START.plus(HOUR * 48)));
    let types = &edited.details.ticket_types;
    assert_eq!(types[0].id, event.details.ticket_types[1].id);
    assert!(event.details.ticket_types.iter().all(|kind| kind.id != types[1].id));
    assert_eq!(platform.get(event.id, viewer).await.unwrap(), edited);

    let conflict = platform.ask::<Option<Event>>(UPDATE, &update(1, details.clone())).await;
    assert_eq!(refused(conflict).code, codes::VERSION_CONFLICT);
    details.ticket_types[1].id = Some(event.details.ticket_types[0].id);
    let unknown = refused(platform.ask::<Option<Event>>(UPDATE, &update(2, details)).await);
    assert_eq!(unknown.code, codes::VALIDATION);
    assert_eq!(unknown.details.unwrap()[0]["field"], "ticket_types[1].id");

    let own = |version| OwnEvent { id: event.id, viewer, version };
    assert_eq!(refused(platform.ask::<Option<bool>>(DELETE, &own(Some(1))).await).code, codes::VERSION_CONFLICT);
    assert_eq!(platform.ask::<Option<bool>>(DELETE, &own(Some(2))).await.unwrap(), Some(true));
    assert_eq!(platform.ask::<Option<bool>>(DELETE, &own(None)).await.unwrap(), None);
    assert_eq!(platform.get(event.id, viewer).await, None);
    platform.stop().await;
}

#[tokio::test]
async fn a_creation_is_repeated_under_its_key() {
    let platform = Arc::new(Platform::start().await);
    let (organizer, other) = (CustomerId::fresh(), CustomerId::fresh());
    let create = |organizer, fingerprint: &str| CreateEvent {
        organizer,
        details: concert(1),
        idempotency: Some(Idempotency { key: "k".into(), fingerprint: fingerprint.into() }),
    };
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (platform, create) = (platform.clone(), create(organizer, "f"));
        all.spawn(async move { platform.ask::<Event>(CREATE, &create).await.unwrap() });
    }
    let events = all.join_all().await;
    assert!(events.iter().all(|event| *event == events[0]));
    let again = platform.ask::<Event>(CREATE, &create(organizer, "other")).await;
    assert_eq!(refused(again).code, codes::KEY_REUSED);
    assert_ne!(platform.ask::<Event>(CREATE, &create(other, "f")).await.unwrap().id, events[0].id);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&platform.pool).await.unwrap();
    assert_eq!(count, 2);

    // The recorded answer comes before the look at the details, which have begun by now; after a day it is forgotten.
    platform.ctx.clock.advance(HOUR * 24 - Duration::from_millis(1));
    assert_eq!(platform.ask::<Event>(CREATE, &create(organizer, "f")).await.unwrap(), events[0]);
    platform.ctx.clock.advance(Duration::from_millis(1));
    assert_eq!(refused(platform.ask::<Event>(CREATE, &create(organizer, "f")).await).code, codes::VALIDATION);
    Arc::into_inner(platform).unwrap().stop().await;
}

#[tokio::test]
async fn rule_17_unknown_fields_on_the_wire_are_ignored() {
    let platform = Platform::start().await;
    let mut orchestrator = Orchestrator::of(&platform).await;
    let create = CreateEvent { organizer: CustomerId::fresh(), details: concert(24), idempotency: None };
    let mut create = json!(create);
    for at in ["", "/details", "/details/venue", "/details/ticket_types/0", "/details/ticket_types/0/price"] {
        create.pointer_mut(at).unwrap()["of_tomorrow"] = json!(1);
    }
    let event: Event = platform.ask(CREATE, &create).await.unwrap();
    platform.turn(PUBLISH, &event).await.unwrap();
    let (saga, offer) = orchestrator.opened().await;
    let mut settle = json!(settlement(&offer, None));
    settle["of_tomorrow"] = json!({"any": "thing"});
    let answers = platform.command("settle", &[(key(saga, "SETTLE"), Half::Do, settle)]).await;
    assert_eq!(answers, [Answer::Done(Json::NULL)]);
    assert_eq!(platform.shown(&event).await.state, EventState::Published);
    platform.stop().await;
}
