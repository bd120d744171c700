//! `payments.charge`: the row is committed here; the driver makes the calls, and the end is told when it is known.

use eventicket_contracts::codes;
use eventicket_contracts::envelope::Answer;
use eventicket_contracts::payments;
use eventicket_nats::{Delivered, Handled, decode};

use super::{Decision, Surroundings, asker, is_too_old};
use crate::charge::{Charge, State, Terms};
use crate::wire::method_invalid;

/// What is recorded comes first, then the deadline.
pub(super) fn decide(command: &Delivered, known: Option<&Charge>, surroundings: &Surroundings<'_>) -> Decision {
    let item = &command.item;
    if let Some(charge) = known {
        let told = charge.answer().filter(|answer| match answer {
            Answer::Pending(_) => false, // asked for at the gateway before it is told again
            // Of a row that was closed the undo or the fence tells the end: a saga must not take it for over before.
            Answer::Rejected(_) => !charge.state.is_due(),
            _ => true,
        });
        return Decision::unchanged(told.map_or(Handled::Later, Handled::Answer));
    }
    if item.deadline.is_some_and(|deadline| deadline < surroundings.now) {
        return Decision::unchanged(Handled::Answer(Answer::Expired));
    }
    if is_too_old(item.key.saga, surroundings.now) {
        // Not recorded: it will be so for ever.
        let message = "the saga is older than the records of charges";
        return Decision::unchanged(Handled::Answer(Answer::rejected(codes::TOO_OLD, message)));
    }
    if surroundings.is_full {
        return Decision::unchanged(Handled::Answer(Answer::Retry("too many charges are under way".to_owned())));
    }
    let payments::Charge { customer, amount, method, description } = match decode(item) {
        Ok(charge) => charge,
        Err(dead) => return Decision::unchanged(dead),
    };
    let opens = surroundings.seal.open(customer, &method).is_some();
    let terms = Terms { customer, amount, description, method: Some(method) };
    let charge =
        Charge { asker: Some(asker(command)), trace: item.trace.clone(), ..Charge::new(item.key.clone(), Some(terms)) };
    let charge = if amount.amount <= 0 {
        charge.rejected(State::Rejected, codes::PAYMENT_INVALID, "an amount above zero is needed")
    } else if !opens {
        let rejection = method_invalid();
        charge.rejected(State::Rejected, &rejection.code, rejection.message)
    } else {
        charge.next(State::Open)
    };
    let handled = charge.answer().map_or(Handled::Later, Handled::Answer);
    Decision { handled, write: Some(charge) }
}
