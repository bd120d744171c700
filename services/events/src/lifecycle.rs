//! What becomes of an event: pure decisions, each over the event as it is stored.
//!
//! A draft changes at once. What bookings sells of an event that is, or was, on sale changes only once bookings accepts
//! it: the intended change stands beside the event, which shows what it showed, until it is settled.

use std::fmt;
use std::time::Duration;

use eventicket_contracts::events::{Event, EventDetails, EventState, NewTicketType, SaleChange, TicketType, Viewer};
use eventicket_contracts::{CustomerId, EventId, TicketTypeId, Timestamp, codes};
use eventicket_kit::FieldError;
use serde::{Deserialize, Serialize};

use crate::sale;
use crate::validation::{self, Before};

/// How long a change holds others off. Behind it, its saga may have ended without a word (an operator gave it up before it
/// asked bookings), and a further change takes its place: under a higher version, by which bookings knows the later one,
/// and of which the end of the former one, should it still come, is no end.
pub(crate) const PENDING_FOR: Duration = Duration::from_secs(60);

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// As it is shown.
    pub event: Event,
    /// What it becomes if bookings accepts; present just as long as `event.change` is under way.
    pub next: Option<Next>,
}

/// What an event becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Next {
    pub state: EventState,
    pub details: EventDetails<TicketType>,
}

/// What a request leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    /// It is so already, or on its way there.
    Nothing,
    /// It is so from now on.
    AtOnce(Box<Stored>),
    /// Bookings decides.
    Offered(Box<Stored>),
}

/// Why a change is refused.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// Fields that are not acceptable.
    Invalid(Vec<FieldError>),
    /// The version is not the one that was read.
    VersionConflict,
    /// It is no draft, or no longer.
    NotDraft,
    /// It is not on sale, and never was or never will be again.
    NotPublished,
    /// It will not take place.
    Cancelled,
    /// It has begun, or is over.
    Over,
    /// Bookings still decides on the last change.
    Pending,
}

impl Refusal {
    /// Its stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => codes::VALIDATION,
            Self::VersionConflict => codes::VERSION_CONFLICT,
            Self::NotDraft => codes::NOT_DRAFT,
            Self::NotPublished => codes::NOT_PUBLISHED,
            Self::Cancelled => codes::EVENT_CANCELLED,
            Self::Over => codes::EVENT_OVER,
            Self::Pending => codes::CHANGE_PENDING,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid(_) => "some fields are not valid",
            Self::VersionConflict => "the event was changed since it was read",
            Self::NotDraft => "the event is not a draft",
            Self::NotPublished => "the event is not on sale",
            Self::Cancelled => "the event was cancelled",
            Self::Over => "it is too late for that",
            Self::Pending => "the last change is not decided yet",
        })
    }
}

/// Whether the event is there for the viewer.
pub(crate) fn is_visible(event: &Event, viewer: Viewer) -> bool {
    !matches!(event.state, EventState::Draft | EventState::Publishing) || may_edit(event, viewer)
}

/// Whether the viewer may edit the event.
pub(crate) fn may_edit(event: &Event, viewer: Viewer) -> bool {
    match viewer {
        Viewer::Public => false,
        Viewer::Organizer(id) => event.organizer_id == id,
        Viewer::Admin => true,
    }
}

/// The event as the viewer sees it: what its organizer tried to change is nobody else's business.
pub(crate) fn seen(event: Event, viewer: Viewer) -> Event {
    if may_edit(&event, viewer) { event } else { Event { change: None, ..event } }
}

/// A new draft.
pub(crate) fn create(
    organizer: CustomerId,
    details: EventDetails<NewTicketType>,
    now: Timestamp,
) -> Result<Event, Refusal> {
    Ok(Event {
        id: EventId::fresh(),
        organizer_id: organizer,
        state: EventState::Draft,
        version: 1,
        change: None,
        details: accept(details, &Before::default(), now)?,
        created_at: now,
        updated_at: now,
    })
}

/// The event with other details. What bookings does not sell, as the description, changes at once in every state, also
/// when the event is over.
pub(crate) fn edit(
    stored: &Stored,
    version: i64,
    details: EventDetails<NewTicketType>,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let event = &stored.event;
    if event.state == EventState::Cancelled {
        return Err(Refusal::Cancelled);
    }
    check(stored, Some(version), now)?;
    let draft = event.state == EventState::Draft;
    let types: Vec<TicketTypeId> = event.details.ticket_types.iter().map(|kind| kind.id).collect();
    let times = (!draft).then_some((event.details.starts_at, event.details.ends_at));
    let details = accept(details, &Before { types: &types, times }, now)?;
    // A publication that was not heard of again goes on with what is written now.
    let state = if event.state == EventState::Publishing { EventState::Published } else { event.state };
    let next = Next { state, details };
    // Bookings may have accepted a change that was not heard of again: while it sells, it has to be asked.
    let is_known = stored.next.is_none() || event.details.ends_at <= now;
    if draft || (is_known && sale::is_same(event, &next)) {
        let change = event.change.clone().filter(|change| !draft && change.refused.is_some());
        let event =
            Event { version: event.version + 1, change, details: next.details, updated_at: now, ..event.clone() };
        return Ok(Decision::AtOnce(Box::new(Stored { event, next: None })));
    }
    if event.details.ends_at <= now {
        return Err(Refusal::Over);
    }
    Ok(offered(event, next, now))
}

