//! What a worker tells of its commands. Each metric is looked up once, not for each batch.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use eventicket_contracts::envelope::Answer;
use eventicket_contracts::metrics as names;
use eventicket_contracts::subjects::Service;
use metrics::{Counter, Histogram, counter, histogram};

use crate::command::{Delivered, Handled};

/// A worker's metrics.
pub(crate) struct Figures {
    service: &'static str,
    /// Of one batch.
    pub seconds: Histogram,
    /// Commands of one batch.
    pub items: Histogram,
    /// Batches that were tried again.
    pub retries: Counter,
    /// Batches that were halved.
    pub splits: Counter,
    commands: Mutex<HashMap<&'static str, Vec<(String, Counter)>>>,
}

impl Figures {
    pub fn new(service: Service) -> Self {
        let service = service.name();
        Self {
            service,
            seconds: histogram!(names::BATCH_SECONDS, "service" => service),
            items: histogram!(names::BATCH_ITEMS, "service" => service),
            retries: counter!(names::BATCH_RETRIES, "service" => service),
            splits: counter!(names::BATCH_SPLITS, "service" => service),
            commands: Mutex::default(),
        }
    }

    /// Counts a batch's commands by what became of them.
    pub fn count(&self, items: &[Delivered], handled: &[Handled]) {
        let mut counters = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        for (Delivered { action, .. }, handled) in items.iter().zip(handled) {
            let outcome = outcome(handled);
            // A service has a handful of actions.
            let of_outcome = counters.entry(outcome).or_default();
            let at = of_outcome.iter().position(|(known, _)| known == action).unwrap_or_else(|| {
                let service = self.service;
                let counter =
                    counter!(names::COMMANDS, "service" => service, "action" => action.clone(), "outcome" => outcome);
                of_outcome.push((action.clone(), counter));
                of_outcome.len() - 1
            });
            of_outcome[at].1.increment(1);
        }
    }
}

fn outcome(handled: &Handled) -> &'static str {
    match handled {
        Handled::Answer(Answer::Done(_)) => "done",
        Handled::Answer(Answer::Rejected(_)) => "rejected",
        Handled::Answer(Answer::Pending(_)) => "pending",
        Handled::Answer(Answer::Retry(_)) => "retry",
        Handled::Answer(Answer::Expired) => "expired",
        Handled::Dead(_) | Handled::Answer(Answer::Dead(_)) => "dead",
        Handled::Later => "later",
    }
}
