//! The promises, each a rule with a stable name. Pure: what was read goes in, what is wrong comes out.

use eventicket_bookings::audit::{HoldFigures, OverLimit, SeatFigures, TypeFigures};
use eventicket_contracts::notifications::BOOKING_CONFIRMED;
use eventicket_contracts::{Currency, Money, SagaId, Timestamp};
use eventicket_mock_gateway::ledger::{Intent, Status};
use eventicket_notifications::audit::Recorded;
use eventicket_payments::{ChargeRow, State};
use serde::Serialize;

use super::rule::Rule;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A promise is broken.
    Violation,
    /// Somebody should look.
    Warning,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Violation => "VIOLATION",
            Self::Warning => "warning",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Stable name of the rule.
    pub rule: &'static str,
    /// The saga, where it is about one.
    pub saga: Option<SagaId>,
    /// For people.
    pub detail: String,
}

/// How a saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Completed,
    Compensated,
    Abandoned,
}

/// What the journal says of a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaFacts {
    pub id: SagaId,
    pub booking: bool,
    /// `None` where it had not ended before the audit began.
    pub end: Option<End>,
    pub started_at: Timestamp,
    /// The frozen total and the number of tickets, once reserved.
    pub reserved: Option<(Money, u32)>,
    /// The mail was asked for, and the answer was yes.
    pub notified: bool,
    /// The same for the mail about the money.
    pub refund_told: bool,
    /// An operator said that the payment's undo was done by hand.
    pub resolved: bool,
    /// An operator skipped the payment, so that none is kept.
    pub skipped: bool,
    /// Steps with a mark for an operator, and why.
    pub attention: Vec<(String, String)>,
}

/// Everything that all services say of one saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub saga: SagaFacts,
    pub holds: Vec<HoldFigures>,
    pub tickets: i64,
    pub charges: Vec<ChargeRow>,
    pub intents: Vec<Intent>,
    pub deliveries: Vec<Recorded>,
    /// Sagas that the journal knows and that stand for refunds of its charges which failed, with how they ended.
    pub failed_refunds: Vec<(SagaId, Option<End>)>,
}

impl Case {
    /// Whether somebody looks after what the ledger shows of a charge without tickets, and what is said of it.
    fn looked_after(&self, charge: &ChargeRow) -> Option<String> {
        let saga = self.failed_refunds.iter().find(|(saga, _)| charge.failed_refund == Some(*saga));
        let resolved = || self.saga.resolved.then(|| "stands: an operator resolved it".to_owned());
        let told = |(saga, end): &(SagaId, Option<End>)| match end {
            None => format!("stands: saga {saga} stands for it"),
            Some(End::Completed) => format!("was given back by hand, says saga {saga}"),
            Some(End::Compensated | End::Abandoned) => format!("stands: saga {saga} was given up"),
        };
        saga.map(told).or_else(resolved)
    }

    /// What stands of its charges, but for refunds that failed and have a saga or an operator of their own.
    fn standing(&self) -> Vec<&Intent> {
        let kept = |state: State| matches!(state, State::Refunded | State::RefundFailed | State::RefundRefused);
        let ours = |intent: &Intent| {
            let charge = self.charges.iter().find(|c| c.intent.as_deref() == Some(&intent.id));
            let not_sold = |c: &&ChargeRow| kept(c.state) || self.saga.end != Some(End::Completed);
            charge.filter(not_sold).and_then(|c| self.looked_after(c)).is_some()
        };
        self.intents.iter().filter(|intent| stands(intent) > 0 && !ours(intent)).collect()
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub subject: String,
    pub reason: String,
    /// The saga and step of the item, where it can be read.
    pub round: Option<(SagaId, String)>,
}

/// The booking's step that tells of the money.
pub const REFUND_MAIL: &str = "REFUND_MAIL";
/// A saga that has not ended within this time is told, unless it is marked already.
const LONG: std::time::Duration = std::time::Duration::from_secs(3600);
/// Events leave the outbox much faster than this.
const OUTBOX: std::time::Duration = std::time::Duration::from_secs(60);

/// Collects findings about one saga.
struct Judge<'a> {
    saga: Option<SagaId>,
    found: &'a mut Vec<Finding>,
}

