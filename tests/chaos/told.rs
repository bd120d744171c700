//! What a client was told of one booking, and what contradicts it.

use eventicket_contracts::BookingId;
use eventicket_contracts::sagas::{BookingStatus, BookingView, RefundStatus};

use crate::customers::Kind;

/// Everything that one client knows of its booking.
#[derive(Clone, Debug)]
pub struct Told {
    /// Counts bookings.
    pub number: u64,
    /// What its customer does.
    pub kind: Kind,
    /// As soon as it was accepted.
    pub id: Option<BookingId>,
    /// A payment method that succeeds was given for it, or may have been.
    pub good_card: bool,
    declined: bool,
    end: Option<BookingStatus>,
    /// What was contradicted.
    pub wrong: Vec<String>,
}

impl Told {
    /// Nothing yet.
    pub const fn nothing(number: u64, kind: Kind) -> Self {
        let good_card = kind.pays_at_once();
        Self { number, kind, id: None, good_card, declined: false, end: None, wrong: Vec::new() }
    }

    /// Whether this was an end, so that nothing else may follow.
    pub const fn end(&self) -> Option<BookingStatus> {
        self.end
    }

    /// Takes note of a booking as it was answered.
    pub fn hear(&mut self, booking: &BookingView) {
        let (id, status) = (booking.id, booking.status);
        match self.id {
            Some(known) if known != id => self.wrong.push(format!("it was {known}, and is {id} now")),
            _ => self.id = Some(id),
        }
        match self.end {
            Some(end) if end != status => self.wrong.push(format!("{} was told, then {}", end.name(), status.name())),
            _ => self.end = is_end(status).then_some(status),
        }
        self.declined |= booking.last_decline.is_some();
        if status == BookingStatus::Confirmed && !self.good_card {
            let card = if self.declined { "its only card was declined" } else { "it was never paid" };
            self.wrong.push(format!("confirmed, and {card}"));
        }
    }

    /// Takes note of an answer that nothing excuses.
    pub fn strange(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// The last look, when everything must have ended.
    pub fn at_last(&mut self, booking: Option<&BookingView>) {
        let Some(booking) = booking else {
            return self.wrong.push("accepted, and not found".to_owned());
        };
        self.hear(booking);
        if !has_ended(booking) {
            let (status, refund) = (booking.status.name(), booking.refund);
            self.wrong.push(format!("it has not ended: {status}, refund {refund:?}"));
        }
        let held = booking.lines.iter().map(|line| line.quantity).sum::<u32>();
        if booking.status == BookingStatus::Confirmed && held != self.kind.quantity() {
            self.wrong.push(format!("{held} tickets instead of {}", self.kind.quantity()));
        }
    }
}

/// Whether nothing will change any more.
pub fn has_ended(booking: &BookingView) -> bool {
    is_end(booking.status) && matches!(booking.refund, RefundStatus::None | RefundStatus::Done)
}

const fn is_end(status: BookingStatus) -> bool {
    !matches!(status, BookingStatus::Pending | BookingStatus::AwaitingPayment)
}

#[cfg(test)]
mod tests {
    use eventicket_contracts::{CustomerId, EventId, Timestamp};

    use super::*;

    fn booking(id: BookingId, status: BookingStatus) -> BookingView {
        BookingView {
            id,
            status,
            reason: None,
            event_id: EventId::fresh(),
            customer_id: CustomerId::fresh(),
            items: Vec::new(),
            lines: Vec::new(),
            total: None,
            hold_expires_at: None,
            next_action: None,
            last_decline: None,
            refund: RefundStatus::None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: 1,
        }
    }

    fn after(kind: Kind, statuses: &[BookingStatus]) -> Told {
        let (mut told, id) = (Told::nothing(1, kind), BookingId::fresh());
        statuses.iter().for_each(|status| told.hear(&booking(id, *status)));
        told
    }

    #[test]
    fn what_goes_on_is_no_contradiction() {
        use BookingStatus::{AwaitingPayment, Confirmed, Pending};
        let told = after(Kind::Card, &[Pending, AwaitingPayment, Pending, Confirmed, Confirmed]);
        assert_eq!((told.wrong.len(), told.end()), (0, Some(Confirmed)));
    }

    #[test]
    fn an_end_stays() {
        use BookingStatus::{AwaitingPayment, Cancelled, Confirmed, Failed, Pending};
        for pair in [[Confirmed, Failed], [Cancelled, Confirmed], [Failed, Pending], [Confirmed, AwaitingPayment]] {
            assert_eq!(after(Kind::Card, &pair).wrong.len(), 1, "{pair:?}");
        }
    }

    #[test]
    fn a_decline_is_a_decline_until_another_card_comes() {
        let mut declined = booking(BookingId::fresh(), BookingStatus::AwaitingPayment);
        declined.last_decline = Some("payment_declined".to_owned());
        let confirmed = BookingView { status: BookingStatus::Confirmed, ..declined.clone() };
        for (again, wrong) in [(false, vec!["confirmed, and its only card was declined"]), (true, vec![])] {
            let mut told = Told::nothing(1, Kind::Declined);
            told.hear(&declined);
            told.good_card |= again;
            told.hear(&confirmed);
            assert_eq!(told.wrong, wrong);
        }
    }

    #[test]
    fn nobody_gets_tickets_without_paying() {
        assert_eq!(after(Kind::Abandons, &[BookingStatus::Confirmed]).wrong, ["confirmed, and it was never paid"]);
    }

    #[test]
    fn a_key_is_one_booking() {
        let mut told = after(Kind::Card, &[BookingStatus::Pending]);
        told.hear(&booking(BookingId::fresh(), BookingStatus::Pending));
        assert!(told.wrong[0].contains("and is"), "{:?}", told.wrong);
    }

    #[test]
    fn at_last_it_is_there_has_ended_and_has_its_tickets() {
        let id = BookingId::fresh();
        let last = |found: Option<BookingView>| {
            let mut told = Told::nothing(1, Kind::Card);
            told.hear(&booking(id, BookingStatus::Pending));
            told.at_last(found.as_ref());
            told.wrong
        };
        assert_eq!(last(None), ["accepted, and not found"]);
        assert_eq!(last(Some(booking(id, BookingStatus::Failed))), [""; 0]);
        assert_eq!(last(Some(booking(id, BookingStatus::Pending))).len(), 1);
        assert_eq!(last(Some(booking(id, BookingStatus::Confirmed))), ["0 tickets instead of 1"]);
        let refund = RefundStatus::Pending;
        assert_eq!(last(Some(BookingView { refund, ..booking(id, BookingStatus::Failed) })).len(), 1);
    }
}
