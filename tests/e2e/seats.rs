//! No seat is sold twice, and no booking gets half of its seats.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::platform::{Platform, text};
use crate::rest::order;

/// Seats of the house.
const SEATS: usize = 100;
/// Customers who want the same seat.
const EACH: usize = 10;

/// A published event with numbered seats.
async fn theatre(platform: &Platform) -> (String, String) {
    let seats: Vec<String> = (0..SEATS).map(seat).collect();
    platform.event_with(3_000, json!({"quantity": SEATS, "seats": seats}), json!({})).await
}

fn seat(n: usize) -> String {
    format!("{}-{}", char::from(b'A' + u8::try_from(n / 10).unwrap()), n % 10 + 1)
}

/// Books the seats and waits for the end.
async fn sit(platform: &Platform, token: &str, key: &str, event: &(String, String), seats: &[String]) -> Value {
    let mut body = order(event, Some("pm_card_visa"));
    body["items"][0]["quantity"] = seats.len().into();
    body["items"][0]["seats"] = json!(seats);
    let booking = platform.accepted(token, key, &body).await;
    platform.ended(token, &booking).await
}

/// How bookings ended, by status and reason.
fn counted(ends: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for end in ends {
        let word = |name: &str| end[name].as_str().unwrap_or_default().to_owned();
        *counts.entry(format!("{} {}", word("status"), word("reason")).trim().to_owned()).or_default() += 1;
    }
    counts
}

/// The seats of all tickets of the bookings that are confirmed.
async fn taken(platform: &Platform, tokens: &[String], ends: &[Value]) -> BTreeMap<String, usize> {
    let mut seats = BTreeMap::new();
    for (token, end) in tokens.iter().zip(ends).filter(|(_, end)| end["status"] == "confirmed") {
        let tickets = platform.get(token, &format!("/v1/bookings/{}/tickets", text(&end["id"]))).await;
        let tickets = tickets["items"].as_array().cloned().unwrap_or_default();
        assert_eq!(json!(tickets.len()), end["items"][0]["quantity"], "no half booking: {end}");
        for ticket in tickets {
            *seats.entry(text(&ticket["seat"])).or_default() += 1;
        }
    }
    seats
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_each_seat_is_sold_once_whoever_wants_it() {
    let platform = Platform::alone(&["--replicas", "2"]).await;
    let tokens = platform.customers(SEATS * EACH).await;
    let event = theatre(&platform).await;
    let booked = tokens.iter().enumerate().map(|(n, token)| {
        let (platform, event) = (&platform, &event);
        async move { sit(platform, token, &format!("seat-{n}"), event, &[seat(n % SEATS)]).await }
    });
    let ends = join_all(booked).await;
    let expected = [("confirmed".to_owned(), SEATS), ("failed seat_taken".to_owned(), SEATS * (EACH - 1))];
    assert_eq!(counted(&ends), BTreeMap::from(expected));
    let seats = taken(&platform, &tokens, &ends).await;
    assert_eq!((seats.len(), seats.values().copied().max()), (SEATS, Some(1)));
    assert_eq!(platform.available(&event.0).await, 0);
    assert_eq!(platform.charges().len(), SEATS);
    platform.audit().await;

    // Pairs in opposite order: whoever comes first gets both, nobody waits for another who waits for him.
    let event = theatre(&platform).await;
    let booked = tokens.iter().take(200).enumerate().map(|(n, token)| {
        let (platform, event, first) = (&platform, &event, n % 20 * 2);
        let mut pair = [seat(first), seat(first + 1)];
        if n % 2 == 1 {
            pair.reverse();
        }
        async move { sit(platform, token, &format!("pair-{n}"), event, &pair).await }
    });
    let ends = join_all(booked).await;
    assert_eq!(counted(&ends)["confirmed"], 20);
    let seats = taken(&platform, &tokens, &ends).await;
    assert_eq!((seats.len(), seats.values().copied().max()), (40, Some(1)));
    let log = platform.log("postgres.log");
    for word in ["deadlock detected", "lock timeout", "canceling statement"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
    platform.audit().await;
}
