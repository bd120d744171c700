//! The page on which a customer does what a payment asks for; `next_action` of its intent leads here.

use crate::answer::Answer;
use crate::form::Operation;
use crate::gateway::Gateway;
use crate::intents::{Intent, Settlement, Status};

/// Asks the customer. Nobody else knows an intent's id.
pub(crate) async fn show(gateway: &Gateway, id: &str) -> Answer {
    match gateway.intent(id).await {
        Some(intent) if intent.status == Status::RequiresAction => asks(&intent),
        Some(_) => page(200, "<p>There is nothing to do for this payment.</p>"),
        None => page(404, "<p>There is no such payment.</p>"),
    }
}

/// The customer pays.
pub(crate) async fn complete(gateway: &Gateway, id: &str) -> Answer {
    end(gateway, id, Settlement::Succeeds, "<p>Thank you: the payment is made. You can close this page.</p>").await
}

/// The customer refuses.
pub(crate) async fn fail(gateway: &Gateway, id: &str) -> Answer {
    end(gateway, id, Settlement::Fails, "<p>The payment was not made. You can close this page.</p>").await
}

async fn end(gateway: &Gateway, id: &str, end: Settlement, told: &str) -> Answer {
    let acts = gateway.intent(id).await.is_some_and(|intent| intent.status == Status::RequiresAction);
    if acts && gateway.settle(Operation::Settle { id: id.to_owned(), end }).await.status == 200 {
        page(200, told)
    } else {
        page(409, "<p>There is nothing to do for this payment any more.</p>")
    }
}

fn asks(intent: &Intent) -> Answer {
    let (id, currency) = (&intent.id, intent.currency.to_uppercase());
    let amount = format!("{}.{:02}", intent.amount / 100, intent.amount % 100);
    let body = format!(
        "<p>Do you want to pay {amount} {currency}?</p>
<form method=\"post\"><button formaction=\"/authenticate/{id}/complete\">Pay</button>
<button formaction=\"/authenticate/{id}/fail\">Refuse</button></form>"
    );
    page(200, &body)
}

fn page(status: u16, body: &str) -> Answer {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Test bank</title><h1>Test bank</h1>{body}</html>"
    );
    Answer::page(status, html)
}
