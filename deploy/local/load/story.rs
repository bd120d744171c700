//! What a customer does: a booking with a good card as a rule, and the other ways that bookings go.
//!
//! [`Story::next`] is the whole behaviour, without IO: from the answer to what is asked for next.

use std::time::Duration;

use eventicket_contracts::sagas::BookingStatus;
use serde::{Deserialize, Serialize};

/// How long customers think before they go on.
const THINK: Duration = Duration::from_secs(2);
/// Between two looks at a booking that must end by itself.
const LOOK: Duration = Duration::from_secs(1);
/// Looks before it is given up: slow cards take 15 s, holds end within seconds of their time.
const LOOKS: u32 = 60;
/// How often an answer `pending` is asked for again; each of them waits ten seconds.
const REPEATS: u32 = 3;
/// From a hold's end to the first look at what became of it.
const AFTER_HOLD: Duration = Duration::from_secs(1);

/// A customer's way through a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One ticket, paid at once.
    Plain,
    /// Several tickets, paid at once.
    Several,
    /// The payment gateway charges, and its answer is lost.
    LostAnswer,
    /// A declined card, then a good one.
    Declined,
    /// A declined card, and nobody comes back.
    GivenUp,
    /// A payment method after a while.
    PaysLater,
    /// No payment method ever.
    Expires,
    /// Cancelled before it is paid.
    Cancels,
    /// A bank that takes seconds to settle.
    Settles,
    /// A payment gateway that takes longer than an attempt's time-out.
    Slow,
    /// Holds tickets without a payment method; nobody looks at it again.
    Waits,
}

/// What is asked of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `POST /v1/bookings`.
    Book,
    /// `POST /v1/bookings/{id}/payment` with a good card.
    Pay,
    /// `POST /v1/bookings/{id}/cancel`.
    Cancel,
    /// `GET /v1/bookings/{id}`.
    Look,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A booking with its status.
    Booking(BookingStatus),
    /// 429.
    Refused,
    /// 503.
    Unavailable,
    /// Any other status of HTTP, or a body that is no booking.
    Other(u16),
    /// The connection broke, or no answer came in time.
    Lost,
}

/// How a story goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Asks for something, so long after the answer.
    Ask(Request, Duration),
    /// Nothing more is asked for.
    End(Answer),
}

/// What follows the booking.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Act(Request),
    HoldEnd,
    Watch,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Several,
        Self::LostAnswer,
        Self::Declined,
        Self::GivenUp,
        Self::PaysLater,
        Self::Expires,
        Self::Cancels,
        Self::Settles,
        Self::Slow,
        Self::Waits,
    ];

    /// As the report calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Several => "several tickets",
            Self::LostAnswer => "lost answer",
            Self::Declined => "declined, then paid",
            Self::GivenUp => "declined, given up",
            Self::PaysLater => "pays later",
            Self::Expires => "expires",
            Self::Cancels => "cancels",
            Self::Settles => "slow bank",
            Self::Slow => "slow card",
            Self::Waits => "waits",
        }
    }

    /// The payment gateway's test token; none where the booking brings no payment method.
    pub const fn method(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::Several => Some("pm_card_visa"),
            Self::LostAnswer => Some("pm_card_lost_answer"),
            Self::Declined | Self::GivenUp => Some("pm_card_declined"),
            Self::Settles => Some("pm_card_processing"),
            Self::Slow => Some("pm_card_slow"),
            Self::PaysLater | Self::Expires | Self::Cancels | Self::Waits => None,
        }
    }

    /// Tickets of the `number`th booking.
    pub const fn quantity(self, number: u64) -> u8 {
        match self {
            Self::Several => 2 + (number % 3) as u8,
            _ => 1,
        }
    }

    /// How it must end.
    pub const fn expected(self) -> BookingStatus {
        match self {
            Self::GivenUp => BookingStatus::Failed,
            Self::Expires => BookingStatus::Expired,
            Self::Cancels => BookingStatus::Cancelled,
            Self::Waits => BookingStatus::AwaitingPayment,
            _ => BookingStatus::Confirmed,
        }
    }

    /// Whether its time from the intended start to `confirmed` is the platform's alone.
    pub const fn is_prompt(self) -> bool {
        matches!(self, Self::Plain | Self::Several)
    }

    const fn then(self) -> Then {
        match self {
            Self::Plain | Self::Several | Self::LostAnswer | Self::Waits => Then::Nothing,
            Self::Declined | Self::PaysLater => Then::Act(Request::Pay),
            Self::Cancels => Then::Act(Request::Cancel),
            Self::GivenUp | Self::Expires => Then::HoldEnd,
            Self::Settles | Self::Slow => Then::Watch,
        }
    }
}

/// A customer on the way.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// Which way.
    pub kind: Kind,
    /// What was asked for last.
    pub asked: Request,
    again: u32,
}

