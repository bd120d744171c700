//! The names of the promises, and what each says; `eventicket audit --rules` lists them.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $rule:ident = $name:literal,)+) => {
        /// A promise of the platform.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule {
            $($(#[doc = $doc])+ $rule,)+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$rule),+];

            /// As it stands in findings.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$rule => $name,)+
                }
            }

            /// What it says, for people.
            pub const fn says(self) -> &'static str {
                match self {
                    $(Self::$rule => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

rules! {
    /// No saga waits for an operator
    Attention = "attention",
    /// A saga ends within the hour, or an operator knows of it
    SagaOverdue = "saga_overdue",
    /// Rows of services and intents of the ledger belong to sagas that the journal knows
    UnknownSaga = "unknown_saga",
    /// Nothing is held for a booking that has ended
    HoldLeft = "hold_left",
    /// A hold is confirmed only for a booking that is
    HoldConfirmedWithoutBooking = "hold_confirmed_without_booking",
    /// A confirmed booking has exactly one confirmed hold
    BookingWithoutHold = "booking_without_hold",
    /// The hold of a confirmed booking is of what its saga reserved
    HoldDiffers = "hold_differs",
    /// A confirmed booking has as many tickets as were held
    TicketCount = "ticket_count",
    /// There are tickets only for a booking that is confirmed
    TicketsWithoutBooking = "tickets_without_booking",
    /// A booking was charged at most once
    DoubleCharge = "double_charge",
    /// No more is given back than was taken
    RefundBeyondCharge = "refund_beyond_charge",
    /// No money is kept without tickets
    ChargeWithoutTickets = "charge_without_tickets",
    /// A free booking has no charge
    FreeBookingCharged = "free_booking_charged",
    /// What a confirmed booking costs was taken, and not given back
    ChargeMissing = "charge_missing",
    /// As much was taken as the booking costs
    ChargeAmount = "charge_amount",
    /// No operator skipped a payment
    ChargeSkipped = "charge_skipped",
    /// A payment that was skipped takes no money
    ChargeOfSkipped = "charge_of_skipped",
    /// No charge of a saga that has ended is under way
    ChargeUnsettled = "charge_unsettled",
    /// What payments records of a charge is what the ledger says
    ChargeDiffers = "charge_differs",
    /// No refund failed that a person has to make good
    RefundByHand = "refund_by_hand",
    /// A mail that a saga asked for is recorded
    DeliveryMissing = "delivery_missing",
    /// Mails reach their customers
    MailGivenUp = "mail_given_up",
    /// No number of tickets is below zero
    CapacityNegative = "capacity_negative",
    /// What exists is what is available, held and sold together
    CapacitySum = "capacity_sum",
    /// There is a ticket for each place that is sold
    CapacityTickets = "capacity_tickets",
    /// Each seat is free, or taken by the one hold that has it
    SeatsDiffer = "seats_differ",
    /// No customer has more tickets of an event than its limit
    CustomerLimit = "customer_limit",
    /// No message was given up
    DeadLetter = "dead_letter",
    /// Events are told within a minute
    OutboxUnsent = "outbox_unsent",
}
