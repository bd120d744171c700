//! What becomes of an event: pure decisions, each over the event as it is stored.

use std::fmt;

use eventicket_contracts::bookings::{Offer, OfferedType};
use eventicket_contracts::events::{Event, EventDetails, EventState, NewTicketType, TicketType, Viewer};
use eventicket_contracts::{CustomerId, EventId, TicketTypeId, Timestamp, codes};
use eventicket_kit::FieldError;

use crate::validation;

/// Why a change is refused.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// Fields that are not acceptable.
    Invalid(Vec<FieldError>),
    /// The version is not the one that was read.
    VersionConflict,
    /// It is no draft, or no longer.
    NotDraft,
    /// It has begun.
    Over,
}

impl Refusal {
    /// Its stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => codes::VALIDATION,
            Self::VersionConflict => codes::VERSION_CONFLICT,
            Self::NotDraft => codes::NOT_DRAFT,
            Self::Over => codes::EVENT_OVER,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid(_) => "some fields are not valid",
            Self::VersionConflict => "the event was changed since it was read",
            Self::NotDraft => "the event is not a draft",
            Self::Over => "the event has begun",
        })
    }
}

/// Whether the event is there for the viewer.
pub(crate) fn is_visible(event: &Event, viewer: Viewer) -> bool {
    matches!(event.state, EventState::Published | EventState::Cancelled) || may_edit(event, viewer)
}

/// Whether the viewer may edit the event.
pub(crate) fn may_edit(event: &Event, viewer: Viewer) -> bool {
    match viewer {
        Viewer::Public => false,
        Viewer::Organizer(id) => event.organizer_id == id,
        Viewer::Admin => true,
    }
}

/// A new draft.
pub(crate) fn create(
    organizer: CustomerId,
    details: EventDetails<NewTicketType>,
    now: Timestamp,
) -> Result<Event, Refusal> {
    let details = accept(details, &[], now)?;
    let (id, state) = (EventId::fresh(), EventState::Draft);
    Ok(Event { id, organizer_id: organizer, state, version: 1, details, created_at: now, updated_at: now })
}

/// The draft with other details.
pub(crate) fn edit(
    event: &Event,
    version: i64,
    details: EventDetails<NewTicketType>,
    now: Timestamp,
) -> Result<Event, Refusal> {
    check_draft(event, Some(version))?;
    let known: Vec<_> = event.details.ticket_types.iter().map(|kind| kind.id).collect();
    let details = accept(details, &known, now)?;
    Ok(Event { version: event.version + 1, details, updated_at: now, ..event.clone() })
}

/// Whether the event may be deleted.
pub(crate) fn delete(event: &Event, version: Option<i64>) -> Result<(), Refusal> {
    check_draft(event, version)
}

/// The event with its publication under way; none where it is, or was, already.
pub(crate) fn publish(event: &Event, version: Option<i64>, now: Timestamp) -> Result<Option<Event>, Refusal> {
    if matches!(event.state, EventState::Publishing | EventState::Published) {
        return Ok(None);
    }
    check_draft(event, version)?;
    if event.details.starts_at <= now {
        return Err(Refusal::Over);
    }
    Ok(Some(moved(event, EventState::Publishing, now)))
}

/// The end of the publication that offered `version`.
#[derive(Debug, PartialEq)]
pub(crate) enum Settlement {
    /// The event as it is published now.
    Published(Box<Event>),
    /// It was settled before.
    Already,
    /// Another version is under way.
    Stale,
}

pub(crate) fn settle(event: &Event, version: i64, now: Timestamp) -> Settlement {
    match event.state {
        EventState::Publishing if event.version == version => {
            Settlement::Published(Box::new(moved(event, EventState::Published, now)))
        }
        EventState::Published if event.version == version + 1 => Settlement::Already,
        _ => Settlement::Stale,
    }
}

/// The draft again, whose publication was not accepted; none where it is not under way.
pub(crate) fn withdraw(event: &Event, now: Timestamp) -> Option<Event> {
    (event.state == EventState::Publishing).then(|| moved(event, EventState::Draft, now))
}

/// What bookings shall sell of it.
pub(crate) fn offer(event: &Event) -> Offer {
    let details = &event.details;
    let kind = |kind: &TicketType| OfferedType {
        id: kind.id,
        name: kind.name.clone(),
        price: kind.price,
        quantity: kind.quantity,
        max_per_order: kind.max_per_order,
    };
    Offer {
        event: event.id,
        version: event.version,
        title: details.title.clone(),
        starts_at: details.starts_at,
        ends_at: details.ends_at,
        on_sale: true,
        hold_seconds: details.hold_seconds,
        max_per_customer: details.max_per_customer,
        ticket_types: details.ticket_types.iter().map(kind).collect(),
    }
}

fn moved(event: &Event, state: EventState, now: Timestamp) -> Event {
    Event { state, version: event.version + 1, updated_at: now, ..event.clone() }
}

fn check_draft(event: &Event, version: Option<i64>) -> Result<(), Refusal> {
    if event.state != EventState::Draft {
        return Err(Refusal::NotDraft);
    }
    if version.is_some_and(|version| version != event.version) {
        return Err(Refusal::VersionConflict);
    }
    Ok(())
}

/// Acceptable details, in which each ticket type has an id.
fn accept(
    details: EventDetails<NewTicketType>,
    known: &[TicketTypeId],
    now: Timestamp,
) -> Result<EventDetails<TicketType>, Refusal> {
    let errors = validation::check(&details, known, now);
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }
    let kind = |kind: NewTicketType| TicketType {
        id: kind.id.unwrap_or_else(TicketTypeId::fresh),
        name: kind.name,
        price: kind.price,
        quantity: kind.quantity,
        max_per_order: kind.max_per_order,
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
