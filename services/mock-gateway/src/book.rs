//! All intents and refunds in memory, and what an operation does to them: pure, the ledger's [`Record`] is its result.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::form::Operation;
use crate::intents::{Intent, Refund, RefundStatus, Refusal, Settlement, Status, no_such_method};
use crate::ledger::{Confirms, Due, Event, Record};
use crate::settings::Settings;
use crate::tokens::{self, Behaviour, FLAWS, Fate};

/// The order of ids is the order of their making.
#[derive(Default)]
pub(crate) struct Book {
    intents: BTreeMap<String, Intent>,
    refunds: BTreeMap<String, Refund>,
    of_intent: HashMap<String, Vec<String>>,
    /// Ends that come by themselves, by time, with the id of what they end.
    due: BTreeSet<(i64, String)>,
    ends: HashMap<String, Due>,
    /// How often flaky rounds were confirmed.
    confirms: HashMap<String, u32>,
}

/// The world at the time of an operation.
pub(crate) struct Moment<'a> {
    /// Milliseconds since 1970.
    pub now: i64,
    pub settings: &'a Settings,
    /// The gateway's own address.
    pub base: &'a str,
    /// Whether anybody wants webhooks.
    pub webhooks: bool,
    /// What befalls every kind of change now.
    pub fate: Fate,
    /// Makes an id that begins with this.
    pub fresh: &'a dyn Fn(&str) -> String,
}

/// Ids of version 7: in their order they are in the order of their making.
pub(crate) fn fresh(kind: &str) -> String {
    format!("{kind}_{}", Uuid::now_v7().simple())
}

/// What an operation came to.
pub(crate) struct Outcome {
    pub record: Record,
    /// The connection is to be cut in the place of an answer.
    pub unheard: bool,
    /// The answer is stored under its key.
    pub stored: bool,
}

impl Book {
    /// Carries out an operation, or fails as it is fated to.
    pub fn apply(&mut self, operation: Operation, moment: &Moment<'_>) -> Outcome {
        let mut record = Record::at(moment.now);
        let fate = match moment.fate {
            Fate::Made => self.fate_of(&operation, &mut record),
            fate => fate,
        };
        if matches!(fate, Fate::Made | Fate::Unheard | Fate::FailedAfter)
            && let Err(refusal) = self.change(operation, moment, &mut record)
        {
            record.refuse(&refusal, moment.base);
        }
        if matches!(fate, Fate::Failed | Fate::FailedAfter | Fate::Unavailable) {
            record.status = if fate == Fate::Unavailable { 503 } else { 500 };
            record.error = Some(failure());
        }
        self.enter(record.clone());
        let (unheard, stored) =
            (matches!(fate, Fate::Cut | Fate::Unheard), !matches!(fate, Fate::Cut | Fate::Unavailable));
        Outcome { record, unheard, stored }
    }

    /// Takes over what a record says.
    pub fn enter(&mut self, record: Record) {
        if let Some(id) = record.id() {
            self.forget_due(id);
            if let Some(due) = record.due {
                self.due.insert((due.at, id.to_owned()));
                self.ends.insert(id.to_owned(), due);
            }
        }
        if let Some(intent) = record.intent {
            self.intents.insert(intent.id.clone(), intent);
        }
        if let Some(refund) = record.refund {
            let (id, intent) = (refund.id.clone(), refund.intent.clone());
            if self.refunds.insert(id.clone(), refund).is_none() {
                self.of_intent.entry(intent).or_default().push(id);
            }
        }
        if let Some(Confirms { round, count }) = record.confirms {
            self.confirms.insert(round, count);
        }
    }

    fn forget_due(&mut self, id: &str) -> Option<Due> {
        let due = self.ends.remove(id)?;
        self.due.remove(&(due.at, id.to_owned()));
        Some(due)
    }

    /// All there is, in the order of ids.
    pub fn all(&self) -> (impl Iterator<Item = &Intent>, impl Iterator<Item = &Refund>) {
        (self.intents.values(), self.refunds.values())
    }

    /// When the next end comes.
    pub fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The operation of an end that has come; it is told once.
    pub fn take_due(&mut self, now: i64) -> Option<Operation> {
        let (_, id) = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        let due = self.forget_due(&id)?;
        Some(Operation::Settle { id, end: due.end })
    }

    /// How long a confirm with a slow payment method takes.
    pub fn is_slow(&self, operation: &Operation) -> bool {
        let Operation::Confirm { intent, method } = operation else { return false };
        self.intents.get(intent).is_some_and(|intent| {
            intent.is_open() && matches!(intent.method(method.as_deref()), Ok((_, Behaviour::SucceedsSlowly)))
        })
    }

