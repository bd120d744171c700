//! What a saga's history and state must be like from one commit to the next.

use std::collections::BTreeMap;

use eventicket_orchestrator::runtime::row::Row;
use eventicket_saga::{Definition, Entry, Phase, Status, Undo, What};
use uuid::Uuid;

use crate::store::Journaled;

/// A broken invariant with what was found.
type Broken = Option<(&'static str, String)>;

/// Attempts of one round.
#[derive(Clone, Debug, Default)]
struct Attempts {
    most: u32,
    /// The publish of the last one was refused.
    refused: bool,
    undone: bool,
}

/// The rounds of all sagas.
#[derive(Debug, Default)]
pub(crate) struct Rounds(BTreeMap<(Uuid, String, u32), Attempts>);

impl Rounds {
    /// Looks at a saga that is about to be stored.
    pub fn look(&mut self, row: &Row, old: Option<&Journaled>, definition: &Definition) -> Broken {
        for (at, entry) in row.news.iter().enumerate() {
            let broken = self.attempts(row, entry).or_else(|| late_round(row, entry)).or_else(|| {
                let earlier = old.iter().flat_map(|old| &old.history).chain(&row.news[..at]);
                freed_while_paid(earlier, entry)
            });
            if broken.is_some() {
                return broken;
            }
        }
        went_back(row, old).or_else(|| no_timer(row, definition))
    }

    /// An attempt is spent by what is sent anew only; a repetition, and one whose publish was refused, spend none.
    fn attempts(&mut self, row: &Row, entry: &Entry) -> Broken {
        let step = entry.step.clone()?;
        let (round, attempt) = (entry.round.unwrap_or(1), entry.attempt.unwrap_or(1));
        let known = self.0.entry((row.id.0, step.clone(), round)).or_default();
        match entry.what {
            What::Dispatched => {
                let (expected, refused) = (if known.refused { known.most } else { known.most + 1 }, known.refused);
                known.refused = false;
                if attempt != expected {
                    let why = if refused { "a refused publish spends no attempt" } else { "a round begins once" };
                    return Some((why, format!("{step}:{round} is sent as attempt {attempt}, not {expected}")));
                }
                known.most = attempt;
            }
            What::Resent => {
                known.refused = false;
                if attempt > known.most && !known.undone {
                    let found = format!("{step}:{round} is sent again as attempt {attempt} of {}", known.most);
                    return Some(("a repetition spends no attempt", found));
                }
            }
            What::Pending => known.most = 1,
            What::Refused => known.refused = !known.undone,
            What::UndoDispatched => known.undone = true,
            _ => {}
        }
        None
    }
}

/// No round of PAY begins after the end of its hold.
fn late_round(row: &Row, entry: &Entry) -> Broken {
    let is_first = entry.what == What::Dispatched && entry.attempt.is_none() && entry.step.as_deref() == Some("PAY");
    let until = row.saga.steps.first().filter(|_| is_first)?.output.value()["hold_until"].as_i64()?;
    let late = entry.at > until;
    late.then(|| ("no PAY begins after its hold's end", format!("it does {} ms after it", entry.at - until)))
}

/// A hold is not given up for its end while it is paid.
fn freed_while_paid<'a>(earlier: impl Iterator<Item = &'a Entry>, entry: &Entry) -> Broken {
    if entry.what != What::Unwinding || entry.error.as_deref() != Some("hold_expired") {
        return None;
    }
    let (mut shields, mut sent, mut pending, mut over) = (None, false, false, false);
    for entry in earlier.filter(|entry| entry.step.as_deref() == Some("PAY")) {
        match entry.what {
            What::Dispatched if entry.attempt.is_none() => {
                (shields, sent, pending, over) = (Some(entry.what), true, false, false);
            }
            What::Dispatched | What::Resent | What::TimedOut | What::Retrying if sent && !pending => {
                shields = Some(entry.what);
            }
            What::Held if sent && !pending => shields = Some(entry.what),
            What::Done if !over => shields = Some(entry.what),
            What::Pending => (shields, pending) = (None, true),
            // Its first attempt was perhaps never stored.
            What::Refused => (shields, sent) = (None, sent && entry.attempt.is_some()),
            What::Rejected | What::Unknown | What::Dead | What::UndoDispatched | What::UndoHeld => {
                (shields, sent, over) = (None, false, true);
            }
            What::Undone | What::Replaced => (shields, sent, over) = (None, false, true),
            _ => {}
        }
    }
    shields.map(|what| ("no hold is given up while it is paid", format!("PAY was {what:?}")))
}

/// What is done stays done within its round.
fn went_back(row: &Row, old: Option<&Journaled>) -> Broken {
    let old = &old?.row.saga;
    for (at, (before, after)) in old.steps.iter().zip(&row.saga.steps).enumerate() {
        if before.status == Status::Done && before.round == after.round && after.status != Status::Done {
            let found = format!("step {at} of round {} is {:?}", after.round, after.status);
            return Some(("what is done stays done", found));
        }
    }
    None
}

/// Whatever is under way has a time at which it is looked at again, or is marked for an operator.
fn no_timer(row: &Row, definition: &Definition) -> Broken {
    let saga = &row.saga;
    if saga.ended() || !matches!(saga.phase, Phase::Forward | Phase::Unwinding) {
        return None;
    }
    for (at, step) in saga.steps.iter().enumerate() {
        let goes = saga.phase == Phase::Forward || definition.steps[at].on_unwinding;
        let effect = goes && matches!(step.status, Status::Sent(_) | Status::Backoff(_) | Status::Pending(_));
        let undo = matches!(step.undo, Undo::Sent(_) | Undo::Backoff(_) | Undo::Pending(_));
        let name = &definition.steps[at].name;
        let marked = saga.attention.iter().any(|mark| mark.step == *name);
        if (effect && step.undo == Undo::None || undo || step.fence.is_some()) && step.due().is_none() && !marked {
            return Some(("whatever is under way is asked for again", format!("{name} is {:?}", step.status)));
        }
    }
    None
}

/// What an entry tells of the service that was called: whether the call failed.
pub(crate) fn call(definition: &Definition, entry: &Entry) -> Option<(String, bool)> {
    let command = definition.command(definition.position(entry.step.as_deref()?)?)?;
    let undo = || command.undo.as_ref().map(|undo| undo.service.clone());
    match entry.what {
        What::TimedOut | What::Retrying => Some((command.call.service.clone(), true)),
        What::UndoTimedOut | What::UndoRetrying => Some((undo()?, true)),
        _ => None,
    }
}

/// An entry in few words.
pub(crate) fn shown(entry: &Entry) -> String {
    let part = |text: &Option<String>| text.as_ref().map(|text| format!(" {text}")).unwrap_or_default();
    let round = entry.round.map(|round| format!(" round {round}")).unwrap_or_default();
    format!("{:?}{}{round}{}", entry.what, part(&entry.step), part(&entry.error))
}