impl Judge<'_> {
    fn tell(&mut self, severity: Severity, rule: Rule, detail: String) {
        let about = self.saga.map(|saga| format!("saga {saga}: ")).unwrap_or_default();
        self.found.push(Finding { severity, rule: rule.name(), saga: self.saga, detail: about + &detail });
    }

    fn expect(&mut self, holds: bool, rule: Rule, detail: impl FnOnce() -> String) {
        if !holds {
            self.tell(Severity::Violation, rule, detail());
        }
    }
}

/// Judges a saga with all that belongs to it.
pub fn judge(case: &Case, now: Timestamp, found: &mut Vec<Finding>) {
    let saga = &case.saga;
    let mut judge = Judge { saga: Some(saga.id), found };
    for (step, reason) in &saga.attention {
        judge.tell(Severity::Warning, Rule::Attention, format!("{step}: {reason}"));
    }
    let Some(end) = saga.end else {
        if now.since(saga.started_at) > LONG && saga.attention.is_empty() {
            judge.tell(Severity::Warning, Rule::SagaOverdue, format!("it runs since {}", saga.started_at));
        }
        return;
    };
    if saga.booking {
        let confirmed = end == End::Completed;
        holds(case, confirmed, &mut judge);
        money(case, confirmed, &mut judge);
        for charge in &case.charges {
            agreement(case, charge, end, &mut judge);
        }
        if confirmed {
            mail(case, &mut judge);
        } else if saga.refund_told {
            let told = case.deliveries.iter().any(|d| d.key.step == REFUND_MAIL);
            judge.expect(told, Rule::DeliveryMissing, || "no mail about its money was recorded".to_owned());
        }
    }
}

/// A booking is confirmed where its hold is, has as many tickets as were held, and leaves nothing held.
fn holds(case: &Case, confirmed: bool, judge: &mut Judge<'_>) {
    let in_state = |state: &str| case.holds.iter().filter(|hold| hold.state == state).collect::<Vec<_>>();
    let left = in_state("held").len();
    judge.expect(left == 0, Rule::HoldLeft, || format!("it has ended, and {left} hold(s) are still held"));
    let sold = in_state("confirmed");
    if !confirmed {
        judge.expect(sold.is_empty(), Rule::HoldConfirmedWithoutBooking, || "its hold is confirmed".to_owned());
        let tickets = case.tickets;
        judge.expect(tickets == 0, Rule::TicketsWithoutBooking, || format!("it has {tickets} ticket(s)"));
        return;
    }
    let [hold] = sold.as_slice() else {
        let number = sold.len();
        return judge.tell(
            Severity::Violation,
            Rule::BookingWithoutHold,
            format!("{number} of its holds are confirmed"),
        );
    };
    let Some((total, quantity)) = case.saga.reserved else {
        return judge.tell(Severity::Violation, Rule::BookingWithoutHold, "its saga reserved nothing".to_owned());
    };
    let agree = hold.total == Some(total) && hold.quantity == quantity;
    judge.expect(agree, Rule::HoldDiffers, || format!("{quantity} tickets for {total} are not what its hold says"));
    let tickets = case.tickets;
    let all = tickets == i64::from(quantity);
    judge.expect(all, Rule::TicketCount, || format!("it has {tickets} ticket(s) instead of {quantity}"));
}

