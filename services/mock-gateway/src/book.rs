//! All intents and refunds in memory, and what an operation does to them: pure, the ledger's [`Record`] is its result.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::form::Operation;
use crate::intents::{Intent, Refund, RefundStatus, Refusal, Status, no_such_method};
use crate::ledger::Record;
use crate::tokens;

/// Ids are of version 7: in their order they are in the order of their making.
#[derive(Default)]
pub(crate) struct Book {
    intents: BTreeMap<String, Intent>,
    refunds: BTreeMap<String, Refund>,
    of_intent: HashMap<String, Vec<String>>,
}

/// What an operation came to.
pub(crate) struct Outcome {
    pub record: Record,
    /// The answer is to be lost.
    pub unheard: bool,
}

impl Book {
    /// Carries out an operation.
    pub fn apply(&mut self, operation: Operation, now: i64) -> Outcome {
        let mut record = Record::at(now);
        let unheard = self.change(operation, &mut record).unwrap_or_else(|refusal| {
            record.refuse(&refusal);
            false
        });
        self.enter(&record);
        Outcome { record, unheard }
    }

    /// Takes over what a record says.
    pub fn enter(&mut self, record: &Record) {
        if let Some(intent) = &record.intent {
            self.intents.insert(intent.id.clone(), intent.clone());
        }
        if let Some(refund) = &record.refund
            && self.refunds.insert(refund.id.clone(), refund.clone()).is_none()
        {
            self.of_intent.entry(refund.intent.clone()).or_default().push(refund.id.clone());
        }
    }

    /// Writes into the record what changes; the result tells whether the answer is to be lost.
    fn change(&self, operation: Operation, record: &mut Record) -> Result<bool, Refusal> {
        match operation {
            Operation::Create { amount, currency, description, metadata, method } => {
                let method_hash = method.as_deref().map(tokens::hash);
                if method_hash.as_deref().is_some_and(|hash| tokens::behaviour(hash).is_none()) {
                    return Err(no_such_method());
                }
                let status =
                    if method.is_some() { Status::RequiresConfirmation } else { Status::RequiresPaymentMethod };
                let id = format!("pi_{}", Uuid::now_v7().simple());
                let (declined, refunded, created) = (None, 0, record.at);
                record.intent = Some(Intent {
                    id,
                    amount,
                    currency,
                    status,
                    metadata,
                    description,
                    method_hash,
                    declined,
                    refunded,
                    created,
                });
                Ok(false)
            }
            Operation::Confirm { intent, method } => {
                let mut intent = self.find(&intent)?;
                let confirmed = intent.confirm(method.as_deref())?;
                if let Some(refusal) = confirmed.declined {
                    record.refuse(&refusal);
                }
                record.intent = Some(intent);
                Ok(confirmed.unheard)
            }
            Operation::Cancel { intent } => {
                let mut intent = self.find(&intent)?;
                intent.cancel()?;
                record.intent = Some(intent);
                Ok(false)
            }
            Operation::Refund { intent, amount, metadata } => {
                let mut intent = self.find(&intent)?;
                let amount = intent.refund(amount)?;
                record.refund = Some(Refund {
                    id: format!("re_{}", Uuid::now_v7().simple()),
                    intent: intent.id.clone(),
                    amount,
                    currency: intent.currency.clone(),
                    status: RefundStatus::Succeeded,
                    metadata,
                    created: record.at,
                });
                record.intent = Some(intent);
                Ok(false)
            }
        }
    }

    fn find(&self, id: &str) -> Result<Intent, Refusal> {
        self.intents.get(id).cloned().ok_or_else(|| Refusal::missing("payment intent"))
    }

    /// The intent of that id.
    pub fn intent(&self, id: &str) -> Result<Intent, Refusal> {
        self.find(id)
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
