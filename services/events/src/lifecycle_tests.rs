use super::*;
use eventicket_contracts::events::Venue;
use eventicket_contracts::{Currency, Money};

use EventState::{Cancelled, Draft, Published, Publishing, Stopped};

const NOW: Timestamp = Timestamp(1_000_000);
const BEGIN: Timestamp = Timestamp(2_000_000);
const END: Timestamp = Timestamp(3_000_000);
const STATES: [EventState; 5] = [Draft, Publishing, Published, Stopped, Cancelled];

type Turn = fn(&Stored, Option<i64>, Timestamp) -> Result<Decision, Refusal>;

fn details() -> EventDetails<NewTicketType> {
    let price = Money { amount: 4200, currency: Currency::EUR };
    EventDetails {
        title: "Gala".into(),
        description: String::new(),
        category: "theatre".into(),
        starts_at: BEGIN,
        ends_at: END,
        timezone: "UTC".into(),
        venue: Venue {
            name: "Hall".into(),
            address: None,
            city: "Graz".into(),
            country: "AT".into(),
            latitude: None,
            longitude: None,
        },
        ticket_types: vec![NewTicketType {
            id: None,
            name: "Floor".into(),
            price,
            quantity: 2,
            max_per_order: None,
            seats: vec!["A-1".into(), "A-2".into()],
        }],
        hold_seconds: None,
        max_per_customer: None,
    }
}

/// An event of version 7 in this state; with a change under way to `next`.
fn stored(state: EventState, next: Option<EventState>) -> Stored {
    let event = create(CustomerId::fresh(), details(), NOW).unwrap();
    let change = next.map(|_| SaleChange { version: 7, refused: None });
    let next = next.map(|state| Next { state, details: event.details.clone() });
    Stored { event: Event { state, version: 7, change, ..event }, next }
}

fn written(event: &Event) -> EventDetails<NewTicketType> {
    let mut details = details();
    details.ticket_types[0].id = Some(event.details.ticket_types[0].id);
    details
}

/// What becomes of a request, in a word: the state that bookings is asked for, or the refusal.
fn told(decision: Result<Decision, Refusal>) -> String {
    match decision {
        Ok(Decision::Nothing) => "nothing".into(),
        Ok(Decision::AtOnce(changed)) => {
            assert_eq!((changed.event.version, changed.next), (8, None));
            "at once".into()
        }
        Ok(Decision::Offered(changed)) => {
            assert_eq!(changed.event.change, Some(SaleChange { version: 8, refused: None }));
            assert_eq!((changed.event.version, sale::offer(&changed).unwrap().version), (8, 8));
            format!("{:?}", changed.next.unwrap().state)
        }
        Err(refusal) => refusal.code().into(),
    }
}

#[test]
fn every_request_in_every_state() {
    // By columns: draft, publishing, published, stopped, cancelled.
    let rows: [(&str, Turn, [&str; 5]); 3] = [
        ("publish", publish, ["Published", "nothing", "nothing", "Published", codes::EVENT_CANCELLED]),
        ("stop", stop, [codes::NOT_PUBLISHED, codes::CHANGE_PENDING, "Stopped", "nothing", codes::NOT_PUBLISHED]),
        ("cancel", cancel, [codes::NOT_PUBLISHED, codes::CHANGE_PENDING, "Cancelled", "Cancelled", "nothing"]),
    ];
    for (name, turn, expected) in rows {
        for (state, expected) in STATES.into_iter().zip(expected) {
            let stored = stored(state, (state == Publishing).then_some(Published));
            assert_eq!(told(turn(&stored, Some(7), NOW)), expected, "{name} {state:?}");
            assert_eq!(told(turn(&stored, None, NOW)), expected, "{name} {state:?}");
            let changes = ["Published", "Stopped", "Cancelled"].contains(&expected);
            if changes {
                assert_eq!(told(turn(&stored, Some(6), NOW)), codes::VERSION_CONFLICT, "{name} {state:?}");
                assert_eq!(told(turn(&stored, Some(7), END)), codes::EVENT_OVER, "{name} {state:?}");
            }
        }
    }
}

#[test]
fn what_is_under_way_is_found_and_holds_everything_else_off() {
    for next in [Published, Stopped, Cancelled] {
        let stored = stored(Published, Some(next));
        for (to, turn) in [(Published, publish as Turn), (Stopped, stop), (Cancelled, cancel)] {
            let expected = if to == next { "nothing" } else { codes::CHANGE_PENDING };
            assert_eq!(told(turn(&stored, None, NOW)), expected, "{to:?} while {next:?}");
        }
        assert_eq!(told(edit(&stored, 7, written(&stored.event), NOW)), codes::CHANGE_PENDING);
    }
}