/// Money stands in the gateway's ledger exactly where tickets were sold, once, and as much as they cost.
fn money(case: &Case, confirmed: bool, judge: &mut Judge<'_>) {
    let standing = case.standing();
    for charge in &case.charges {
        let intent = case.intents.iter().find(|i| charge.intent.as_ref() == Some(&i.id) && stands(i) > 0);
        let looked_after = case.looked_after(charge).filter(|_| !standing.iter().any(|i| Some(*i) == intent));
        if let Some((intent, what)) = intent.zip(looked_after) {
            let detail = format!("{} of {} {what}", money_standing(intent), intent.id);
            judge.tell(Severity::Warning, Rule::RefundByHand, detail);
        }
    }
    let sum: i64 = standing.iter().copied().map(stands).sum();
    judge.expect(standing.len() <= 1, Rule::DoubleCharge, || format!("{} charges stand", standing.len()));
    for intent in &case.intents {
        let sane = (0..=intent.amount).contains(&intent.refunded);
        judge.expect(sane, Rule::RefundBeyondCharge, || format!("{} of {}", intent.refunded, intent.amount));
    }
    if !confirmed {
        judge.expect(sum == 0, Rule::ChargeWithoutTickets, || format!("{sum} stand in the ledger without tickets"));
        return;
    }
    let Some((total, _)) = case.saga.reserved else { return };
    if total.amount == 0 {
        let none = case.intents.is_empty() && case.charges.is_empty();
        return judge.expect(none, Rule::FreeBookingCharged, || "it is free and has a charge".to_owned());
    }
    match standing.as_slice() {
        [] if case.saga.skipped => {
            judge.tell(Severity::Warning, Rule::ChargeSkipped, format!("an operator skipped the payment of {total}"));
        }
        [] => judge.tell(Severity::Violation, Rule::ChargeMissing, format!("{total} were never taken, or given back")),
        [only] => {
            let kept = !case.saga.skipped;
            judge.expect(kept, Rule::ChargeOfSkipped, || format!("{} stands, and its payment was skipped", only.id));
            let right = stands(only) == total.amount && same_currency(only, total);
            let money = money_standing(only);
            judge.expect(right, Rule::ChargeAmount, || format!("{money} stands instead of {total}"));
        }
        _ => {}
    }
}

/// What payments records of a charge is what the ledger says.
fn agreement(case: &Case, charge: &ChargeRow, end: End, judge: &mut Judge<'_>) {
    let round = charge.key.round;
    if charge.state.is_due() {
        let (state, abandoned) = (charge.state.name(), end == End::Abandoned);
        let severity = if abandoned { Severity::Warning } else { Severity::Violation };
        return judge.tell(severity, Rule::ChargeUnsettled, format!("its charge {round} is still {state}"));
    }
    let Some(id) = &charge.intent else {
        let nothing = matches!(charge.state, State::Rejected | State::Void | State::Tombstone);
        return judge.expect(nothing, Rule::ChargeDiffers, || format!("charge {round} is paid without an intent"));
    };
    let Some(intent) = case.intents.iter().find(|intent| intent.id == *id) else {
        return judge.tell(
            Severity::Violation,
            Rule::ChargeDiffers,
            format!("{id} of charge {round} is not in the ledger"),
        );
    };
    let agrees = match charge.state {
        State::Done => intent.status == Status::Succeeded && intent.refunded == 0,
        State::Refunded => intent.status == Status::Succeeded && intent.refunded == intent.amount,
        State::RefundFailed | State::RefundRefused => {
            intent.status == Status::Succeeded && case.looked_after(charge).is_some()
        }
        _ => intent.status == Status::Canceled,
    };
    let (state, status, refunded) = (charge.state.name(), intent.status, intent.refunded);
    judge.expect(agrees, Rule::ChargeDiffers, || {
        format!("charge {round} is {state}, and the ledger says {status:?} with {refunded} refunded of {id}")
    });
    let amount = charge.amount.is_none_or(|amount| amount.amount == intent.amount && same_currency(intent, amount));
    judge.expect(amount, Rule::ChargeDiffers, || format!("charge {round} is of another amount than {id}"));
}

/// The customer of a confirmed booking gets a mail.
fn mail(case: &Case, judge: &mut Judge<'_>) {
    match (case.deliveries.first(), case.saga.notified) {
        (None, true) => {
            judge.tell(Severity::Violation, Rule::DeliveryMissing, format!("no {BOOKING_CONFIRMED} was recorded"));
        }
        (None, false) => {
            judge.tell(Severity::Warning, Rule::MailGivenUp, "the saga gave up asking for its mail".to_owned());
        }
        (Some(_), _) => {
            let never = case.deliveries.iter().all(|delivery| matches!(delivery.state.as_str(), "failed" | "refused"));
            if never {
                judge.tell(Severity::Warning, Rule::MailGivenUp, "its mail could not be delivered".to_owned());
            }
        }
    }
}

/// What stands of an intent: taken and not given back, in minor units.
pub fn stands(intent: &Intent) -> i64 {
    if intent.status == Status::Succeeded { intent.amount - intent.refunded } else { 0 }
}

/// The same for people.
fn money_standing(intent: &Intent) -> String {
    let amount = stands(intent);
    match Currency::parse(&intent.currency.to_uppercase()) {
        Some(currency) => Money { amount, currency }.to_string(),
        None => format!("{amount} {} in minor units", intent.currency),
    }
}

