//! Subjects, streams, headers and the actions of each service: said here and nowhere else.

use uuid::Uuid;

/// A service that takes commands: its name and actions as they stand in subjects. The platform's own are its constants;
/// whoever builds on the runtime makes more with [`Service::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    name: &'static str,
    actions: &'static [&'static str],
}

impl Service {
    /// Capacity, holds, bookings, tickets.
    pub const BOOKINGS: Self = Self::new("bookings", &["reserve", "release", "confirm", "offer", FENCE]);
    /// Charges and refunds.
    pub const PAYMENTS: Self = Self::new("payments", &["charge", "refund", FENCE]);
    /// E-mail and its like.
    pub const NOTIFICATIONS: Self = Self::new("notifications", &["send", FENCE]);
    /// Events and their ticket types.
    pub const EVENTS: Self = Self::new("events", &["settle", FENCE]);

    /// Every service of the platform that takes commands.
    pub const ALL: [Self; 4] = [Self::BOOKINGS, Self::PAYMENTS, Self::NOTIFICATIONS, Self::EVENTS];

    /// A service of that name (lower case letters, digits and `_`) with these actions; any other is dead-lettered.
    pub const fn new(name: &'static str, actions: &'static [&'static str]) -> Self {
        Self { name, actions }
    }

    /// As it stands in subjects.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The actions that it takes; anything else is dead-lettered.
    pub const fn actions(self) -> &'static [&'static str] {
        self.actions
    }

    /// Shards of its command stream: one until a measurement asks for more.
    pub const fn shards(self) -> u32 {
        SHARDS
    }

    /// The platform's service of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Its work queue, as `CMD_BOOKINGS`.
    pub fn stream(self) -> String {
        command_stream(self.name)
    }

    /// All its commands, as `cmd.bookings.>`.
    pub fn commands(self) -> String {
        commands_of(self.name)
    }
}

impl AsRef<str> for Service {
    fn as_ref(&self) -> &str {
        self.name
    }
}

/// The action that every service of the platform has: it closes a round for good, see [`crate::envelope::Fence`].
pub const FENCE: &str = "fence";
/// Shards of a command stream.
pub const SHARDS: u32 = 1;
/// What the name of each command stream begins with.
const COMMAND_STREAM: &str = "CMD_";

/// The work queue of a service, as `CMD_BOOKINGS`.
pub fn command_stream(service: &str) -> String {
    format!("{COMMAND_STREAM}{}", service.to_ascii_uppercase())
}

/// The service whose work queue has this name.
pub fn service_of_stream(stream: &str) -> Option<String> {
    stream.strip_prefix(COMMAND_STREAM).map(str::to_ascii_lowercase)
}

/// All commands of a service, as `cmd.bookings.>`.
pub fn commands_of(service: &str) -> String {
    format!("cmd.{service}.>")
}

/// The subject of a command: `cmd.<service>.<action>.<shard>`.
pub fn command(service: impl AsRef<str>, action: &str, shard: u32) -> String {
    format!("cmd.{}.{action}.{shard}", service.as_ref())
}

/// The shard of an ordering key (the event's id) among `shards`.
pub fn shard_of(ordering_key: Uuid, shards: u32) -> u32 {
    // Version 7 ids carry their randomness in the low half.
    let (_, low) = ordering_key.as_u64_pair();
    u32::try_from(low % u64::from(shards.max(1))).unwrap_or(0)
}

/// The action and shard of a command's subject, `None` where the subject is not a command's.
pub fn parse_command(subject: &str) -> Option<(&str, &str, u32)> {
    let mut parts = subject.strip_prefix("cmd.")?.split('.');
    let (service, action, shard) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(())?;
    Some((service, action, shard.parse().ok()?))
}

/// The orchestrator's replies.
pub const REPLIES_STREAM: &str = "REPLIES";
/// All subjects of the replies.
pub const REPLIES: &str = "reply.>";

/// The subject of replies of a shard.
pub fn reply(shard: u32) -> String {
    format!("reply.{shard}")
}

/// Whether answers may go to this subject.
pub fn is_reply(subject: &str) -> bool {
    subject.strip_prefix("reply.").is_some_and(|shard| shard.parse::<u32>().is_ok())
}

/// What happened, kept for 7 days.
pub const EVENTS_STREAM: &str = "EVENTS";
/// All subjects of the events.
pub const EVENTS: &str = "evt.>";

/// The subject of an event: `evt.<aggregate>.<what>`.
pub fn event(aggregate: &str, what: &str) -> String {
    format!("evt.{aggregate}.{what}")
}

/// Messages that could not be handled.
pub const DEADLETTERS_STREAM: &str = "DEADLETTERS";
/// All subjects of the dead letters.
pub const DEADLETTERS: &str = "dead.>";

/// The subject of a dead letter: `dead.<service>.<action>`.
pub fn dead_letter(service: &str, action: &str) -> String {
    format!("dead.{service}.{action}")
}

/// The subject of a query: `qry.<service>.<name>`; each is an endpoint of a NATS micro service.
pub fn query(service: &str, name: &str) -> String {
    format!("qry.{service}.{name}")
}

/// Core NATS request that starts a saga; its answer comes after the commit.
pub const START: &str = "orc.start";
/// Core NATS request that acts on a saga.
pub const ACT: &str = "orc.act";
/// Core NATS broadcast of changes of status, [`crate::sagas::StatusChange`]s in an array.
pub const STATUS: &str = "orc.status";
/// Core NATS broadcast of how much is in flight, a [`crate::sagas::InFlight`].
pub const IN_FLIGHT: &str = "orc.in_flight";

/// Header with the subject that replies go to.
pub const HEADER_REPLY: &str = "Eventicket-Reply";
/// Header with the version of the envelope's schema.
pub const HEADER_SCHEMA: &str = "Eventicket-Schema";
/// W3C trace context.
pub const HEADER_TRACE: &str = "traceparent";
/// Header of a dead letter: why.
pub const HEADER_REASON: &str = "Eventicket-Reason";
/// Header of a dead letter: the subject it came on.
pub const HEADER_SUBJECT: &str = "Eventicket-Subject";
/// Header of a dead letter: first delivery, RFC 3339.
pub const HEADER_FIRST: &str = "Eventicket-First-Delivery";
/// Header of a dead letter: last delivery, RFC 3339.
pub const HEADER_LAST: &str = "Eventicket-Last-Delivery";
/// Header of a dead letter: number of deliveries.
pub const HEADER_DELIVERIES: &str = "Eventicket-Deliveries";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_subject_reads_as_it_is_written() {
        let subject = command(Service::BOOKINGS, "reserve", 0);
        assert_eq!(parse_command(&subject), Some(("bookings", "reserve", 0)));
        for bad in ["cmd.bookings.reserve", "cmd.bookings.reserve.x", "cmd.bookings.reserve.0.1", "reply.0"] {
            assert_eq!(parse_command(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_go_to_replies_only() {
        assert!(is_reply(&reply(0)) && is_reply(&reply(7)));
        for bad in ["", "reply", "reply.", "reply.>", "reply.0.1", "reply.a b", "cmd.bookings.reserve.0", "orc.act"] {
            assert!(!is_reply(bad), "{bad}");
        }
    }
}