#[test]
fn rule_14_a_change_that_was_not_heard_of_for_a_minute_is_superseded() {
    let (minute, later) = (NOW.plus(PENDING_FOR), NOW.plus(PENDING_FOR + Duration::from_millis(1)));
    for (state, next) in [(Publishing, Published), (Published, Stopped), (Stopped, Published), (Published, Cancelled)] {
        let stored = stored(state, Some(next));
        for (to, turn) in [(Published, publish as Turn), (Stopped, stop), (Cancelled, cancel)] {
            let expected = if to == next { "nothing" } else { codes::CHANGE_PENDING };
            assert_eq!(told(turn(&stored, Some(7), minute)), expected, "{to:?} while {next:?}");
            assert_eq!(told(turn(&stored, Some(7), later)), format!("{to:?}"), "{to:?} while {next:?}");
            assert_eq!(told(turn(&stored, None, later)), format!("{to:?}"), "{to:?} while {next:?}");
            let repeat = if to == next { "nothing" } else { codes::VERSION_CONFLICT };
            assert_eq!(told(turn(&stored, Some(6), later)), repeat, "{to:?} while {next:?}");
        }
        // Bookings is asked in any case: it may have accepted the change.
        let edited = |now| told(edit(&stored, 7, written(&stored.event), now));
        let shown = if state == Publishing { Published } else { state };
        assert_eq!((edited(minute).as_str(), edited(later)), (codes::CHANGE_PENDING, format!("{shown:?}")));
        // The end of the former change is none of the new one.
        let Ok(Decision::Offered(new)) = edit(&stored, 7, written(&stored.event), later) else { panic!("not offered") };
        assert_eq!(settle(*new.clone(), 7, None, later), None);
        assert_eq!(settle(*new, 8, None, later).map(|settled| settled.event.state), Some(shown));
    }
    // When it is over, nobody asks any more.
    let over = stored(Published, Some(Stopped));
    let Ok(Decision::AtOnce(done)) = edit(&over, 7, written(&over.event), END) else { panic!("not at once") };
    assert_eq!((done.event.change, done.next), (None, None));
}

#[test]
fn an_edit_goes_to_bookings_where_it_changes_what_is_sold() {
    let price = |d: &mut EventDetails<NewTicketType>| d.ticket_types[0].price.amount += 1;
    let seats = |d: &mut EventDetails<NewTicketType>| d.ticket_types[0].seats.reverse();
    let more = |d: &mut EventDetails<NewTicketType>| {
        let another = NewTicketType { id: None, name: "Balcony".into(), ..d.ticket_types[0].clone() };
        d.ticket_types.push(NewTicketType { seats: Vec::new(), ..another });
    };
    type Change = fn(&mut EventDetails<NewTicketType>);
    let sold: [Change; 8] = [
        price,
        seats,
        more,
        |d| d.title = "Ball".into(),
        |d| d.starts_at = Timestamp(2_000_001),
        |d| d.ends_at = Timestamp(3_000_001),
        |d| d.hold_seconds = Some(60),
        |d| d.max_per_customer = Some(2),
    ];
    let shown: [Change; 4] = [
        |d| d.description = "Black tie.".into(),
        |d| d.category = "ball".into(),
        |d| d.timezone = "Europe/Vienna".into(),
        |d| d.venue.address = Some("Main Street 1".into()),
    ];
    for (changes, is_sold) in [(&sold[..], true), (&shown[..], false)] {
        for (number, change) in changes.iter().enumerate() {
            let outcome = |state, now| {
                let stored = stored(state, None);
                let mut details = written(&stored.event);
                change(&mut details);
                told(edit(&stored, 7, details, now))
            };
            let expected = |sold: &str| if is_sold { sold.to_owned() } else { "at once".to_owned() };
            assert_eq!(outcome(Draft, NOW), "at once", "{number}");
            assert_eq!(outcome(Published, NOW), expected("Published"), "{number}");
            assert_eq!(outcome(Stopped, NOW), expected("Stopped"), "{number}");
            assert_eq!(outcome(Cancelled, NOW), codes::EVENT_CANCELLED, "{number}");
        }
    }
}

#[test]
fn what_bookings_decides_becomes_of_the_event() {
    let cases = [
        (Publishing, Published, Draft, "published"),
        (Stopped, Published, Stopped, "published"),
        (Published, Published, Published, "updated"),
        (Stopped, Stopped, Stopped, "updated"),
        (Published, Stopped, Published, "updated"),
        (Published, Cancelled, Published, "cancelled"),
        (Stopped, Cancelled, Stopped, "cancelled"),
    ];
    for (state, next, otherwise, what) in cases {
        let stored = stored(state, Some(next));
        let accepted = settle(stored.clone(), 7, None, NOW).unwrap();
        assert_eq!(
            (accepted.event.state, accepted.what, accepted.event.version),
            (next, what, 8),
            "{state:?} {next:?}"
        );
        assert_eq!(accepted.event.change, None);
        let refused = settle(stored.clone(), 7, Some("below_sold"), NOW).unwrap();
        assert_eq!((refused.event.state, refused.what, refused.event.version), (otherwise, "updated", 8));
        assert_eq!(refused.event.change, Some(SaleChange { version: 7, refused: Some("below_sold".into()) }));
        for version in [6, 8] {
            assert_eq!(settle(stored.clone(), version, None, NOW), None, "another version is not under way");
        }
        assert_eq!(settle(Stored { next: None, ..stored }, 7, None, NOW), None, "nothing is under way");
    }
}
