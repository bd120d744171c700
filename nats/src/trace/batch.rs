//! The spans of a batch of commands.

use super::span::{Span, Telling};
use super::traceparent::is_sampled;
use crate::command::Delivered;

/// One span for each command that is recorded, below its step, and one for the batch, linked to them.
pub(crate) struct BatchSpans {
    items: Vec<Option<Span>>,
    /// Ends with the others.
    _batch: Option<Span>,
}

impl BatchSpans {
    /// Begins them, and has what a command brings about stand below its span. `None`s only, and no cost, where nothing of
    /// the batch is recorded.
    pub(crate) fn begin(service: &'static str, batch: &mut [Delivered]) -> Self {
        if !batch.iter().any(|d| is_sampled(d.item.trace.as_deref())) {
            return Self { items: Vec::new(), _batch: None };
        }
        let items: Vec<Option<Span>> = batch.iter_mut().map(|delivered| command(service, delivered)).collect();
        let mut all = Span::linked("batch of commands", items.iter().flatten().map(Span::place));
        if let Some(all) = &mut all {
            all.set("eventicket.service", service);
            all.set("messaging.batch.message_count", i64::try_from(batch.len()).unwrap_or(i64::MAX));
        }
        Self { items, _batch: all }
    }

    /// The `traceparent` of an item's span.
    pub(crate) fn of(&self, at: usize) -> Option<String> {
        Some(self.items.get(at)?.as_ref()?.place().to_string())
    }

    /// Ends them; an item that failed has an error's text.
    pub(crate) fn end(mut self, failed: impl Fn(usize) -> Option<String>) {
        for (at, span) in self.items.iter_mut().enumerate() {
            if let (Some(span), Some(error)) = (span, failed(at)) {
                span.fail(error);
            }
        }
    }
}

fn command(service: &'static str, delivered: &mut Delivered) -> Option<Span> {
    let (item, action) = (&mut delivered.item, &delivered.action);
    let mut span = Span::below(item.trace.as_deref(), Telling::Consumer, || format!("{service}.{action}"))?;
    span.set("messaging.system", "nats");
    span.set("eventicket.saga", item.key.saga.to_string());
    span.set("eventicket.step", item.key.step.clone());
    span.set("eventicket.attempt", i64::from(item.attempt));
    item.trace = Some(span.place().to_string());
    Some(span)
}
