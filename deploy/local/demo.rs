//! Users and events to begin with, made once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use eventicket_contracts::events::{
    self, CreateEvent, Event, EventDetails, EventState, GetEvent, NewTicketType, OwnEvent, Venue, Viewer,
};
use eventicket_contracts::identity::{Idempotency, Role};
use eventicket_contracts::money::{Currency, Money};
use eventicket_contracts::{Clock, CustomerId, Timestamp};
use eventicket_identity::SeedUser;
use eventicket_kit::Settings;
use eventicket_nats::Nats;
use tokio::task::JoinSet;

/// Says that the demo data is there.
const MARKER: &str = "demo";
/// The password of each demo user.
pub const PASSWORD: &str = "demo-password";
/// How long an event may take from its making to its sale.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

const ORGANIZER: &str = "organizer@demo.test";
/// Login, name and role of the demo users; each is a customer too.
pub const USERS: [(&str, &str, Role); 4] = [
    ("customer@demo.test", "Dana Customer", Role::Customer),
    (ORGANIZER, "Oscar Organizer", Role::Organizer),
    ("admin@demo.test", "Ada Admin", Role::Admin),
    ("operator@demo.test", "Otto Operator", Role::Operator),
];

/// An event in days from today, at an hour of UTC.
struct Demo {
    title: &'static str,
    description: &'static str,
    category: &'static str,
    venue: (&'static str, &'static str, &'static str, &'static str),
    day: i64,
    hour: i64,
    minutes: i64,
    /// Ticket types of name, cents, rows of a letter each, and seats a row.
    numbered: &'static [(&'static str, i64, &'static str, u32)],
    /// Ticket types of name, cents and number.
    types: &'static [(&'static str, i64, u32)],
    /// Most tickets for one customer.
    max_per_customer: Option<u32>,
}

/// What most events are: without seats and limits.
const PLAIN: Demo = Demo {
    title: "",
    description: "",
    category: "",
    venue: ("", "", "", ""),
    day: 0,
    hour: 0,
    minutes: 0,
    numbered: &[],
    types: &[],
    max_per_customer: None,
};

