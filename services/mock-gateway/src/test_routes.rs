//! What only tests ask for: settings, and ends of what takes time.

use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::form::Operation;
use crate::gateway::{Gateway, broken};
use crate::intents::{Refusal, Settlement};

/// What is given changes; all settings are answered, with the number of the ledger's syncs and of the webhooks that were
/// not taken yet.
pub(crate) async fn settings(gateway: &Gateway, body: &[u8]) -> Answer {
    let Ok(new) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return gateway.refused(&Refusal::invalid("parameter_invalid", "settings are an object of JSON"));
    };
    if !new.is_empty() {
        match gateway.set(new).await {
            Some(Ok(())) => {}
            Some(Err(message)) => return gateway.refused(&Refusal::invalid("parameter_invalid", message)),
            None => return broken(),
        }
    }
    let (settings, syncs, unsent) = gateway.figures();
    let mut body = serde_json::to_value(settings).unwrap_or_default();
    body["syncs"] = syncs.into();
    body["unsent_webhooks"] = unsent.into();
    Answer::ok(&body)
}

/// A refund, or an intent that is `processing` or `requires_action`, succeeds.
pub(crate) async fn succeed(gateway: &Gateway, id: &str) -> Answer {
    gateway.settle(Operation::Settle { id: id.to_owned(), end: Settlement::Succeeds }).await
}

/// The same, but it fails; a refund that has succeeded fails, too.
pub(crate) async fn fail(gateway: &Gateway, id: &str) -> Answer {
    gateway.settle(Operation::Settle { id: id.to_owned(), end: Settlement::Fails }).await
}
