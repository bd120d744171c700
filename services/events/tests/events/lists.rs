//! Lists of events.

use eventicket_contracts::events::{Event, EventCursor, EventPage, LIST, ListEvents, Viewer};
use eventicket_contracts::{CustomerId, EventId};

use crate::platform::{HOUR, Platform, concert, organizer_of};

async fn pages(platform: &Platform, viewer: Viewer, mine: bool, category: Option<&str>) -> Vec<Vec<EventId>> {
    let mut pages = Vec::new();
    let mut cursor: Option<EventCursor> = None;
    loop {
        let list = ListEvents { viewer, mine, category: category.map(Into::into), limit: 2, cursor };
        let page: EventPage = platform.ask(LIST, &list).await.unwrap();
        pages.push(page.items.iter().map(|event| event.id).collect());
        cursor = page.next;
        if cursor.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn lists_are_paged_by_start_and_show_what_the_viewer_may_see() {
    let platform = Platform::start().await;
    let (ada, bob) = (CustomerId::fresh(), CustomerId::fresh());
    let mut ids = Vec::new();
    // Two begin at the same time; the first is over when the list is read.
    for (organizer, hours) in [(ada, 1), (ada, 10), (bob, 10), (ada, 20), (bob, 30)] {
        ids.push(platform.create(organizer, concert(hours)).await.id);
    }
    let mut draft = concert(15);
    draft.category = "theatre".into();
    let draft = platform.create(ada, draft).await.id;
    sqlx::query("UPDATE events SET state = 'published' WHERE id <> $1")
        .bind(draft.0)
        .execute(&platform.pool)
        .await
        .unwrap();
    platform.ctx.clock.advance(HOUR * 3);

    let [over, a10, b10, a20, b30] = ids[..] else { unreachable!() };
    assert_eq!(pages(&platform, Viewer::Public, false, None).await, [vec![a10, b10], vec![a20, b30]]);
    let seen_by_ada = pages(&platform, Viewer::Organizer(ada), false, None).await;
    assert_eq!(seen_by_ada, [vec![a10, b10], vec![draft, a20], vec![b30]]);
    assert_eq!(pages(&platform, Viewer::Organizer(ada), true, None).await, [vec![over, a10], vec![draft, a20]]);
    assert_eq!(pages(&platform, Viewer::Admin, false, None).await.concat(), [over, a10, b10, draft, a20, b30]);
    assert_eq!(pages(&platform, Viewer::Admin, false, Some("theatre")).await, [vec![draft]]);
    assert_eq!(pages(&platform, Viewer::Public, false, Some("theatre")).await, [Vec::new()]);
    assert_eq!(pages(&platform, Viewer::Public, true, None).await, [Vec::new()]);
    platform.stop().await;
}

#[tokio::test]
async fn a_list_leaves_the_seats_out_and_never_outgrows_a_message() {
    let platform = Platform::start().await;
    let organizer = CustomerId::fresh();
    let mut details = concert(1);
    details.description = "€".repeat(10_000);
    details.ticket_types[0].seats = (0..100).map(|seat| format!("A-{seat}")).collect();
    let mut created: Vec<Event> = Vec::new();
    for _ in 0..40 {
        created.push(platform.create(organizer, details.clone()).await);
    }
    assert_eq!(platform.get(created[0].id, organizer_of(&created[0])).await.unwrap(), created[0]);
    assert_eq!(created[0].details.ticket_types[0].seats.len(), 100);

    let (viewer, mut cursor, mut found, mut pages) = (Viewer::Organizer(organizer), None, Vec::new(), 0);
    loop {
        let list = ListEvents { viewer, mine: true, category: None, limit: 100, cursor };
        let page: EventPage = platform.ask(LIST, &list).await.unwrap();
        assert!(page.items.iter().all(|event| event.details.ticket_types[0].seats.is_empty()));
        found.extend(page.items.iter().map(|event| event.id));
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut ids: Vec<EventId> = created.iter().map(|event| event.id).collect();
    ids.sort_unstable();
    // 1.2 MB of descriptions in pages of at most half a megabyte.
    assert_eq!((found, pages), (ids, 3));
    platform.stop().await;
}