    /// What the payment method has in store for its confirm.
    fn fate_of(&self, operation: &Operation, record: &mut Record) -> Fate {
        let Operation::Confirm { intent, method } = operation else { return Fate::Made };
        let Some(intent) = self.intents.get(intent) else { return Fate::Made };
        match intent.method(method.as_deref()) {
            Ok((_, Behaviour::SucceedsUnheard)) if intent.is_open() => Fate::Unheard,
            Ok((_, Behaviour::Flaky(most))) => {
                let round = round(intent);
                let count = self.confirms.get(&round).copied().unwrap_or(0);
                if count >= most {
                    return Fate::Made;
                }
                record.confirms = Some(Confirms { round, count: count + 1 });
                FLAWS[count as usize % FLAWS.len()]
            }
            _ => Fate::Made,
        }
    }

    /// Writes into the record what changes.
    fn change(&self, operation: Operation, moment: &Moment<'_>, record: &mut Record) -> Result<(), Refusal> {
        let kinds: &[&str] = match operation {
            Operation::Create { amount, currency, description, metadata, method } => {
                let method_hash = method.as_deref().map(tokens::hash);
                if method_hash.as_deref().is_some_and(|hash| tokens::behaviour(hash).is_none()) {
                    return Err(no_such_method());
                }
                let created = record.at;
                let id = (moment.fresh)("pi");
                let intent = Intent::new(id, amount, currency, description, metadata, method_hash, created);
                record.intent = Some(intent);
                &[]
            }
            Operation::Confirm { intent, method } => {
                let mut intent = self.intent(&intent)?;
                if let Some(refusal) = intent.confirm(method.as_deref())? {
                    record.refuse(&refusal, moment.base);
                }
                if intent.status == Status::Processing {
                    record.due = Some(moment.due(moment.settings.settle_ms, Settlement::Succeeds));
                }
                let kinds = kinds_of(&intent);
                record.intent = Some(intent);
                kinds
            }
            Operation::Cancel { intent } => {
                let mut intent = self.intent(&intent)?;
                intent.cancel()?;
                record.intent = Some(intent);
                &["payment_intent.canceled"]
            }
            Operation::Refund { intent, amount, metadata } => {
                self.give_back(&intent, amount, metadata, moment, record)?;
                &["refund.created"]
            }
            Operation::Settle { id, end } => self.settle(&id, end, record)?,
        };
        if moment.webhooks {
            let event = |kind: &&str| Event { id: (moment.fresh)("evt"), kind: (*kind).to_owned() };
            record.events.extend(kinds.iter().map(event));
        }
        Ok(())
    }

    fn give_back(
        &self,
        intent: &str,
        amount: Option<i64>,
        metadata: BTreeMap<String, String>,
        moment: &Moment<'_>,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        let mut intent = self.intent(intent)?;
        if moment.settings.balance_insufficient {
            return Err(Refusal::invalid("balance_insufficient", "the balance does not cover the refund"));
        }
        let amount = intent.refund(amount)?;
        let (status, due) = match intent.behaviour() {
            Some(Behaviour::RefundsLater) => {
                let due = moment.due(moment.settings.refund_settle_ms, Settlement::Succeeds);
                (RefundStatus::Pending, Some(due))
            }
            Some(Behaviour::RefundFailsLater) => {
                let due = moment.due(moment.settings.refund_fail_ms, Settlement::Fails);
                (RefundStatus::Succeeded, Some(due))
            }
            _ => (RefundStatus::Succeeded, None),
        };
        record.due = due;
        record.refund = Some(Refund {
            id: (moment.fresh)("re"),
            intent: intent.id.clone(),
            amount,
            currency: intent.currency.clone(),
            status,
            metadata,
            created: record.at,
        });
        record.intent = Some(intent);
        Ok(())
    }

    fn settle(&self, id: &str, end: Settlement, record: &mut Record) -> Result<&'static [&'static str], Refusal> {
        let Some(refund) = self.refunds.get(id) else {
            let mut intent = self.intent(id)?;
            intent.settle(end)?;
            let kinds = kinds_of(&intent);
            record.intent = Some(intent);
            return Ok(kinds);
        };
        let mut refund = refund.clone();
        refund.settle(end)?;
        let failed = refund.status == RefundStatus::Failed;
        if failed {
            // The money is the merchant's again.
            let mut intent = self.intent(&refund.intent)?;
            intent.refunded -= refund.amount;
            record.intent = Some(intent);
        }
        record.refund = Some(refund);
        Ok(if failed { &["refund.updated", "refund.failed"] } else { &["refund.updated"] })
    }

    /// The intent of that id.
    pub fn intent(&self, id: &str) -> Result<Intent, Refusal> {
        self.intents.get(id).cloned().ok_or_else(|| Refusal::missing("payment intent"))
    }

    /// The newest intents, at most `limit` of them, and whether there are more.
    pub fn newest(&self, limit: usize) -> (Vec<Intent>, bool) {
        (self.intents.values().rev().take(limit).cloned().collect(), self.intents.len() > limit)
    }

    /// The refund of that id.
    pub fn refund(&self, id: &str) -> Result<Refund, Refusal> {
        self.refunds.get(id).cloned().ok_or_else(|| Refusal::missing("refund"))
    }

    /// All refunds of an intent, newest first.
    pub fn refunds_of(&self, intent: &str) -> Vec<Refund> {
        let ids = self.of_intent.get(intent).map(Vec::as_slice).unwrap_or_default();
        ids.iter().rev().filter_map(|id| self.refunds.get(id).cloned()).collect()
    }
}

