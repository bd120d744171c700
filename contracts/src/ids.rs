//! Identifiers: UUIDs with a type each, so that one is never passed for another. New ones are version 7, which sort by time.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = uuid::Uuid, example = "01936f0e-8f4e-7cc2-9a56-0242ac120002")]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh identifier that sorts by the time of its making.
            pub fn fresh() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    )*};
}

id! {
    /// A saga; a booking's id is its saga's.
    SagaId,
    /// An event that is sold.
    EventId,
    /// A kind of ticket of one event.
    TicketTypeId,
    /// A user of the platform, whatever the role.
    CustomerId,
}

/// A booking is known by its saga's id.
pub type BookingId = SagaId;