const EVENTS: [Demo; 12] = [
    Demo {
        title: "Nordlicht: The Aurora Tour",
        description: "Two hours of slow synthesizers and fast strings, with the new album in full.",
        category: "concert",
        venue: ("Stadthalle", "Roland-Rainer-Platz 1", "Vienna", "AT"),
        day: 24,
        hour: 18,
        minutes: 150,
        types: &[("Standing", 5_900, 8_000), ("Seated", 7_900, 4_000), ("Front of stage", 12_900, 500)],
        max_per_customer: Some(8),
        ..PLAIN
    },
    Demo {
        title: "City Philharmonic: Mahler's Second",
        description: "The Resurrection Symphony with two soloists and a choir of a hundred and twenty.",
        category: "concert",
        venue: ("Concert House", "Lothringerstrasse 20", "Vienna", "AT"),
        day: 38,
        hour: 18,
        minutes: 110,
        types: &[("Stalls", 8_400, 700), ("Balcony", 5_200, 500), ("Standing", 1_500, 150)],
        ..PLAIN
    },
    Demo {
        title: "Midsummer Night Jazz",
        description: "Three bands, one garden, blankets welcome.",
        category: "concert",
        venue: ("Botanic Garden", "Park Lane 4", "Graz", "AT"),
        day: 61,
        hour: 17,
        minutes: 240,
        types: &[("Adult", 2_900, 900), ("Student", 1_900, 300)],
        ..PLAIN
    },
    Demo {
        title: "Rovers v. Athletic: Cup Semi-final",
        description: "Ninety minutes for a place in the final. Gates open two hours before.",
        category: "match",
        venue: ("Riverside Stadium", "Dockside 1", "Hamburg", "DE"),
        day: 17,
        hour: 19,
        minutes: 120,
        types: &[("Home end", 3_200, 12_000), ("Away end", 3_200, 3_000), ("Main stand", 5_500, 9_000)],
        ..PLAIN
    },
    Demo {
        title: "Harbour Sharks v. Ice Wolves",
        description: "Ice hockey, first leg of the play-offs.",
        category: "match",
        venue: ("Ice Arena", "Kai 12", "Bremen", "DE"),
        day: 31,
        hour: 18,
        minutes: 150,
        types: &[("Curve", 1_800, 2_500), ("Side", 2_800, 3_500)],
        ..PLAIN
    },
    Demo {
        title: "Women's Volleyball: League Final",
        description: "Best of five, with the trophy afterwards.",
        category: "match",
        venue: ("Sports Hall South", "Olympia Road 8", "Linz", "AT"),
        day: 52,
        hour: 16,
        minutes: 180,
        types: &[("Adult", 1_600, 1_800), ("Child", 600, 600)],
        ..PLAIN
    },
    Demo {
        title: "Sourdough for Beginners",
        description: "Mix, fold, wait, bake. Everyone goes home with a loaf and a starter.",
        category: "workshop",
        venue: ("The Bakehouse", "Mill Lane 3", "Salzburg", "AT"),
        day: 12,
        hour: 8,
        minutes: 300,
        types: &[("Place", 8_900, 12)],
        ..PLAIN
    },
    Demo {
        title: "Repair Café: Bring What Broke",
        description: "Volunteers help to mend toasters, trousers and bicycles. Free, but places are few.",
        category: "workshop",
        venue: ("Library", "Station Square 2", "Graz", "AT"),
        day: 9,
        hour: 9,
        minutes: 240,
        types: &[("Free place", 0, 120)],
        ..PLAIN
    },
    Demo {
        title: "Watercolour by the River",
        description: "An afternoon outdoors with paper, brushes and a patient teacher.",
        category: "workshop",
        venue: ("Boathouse", "Quay 7", "Passau", "DE"),
        day: 45,
        hour: 12,
        minutes: 210,
        types: &[("With material", 6_500, 18), ("Own material", 4_500, 6)],
        ..PLAIN
    },
    Demo {
        title: "The Government Inspector",
        description: "Gogol's comedy, in a small town very like this one.",
        category: "theatre",
        venue: ("Playhouse", "Theatre Street 11", "Munich", "DE"),
        day: 20,
        hour: 17,
        minutes: 140,
        numbered: &[("Category A", 4_800, "ABCD", 12), ("Category B", 3_400, "EFGH", 12)],
        types: &[("Standing", 1_500, 40)],
        ..PLAIN
    },
    Demo {
        title: "Twelfth Night, Outdoors",
        description: "Shakespeare in the castle yard. Takes place in light rain.",
        category: "theatre",
        venue: ("Castle Yard", "Castle Hill 1", "Salzburg", "AT"),
        day: 74,
        hour: 18,
        minutes: 165,
        types: &[("Front", 3_900, 150), ("Back", 2_400, 250)],
        ..PLAIN
    },
    Demo {
        title: "The Small Stage: Night of Monologues",
        description: "Eight actors, eight stories, forty chairs.",
        category: "theatre",
        venue: ("Cellar Theatre", "Old Market 5", "Linz", "AT"),
        day: 15,
        hour: 19,
        minutes: 90,
        types: &[("Chair", 2_200, 40)],
        ..PLAIN
    },
];

/// Whether the demo data was made in this folder.
pub fn is_there(home: &Path) -> bool {
    home.join(MARKER).exists()
}

/// Makes the demo users on an empty platform, and the events where their organizer is there; tells whether it is.
///
/// # Errors
/// A service does not answer, or refuses an event.
pub async fn load(settings: &Settings, nats: &Nats, home: &Path) -> anyhow::Result<bool> {
    let user = |(email, name, role): (&str, &str, Role)| {
        let roles = if role == Role::Customer { vec![role] } else { vec![Role::Customer, role] };
        SeedUser { email: email.into(), password: PASSWORD.into(), name: name.into(), roles }
    };
    let made = eventicket_identity::seed(settings, &USERS.map(user)).await?;
    let Some(organizer) = eventicket_identity::account_id(settings, ORGANIZER).await? else {
        tracing::warn!("there are users already, so the demo's are not made");
        return Ok(false);
    };
    tracing::info!(made, "demo users are there");
    let mut sales = JoinSet::new();
    for (number, demo) in EVENTS.iter().enumerate() {
        let nats = nats.clone();
        sales.spawn(async move { sell(&nats, organizer, number, demo).await.context(demo.title) });
    }
    while let Some(sold) = sales.join_next().await {
        sold??;
    }
    std::fs::write(home.join(MARKER), "demo users and events were made\n")?;
    Ok(true)
}