impl Moment<'_> {
    fn due(&self, after_ms: u64, end: Settlement) -> Due {
        Due { at: self.now.saturating_add_unsigned(after_ms), end }
    }
}

/// The round that an intent is for, as its metadata names it.
fn round(intent: &Intent) -> String {
    let part = |name: &str| intent.metadata.get(name).map(String::as_str);
    match (part("saga"), part("step"), part("round")) {
        (Some(saga), Some(step), Some(round)) => format!("{saga}:{step}:{round}"),
        _ => intent.id.clone(),
    }
}

/// The webhooks that tell where an intent has come to.
fn kinds_of(intent: &Intent) -> &'static [&'static str] {
    match intent.status {
        Status::Succeeded => &["payment_intent.succeeded"],
        Status::Processing => &["payment_intent.processing"],
        Status::RequiresAction => &["payment_intent.requires_action"],
        Status::Canceled => &["payment_intent.canceled"],
        Status::RequiresPaymentMethod => &["payment_intent.payment_failed"],
        Status::RequiresConfirmation => &[],
    }
}

/// The gateway's own failure.
pub(crate) fn failure() -> Value {
    json!({ "error": { "type": "api_error", "message": "something went wrong on the gateway's side" } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment<'a>(now: i64, settings: &'a Settings) -> Moment<'a> {
        Moment { now, settings, base: "http://gate", webhooks: true, fate: Fate::Made, fresh: &fresh }
    }

    fn create(book: &mut Book, round: &str) -> String {
        let metadata = [("saga", "s"), ("step", "PAY"), ("round", round)];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let operation =
            Operation::Create { amount: 100, currency: "eur".into(), description: None, metadata, method: None };
        let outcome = book.apply(operation, &moment(1, &Settings::default()));
        outcome.record.intent.unwrap().id
    }

    fn confirm(book: &mut Book, intent: &str, token: &str) -> (u16, bool, bool, Status) {
        let operation = Operation::Confirm { intent: intent.to_owned(), method: Some(token.to_owned()) };
        let outcome = book.apply(operation, &moment(2, &Settings::default()));
        (outcome.record.status, outcome.unheard, outcome.stored, book.intents[intent].status)
    }

    #[test]
    fn a_flaky_round_fails_in_turn_over_all_its_intents() {
        use Status::{RequiresPaymentMethod as Open, Succeeded};
        let mut book = Book::default();
        let (first, second, other) = (create(&mut book, "1"), create(&mut book, "1"), create(&mut book, "2"));
        assert_eq!(confirm(&mut book, &first, "pm_card_flaky_5"), (200, true, false, Open), "cut before");
        assert_eq!(confirm(&mut book, &second, "pm_card_flaky_5"), (500, false, true, Open), "stored before");
        assert_eq!(confirm(&mut book, &first, "pm_card_flaky_5"), (500, false, true, Succeeded), "stored after");
        assert_eq!(confirm(&mut book, &second, "pm_card_flaky_5"), (503, false, false, Open), "not stored");
        assert_eq!(confirm(&mut book, &second, "pm_card_flaky_5"), (200, true, false, Open), "cut again");
        assert_eq!(confirm(&mut book, &second, "pm_card_flaky_5"), (200, false, true, Succeeded));
        assert_eq!(confirm(&mut book, &other, "pm_card_flaky_1"), (200, true, false, Open), "a round of its own");
    }

    #[test]
    fn ends_come_when_they_are_due_and_a_failed_refund_gives_the_money_back_to_the_merchant() {
        let mut book = Book::default();
        let settings = Settings { refund_fail_ms: 10, ..Settings::default() };
        let intent = create(&mut book, "1");
        confirm(&mut book, &intent, "pm_card_refund_fails_later");
        let refund = Operation::Refund { intent: intent.clone(), amount: None, metadata: BTreeMap::new() };
        let record = book.apply(refund, &moment(100, &settings)).record;
        assert_eq!((book.intents[&intent].refunded, record.events[0].kind.as_str()), (100, "refund.created"));
        assert_eq!((book.next_due(), book.take_due(109)), (Some(110), None));
        let end = book.take_due(110).unwrap();
        assert_eq!((book.take_due(110), book.next_due()), (None, None), "told once");
        let record = book.apply(end, &moment(110, &settings)).record;
        assert_eq!(record.refund.unwrap().status, RefundStatus::Failed);
        assert_eq!(book.intents[&intent].refunded, 0);
        assert_eq!(
            record.events.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(),
            ["refund.updated", "refund.failed"]
        );
    }
}