fn same_currency(intent: &Intent, money: Money) -> bool {
    intent.currency.eq_ignore_ascii_case(money.currency.as_str())
}

/// Each counter tells the truth: quantity = available + held + sold, none below zero, a ticket for each place sold.
pub fn judge_types(types: &[TypeFigures], found: &mut Vec<Finding>) {
    let mut judge = Judge { saga: None, found };
    for t in types {
        let TypeFigures { event, ticket_type, quantity, available, held, confirmed, tickets } = t;
        let about = format!("type {ticket_type} of event {event}");
        let positive = [quantity, available, held, confirmed].into_iter().all(|n| *n >= 0);
        judge.expect(positive, Rule::CapacityNegative, || format!("{about}: a number is below zero"));
        judge.expect(*quantity == available + held + confirmed, Rule::CapacitySum, || {
            format!("{about}: {quantity} are not {available} available + {held} held + {confirmed} sold")
        });
        judge.expect(tickets == confirmed, Rule::CapacityTickets, || {
            format!("{about}: {tickets} ticket(s) for {confirmed} sold")
        });
    }
}

/// Each seat of the plan is free, or taken by the one hold that has it.
pub fn judge_seats(seats: &[SeatFigures], found: &mut Vec<Finding>) {
    let mut judge = Judge { saga: None, found };
    for s in seats {
        let SeatFigures { event, ticket_type, quantity, planned, taken, held, matched, confirmed, tickets } = s;
        judge.expect(s.is_sound(), Rule::SeatsDiffer, || {
            format!(
                "type {ticket_type} of event {event}: {planned} of {quantity} planned, {taken} taken, {matched} of them by \
                 the {held} that are held, {tickets} ticket(s) of {confirmed} sold"
            )
        });
    }
}

/// Customers with more than their limit.
pub fn judge_limits(over: &[OverLimit], found: &mut Vec<Finding>) {
    let mut judge = Judge { saga: None, found };
    for OverLimit { event, customer, tickets, limit } in over {
        let detail = format!("customer {customer} has {tickets} ticket(s) of event {event}, and may have {limit}");
        judge.tell(Severity::Violation, Rule::CustomerLimit, detail);
    }
}

/// Rows of a saga that the journal does not know; `money` is what stands of its charges.
pub fn judge_unknown(saga: SagaId, what: &str, money: i64, found: &mut Vec<Finding>) {
    let mut judge = Judge { saga: Some(saga), found };
    judge.tell(Severity::Violation, Rule::UnknownSaga, format!("the journal does not know it, and it has {what}"));
    judge.expect(money == 0, Rule::ChargeWithoutTickets, || format!("{money} stand in the ledger without tickets"));
}

/// A success in the ledger that names no saga.
pub fn judge_nobody(intent: &Intent, found: &mut Vec<Finding>) {
    let money = stands(intent);
    let id = &intent.id;
    Judge { saga: None, found }.expect(money == 0, Rule::ChargeWithoutTickets, || {
        format!("{} of {id} stands and belongs to no saga", money_standing(intent))
    });
}

/// A dead letter is a violation, unless its saga has ended, whatever came of it, or is marked for an operator at that
/// step: then it is the mark's cause.
pub fn judge_dead(letter: &DeadLetter, about: Option<&SagaFacts>, found: &mut Vec<Finding>) {
    let saga = letter.round.as_ref().map(|(saga, _)| *saga);
    let step = letter.round.as_ref().map_or("", |(_, step)| step.as_str());
    let marked = |saga: &SagaFacts| saga.end.is_some() || saga.attention.iter().any(|(at, _)| at == step);
    let severity = if about.is_some_and(marked) { Severity::Warning } else { Severity::Violation };
    Judge { saga, found }.tell(severity, Rule::DeadLetter, format!("{} {step}: {}", letter.subject, letter.reason));
}

/// Events that were committed and do not leave.
pub fn judge_outbox(service: &str, unsent: i64, oldest: Option<Timestamp>, now: Timestamp, found: &mut Vec<Finding>) {
    if oldest.is_some_and(|oldest| now.since(oldest) > OUTBOX) {
        let detail = format!("{service} has {unsent} message(s) of events that did not leave for a minute");
        Judge { saga: None, found }.tell(Severity::Warning, Rule::OutboxUnsent, detail);
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