/// Whether the event may be deleted.
pub(crate) fn delete(event: &Event, version: Option<i64>) -> Result<(), Refusal> {
    if event.state != EventState::Draft {
        return Err(Refusal::NotDraft);
    }
    check_version(event, version)
}

/// The event on sale: a draft before it begins, one that was taken off sale until it is over.
pub(crate) fn publish(stored: &Stored, version: Option<i64>, now: Timestamp) -> Result<Decision, Refusal> {
    let event = &stored.event;
    let last = match event.state {
        EventState::Cancelled => return Err(Refusal::Cancelled),
        EventState::Draft => event.details.starts_at,
        EventState::Publishing | EventState::Published | EventState::Stopped => event.details.ends_at,
    };
    turn(stored, EventState::Published, version, last, now)
}

/// The event off sale, for a while.
pub(crate) fn stop(stored: &Stored, version: Option<i64>, now: Timestamp) -> Result<Decision, Refusal> {
    let event = &stored.event;
    if matches!(event.state, EventState::Draft | EventState::Cancelled) {
        return Err(Refusal::NotPublished);
    }
    turn(stored, EventState::Stopped, version, event.details.ends_at, now)
}

/// The event off sale for good.
pub(crate) fn cancel(stored: &Stored, version: Option<i64>, now: Timestamp) -> Result<Decision, Refusal> {
    let event = &stored.event;
    if event.state == EventState::Draft {
        return Err(Refusal::NotPublished);
    }
    turn(stored, EventState::Cancelled, version, event.details.ends_at, now)
}

/// Another state by way of bookings; a repeat finds the first. From `last` on it is too late.
fn turn(
    stored: &Stored,
    to: EventState,
    version: Option<i64>,
    last: Timestamp,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let event = &stored.event;
    // One that was not heard of again is asked for anew, but not by a repeat of the request that led to it.
    let anew = is_overdue(stored, now) && check_version(event, version).is_ok();
    if stored.next.as_ref().map_or(event.state, |next| next.state) == to && !anew {
        return Ok(Decision::Nothing);
    }
    check(stored, version, now)?;
    if last <= now {
        return Err(Refusal::Over);
    }
    Ok(offered(event, Next { state: to, details: event.details.clone() }, now))
}

fn offered(event: &Event, next: Next, now: Timestamp) -> Decision {
    let version = event.version + 1;
    let state = if event.state == EventState::Draft { EventState::Publishing } else { event.state };
    let change = Some(SaleChange { version, refused: None });
    let event = Event { state, version, change, updated_at: now, ..event.clone() };
    Decision::Offered(Box::new(Stored { event, next: Some(next) }))
}

/// The end of a change of what is sold.
#[derive(Debug, PartialEq)]
pub(crate) struct Settled {
    /// The event as it is from now on.
    pub event: Event,
    /// What is told of it, as in `evt.event.published`.
    pub what: &'static str,
}

/// Ends the change that offered `version`; none where that is not under way.
pub(crate) fn settle(stored: Stored, version: i64, refused: Option<&str>, now: Timestamp) -> Option<Settled> {
    let Stored { event, next } = stored;
    let next = next.filter(|_| event.version == version)?;
    let event = Event { version: version + 1, updated_at: now, ..event };
    if let Some(code) = refused {
        let change = Some(SaleChange { version, refused: Some(code.to_owned()) });
        let state = if event.state == EventState::Publishing { EventState::Draft } else { event.state };
        return Some(Settled { event: Event { state, change, ..event }, what: "updated" });
    }
    let what = match next.state {
        EventState::Cancelled => "cancelled",
        EventState::Published if event.state != EventState::Published => "published",
        _ => "updated",
    };
    Some(Settled { event: Event { state: next.state, details: next.details, change: None, ..event }, what })
}

/// Nothing was changed since it was read, and nothing is under way that may be decided soon.
fn check(stored: &Stored, version: Option<i64>, now: Timestamp) -> Result<(), Refusal> {
    check_version(&stored.event, version)?;
    if stored.next.is_some() && !is_overdue(stored, now) { Err(Refusal::Pending) } else { Ok(()) }
}

/// Whether the change under way is so for longer than it holds others off; nothing else is written meanwhile.
fn is_overdue(stored: &Stored, now: Timestamp) -> bool {
    stored.next.is_some() && now.since(stored.event.updated_at) > PENDING_FOR
}

fn check_version(event: &Event, version: Option<i64>) -> Result<(), Refusal> {
    if version.is_some_and(|version| version != event.version) { Err(Refusal::VersionConflict) } else { Ok(()) }
}

/// Acceptable details, in which each ticket type has an id.
fn accept(
    details: EventDetails<NewTicketType>,
    before: &Before<'_>,
    now: Timestamp,
) -> Result<EventDetails<TicketType>, Refusal> {
    let errors = validation::check(&details, before, now);
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }
    let kind = |kind: NewTicketType| TicketType {
        id: kind.id.unwrap_or_else(TicketTypeId::fresh),
        name: kind.name,
        price: kind.price,
        quantity: kind.quantity,
        max_per_order: kind.max_per_order,
        seats: kind.seats,
    };
    Ok(EventDetails {
        title: details.title,
        description: details.description,
        category: details.category,
        starts_at: details.starts_at,
        ends_at: details.ends_at,
        timezone: details.timezone,
        venue: details.venue,
        ticket_types: details.ticket_types.into_iter().map(kind).collect(),
        hold_seconds: details.hold_seconds,
        max_per_customer: details.max_per_customer,
    })
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