/// Makes an event, publishes it, and waits until it is on sale; repeats of an interrupted start find the first.
async fn sell(nats: &Nats, organizer: CustomerId, number: usize, demo: &Demo) -> anyhow::Result<()> {
    let idempotency = Some(Idempotency { key: format!("demo-{number}"), fingerprint: "demo".into() });
    let create = CreateEvent { organizer, details: details(demo, Clock::system().now()), idempotency };
    let service = eventicket_events::DATABASE;
    let event: Event = nats.query(service, events::CREATE, &create).await?;
    let (id, viewer) = (event.id, Viewer::Organizer(organizer));
    let _: Option<Event> = nats.query(service, events::PUBLISH, &OwnEvent { id, viewer, version: None }).await?;
    let published = async {
        loop {
            let event: Option<Event> = nats.query(service, events::GET, &GetEvent { id, viewer }).await?;
            let event = event.context("it is gone")?;
            if event.state == EventState::Published {
                return anyhow::Ok(());
            }
            if let Some(code) = event.change.and_then(|change| change.refused) {
                bail!("its publication was refused: {code}");
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, published).await.context("it was not published in time")?
}

fn details(demo: &Demo, now: Timestamp) -> EventDetails<NewTicketType> {
    let today = now.millis() - now.millis().rem_euclid(DAY_MS);
    let starts_at = today + demo.day * DAY_MS + demo.hour * 60 * MINUTE_MS;
    let (name, address, city, country) = demo.venue;
    let ticket_type = |name: &str, cents, quantity, seats| NewTicketType {
        id: None,
        name: name.into(),
        price: Money { amount: cents, currency: Currency::EUR },
        quantity,
        max_per_order: None,
        seats,
    };
    let numbered = demo.numbered.iter().map(|&(name, cents, rows, width)| {
        let seats: Vec<String> =
            rows.chars().flat_map(|row| (1..=width).map(move |seat| format!("{row}-{seat}"))).collect();
        ticket_type(name, cents, seats.len() as u32, seats)
    });
    let general = demo.types.iter().map(|&(name, cents, number)| ticket_type(name, cents, number, Vec::new()));
    EventDetails {
        title: demo.title.into(),
        description: demo.description.into(),
        category: demo.category.into(),
        starts_at: Timestamp(starts_at),
        ends_at: Timestamp(starts_at + demo.minutes * MINUTE_MS),
        timezone: if country == "DE" { "Europe/Berlin" } else { "Europe/Vienna" }.into(),
        venue: Venue {
            name: name.into(),
            address: Some(address.into()),
            city: city.into(),
            country: country.into(),
            latitude: None,
            longitude: None,
        },
        ticket_types: numbered.chain(general).collect(),
        hold_seconds: None,
        max_per_customer: demo.max_per_customer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_shows_each_kind_a_free_event_and_a_small_one() {
        for category in ["concert", "match", "workshop", "theatre"] {
            assert_eq!(EVENTS.iter().filter(|demo| demo.category == category).count(), 3, "{category}");
        }
        let is_free = |demo: &&Demo| demo.types.iter().all(|(_, cents, _)| *cents == 0);
        assert_eq!(EVENTS.iter().filter(is_free).map(|demo| demo.category).collect::<Vec<_>>(), ["workshop"]);
        assert!(EVENTS.iter().any(|demo| demo.types.iter().map(|(_, _, number)| number).sum::<u32>() <= 40));
        let details = details(&EVENTS[0], Timestamp(1_795_514_400_123));
        assert_eq!(details.starts_at.to_string(), "2026-12-18T18:00:00.000Z");
        assert_eq!(EVENTS.iter().filter(|demo| demo.max_per_customer.is_some()).count(), 1);
    }

    #[test]
    fn a_theatre_has_a_seat_plan_and_room_to_stand() {
        let demo = EVENTS.iter().find(|demo| !demo.numbered.is_empty()).unwrap();
        let kinds = details(demo, Timestamp(0)).ticket_types;
        let seats: Vec<&str> = kinds.iter().flat_map(|kind| &kind.seats).map(String::as_str).collect();
        assert_eq!((demo.category, seats.len(), seats[0], seats[95]), ("theatre", 96, "A-1", "H-12"));
        let rows: Vec<_> = kinds.iter().map(|kind| (kind.name.as_str(), kind.quantity, kind.seats.len())).collect();
        assert_eq!(rows, [("Category A", 48, 48), ("Category B", 48, 48), ("Standing", 40, 0)]);
    }
}