impl Story {
    /// At its beginning, where [`Request::Book`] is asked for.
    pub const fn new(kind: Kind) -> Self {
        Self { kind, asked: Request::Book, again: 0 }
    }

    /// Takes the answer to what was asked for last; `hold` is how long tickets are held.
    pub fn next(&mut self, answer: Answer, hold: Duration) -> Next {
        let next = self.decide(answer, hold);
        if let Next::Ask(request, _) = next {
            self.again = if request == self.asked { self.again + 1 } else { 0 };
            self.asked = request;
        }
        next
    }

    fn decide(&self, answer: Answer, hold: Duration) -> Next {
        use BookingStatus::{AwaitingPayment, Pending};
        let then = self.kind.then();
        match (self.asked, answer) {
            (Request::Book, Answer::Booking(Pending)) if then == Then::Watch => Next::Ask(Request::Look, LOOK),
            // The same key again: it finds the booking, and waits once more.
            (Request::Book, Answer::Booking(Pending)) => self.repeat(Duration::ZERO, REPEATS, answer),
            (Request::Book, Answer::Booking(AwaitingPayment)) => match then {
                Then::Nothing => Next::End(answer),
                Then::Act(request) => Next::Ask(request, THINK),
                Then::HoldEnd => Next::Ask(Request::Look, hold + AFTER_HOLD),
                Then::Watch => Next::Ask(Request::Look, LOOK),
            },
            (Request::Book, _) => Next::End(answer),
            // It was accepted, so its customer does not give up at once.
            (_, Answer::Refused | Answer::Unavailable | Answer::Lost) => self.repeat(LOOK, LOOKS, answer),
            (Request::Pay | Request::Cancel, Answer::Booking(Pending)) => Next::Ask(Request::Look, LOOK),
            (Request::Look, Answer::Booking(Pending | AwaitingPayment)) => self.repeat(LOOK, LOOKS, answer),
            _ => Next::End(answer),
        }
    }

    fn repeat(&self, after: Duration, most: u32, answer: Answer) -> Next {
        if self.again < most { Next::Ask(self.asked, after) } else { Next::End(answer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);

    /// What a platform without faults answers; it takes three looks for slow ways.
    fn well(story: &Story, looks: u32) -> Answer {
        use BookingStatus::{AwaitingPayment, Confirmed};
        let status = match (story.kind, story.asked) {
            (Kind::Plain | Kind::Several | Kind::LostAnswer, _) | (_, Request::Pay) => Confirmed,
            (kind, Request::Look) if looks >= 3 => kind.expected(),
            (kind, Request::Cancel) => kind.expected(),
            _ => AwaitingPayment,
        };
        Answer::Booking(status)
    }

    #[test]
    fn each_way_ends_as_it_must() {
        for kind in Kind::ALL {
            let (mut story, mut looks) = (Story::new(kind), 0);
            let end = loop {
                looks += u32::from(story.asked == Request::Look);
                match story.next(well(&story, looks), HOLD) {
                    Next::Ask(..) => {}
                    Next::End(answer) => break answer,
                }
            };
            assert_eq!(end, Answer::Booking(kind.expected()), "{kind:?}");
        }
    }

    #[test]
    fn every_answer_for_ever_ends_every_way() {
        use BookingStatus::{AwaitingPayment, Cancelled, Confirmed, Expired, Failed, Pending, Refunded};
        let bookings = [Pending, AwaitingPayment, Confirmed, Failed, Expired, Cancelled, Refunded].map(Answer::Booking);
        let others = [Answer::Refused, Answer::Unavailable, Answer::Other(500), Answer::Lost];
        for (kind, answer) in
            Kind::ALL.into_iter().flat_map(|k| bookings.into_iter().chain(others).map(move |a| (k, a)))
        {
            let mut story = Story::new(kind);
            let steps = (0..200).take_while(|_| matches!(story.next(answer, HOLD), Next::Ask(..))).count();
            assert!(steps < 200, "{kind:?} {answer:?}");
        }
    }

    #[test]
    fn a_refused_booking_is_not_tried_again_and_a_refused_payment_is() {
        assert_eq!(Story::new(Kind::Plain).next(Answer::Refused, HOLD), Next::End(Answer::Refused));
        let mut story = Story::new(Kind::PaysLater);
        let waits = Answer::Booking(BookingStatus::AwaitingPayment);
        assert_eq!(story.next(waits, HOLD), Next::Ask(Request::Pay, THINK));
        assert_eq!(story.next(Answer::Refused, HOLD), Next::Ask(Request::Pay, LOOK));
    }

    #[test]
    fn an_expiry_is_looked_at_after_the_hold() {
        let waits = Answer::Booking(BookingStatus::AwaitingPayment);
        let next = Story::new(Kind::Expires).next(waits, HOLD);
        assert_eq!(next, Next::Ask(Request::Look, HOLD + AFTER_HOLD));
    }
}
