//! How many tickets customers have of events that limit it.

use std::collections::HashMap;

use eventicket_contracts::{CustomerId, EventId};

/// Tickets held or bought by those customers of a batch whose event has a limit.
#[derive(Debug, Default)]
pub(crate) struct Bought(HashMap<(EventId, CustomerId), u32>);

impl Bought {
    /// Adds a customer as read.
    pub fn add(&mut self, event: EventId, customer: CustomerId, tickets: u32) {
        self.0.insert((event, customer), tickets);
    }

    /// None where no order of the batch asks.
    pub fn of(&self, event: EventId, customer: CustomerId) -> Option<u32> {
        self.0.get(&(event, customer)).copied()
    }

    /// Follows a hold that begins or ends.
    pub fn shift(&mut self, event: EventId, customer: CustomerId, by: impl Fn(u32) -> u32) {
        if let Some(tickets) = self.0.get_mut(&(event, customer)) {
            *tickets = by(*tickets);
        }
    }
}
