//! The services behind the gateway, and what their answers and silences mean to a client.

use std::time::Duration;

use axum::http::StatusCode;
use eventicket_contracts::sagas::{Act, ActAnswer, BookingView, GetBooking, StartAnswer, StartSaga};
use eventicket_contracts::{codes, identity, subjects};
use eventicket_kit::{FieldError, Problem};
use eventicket_nats::{Nats, QueryError, QueryFailure, Starts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::reads::Reads;

/// The service that answers for users and tokens.
pub const IDENTITY: &str = identity::SERVICE;
/// The service that answers for events.
pub const EVENTS: &str = subjects::Service::EVENTS.name();
/// The service that answers for tickets and what is left.
pub const BOOKINGS: &str = subjects::Service::BOOKINGS.name();
/// The service that answers for sagas and bookings.
pub const ORCHESTRATOR: &str = "orchestrator";

/// How long a start or an action is waited for; the orchestrator drops a start that is older.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// When a failed request is worth another try.
const AGAIN: Duration = Duration::from_secs(1);

/// The way to the services. Empty only in tests of what needs no service.
pub struct Backend(Option<Way>);

struct Way {
    nats: Nats,
    starts: Starts,
    reads: Reads,
}

impl Backend {
    /// Over these connections, until shutdown.
    pub fn new(nats: Nats, shutdown: CancellationToken) -> Self {
        let (starts, reads) = (Starts::begin(nats.clone(), shutdown), Reads::begin(nats.clone()));
        Self(Some(Way { nats, starts, reads }))
    }

    /// Nobody answers.
    #[cfg(test)]
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Whether the broker is there.
    pub fn is_connected(&self) -> bool {
        self.0.as_ref().is_some_and(|way| way.nats.is_connected())
    }

    /// Asks a service, without a translation of failures.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        service: &str,
        name: &str,
        query: &impl Serialize,
    ) -> Result<A, QueryFailure> {
        let way = self.0.as_ref().ok_or(QueryFailure::Disconnected)?;
        way.nats.query(service, name, query).await
    }

    /// Asks a service for what changes nothing.
    pub async fn read<A: DeserializeOwned>(
        &self,
        service: &'static str,
        name: &str,
        query: &impl Serialize,
    ) -> Result<A, Problem> {
        self.ask(service, name, query).await.map_err(|failure| refused(service, failure, false))
    }

    /// Asks a service for a change: without an answer in time it may have happened.
    pub async fn write<A: DeserializeOwned>(
        &self,
        service: &'static str,
        name: &str,
        query: &impl Serialize,
    ) -> Result<A, Problem> {
        self.ask(service, name, query).await.map_err(|failure| refused(service, failure, true))
    }

    /// Reads a booking; `None` where there is none, or it is another customer's.
    pub async fn booking(&self, query: GetBooking) -> Result<Option<BookingView>, Problem> {
        let way = self.0.as_ref().ok_or_else(|| unavailable(ORCHESTRATOR))?;
        way.reads.booking(query).await.map_err(|failure| refused(ORCHESTRATOR, failure, false))
    }

    /// Starts a saga.
    pub async fn start(&self, start: &StartSaga) -> Result<StartAnswer, Problem> {
        let way = self.0.as_ref().ok_or_else(|| unavailable(ORCHESTRATOR))?;
        way.starts.start(start, PATIENCE).await.map_err(|failure| refused(ORCHESTRATOR, failure, true))
    }

    /// Cancels or signals a saga.
    pub async fn act(&self, act: &Act) -> Result<ActAnswer, Problem> {
        let way = self.0.as_ref().ok_or_else(|| unavailable(ORCHESTRATOR))?;
        let answer = way.nats.request(subjects::ACT, act, PATIENCE).await;
        answer.map_err(|failure| refused(ORCHESTRATOR, failure, true))
    }
}

/// 503: it may or may not have happened; a repeat with the same key finds out.
fn outcome_unknown() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "outcome-unknown",
        "No answer came in time; repeat the request with the same Idempotency-Key",
    )
    .with_retry_after(AGAIN)
}

fn unavailable(service: &str) -> Problem {
    Problem::unavailable(AGAIN).with_detail(format!("{service} does not answer"))
}

/// The fields at fault, as services put them into `details`: the list itself, or under `errors`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Fields {
    List(Vec<FieldError>),
    Under { errors: Vec<FieldError> },
}

fn refused(service: &str, failure: QueryFailure, changes: bool) -> Problem {
    match failure {
        QueryFailure::Refused(error) => translated(service, error),
        QueryFailure::NobodyAnswers | QueryFailure::Disconnected => unavailable(service),
        QueryFailure::TimedOut if changes => outcome_unknown(),
        QueryFailure::TimedOut => unavailable(service),
        QueryFailure::Malformed(error) => {
            tracing::error!(service, error, "an answer cannot be read");
            if changes { outcome_unknown() } else { Problem::internal() }
        }
    }
}

/// A service's refusal as clients see it. A code that is not named here is not one that a client can do anything about.
fn translated(service: &str, error: QueryError) -> Problem {
    let problem = |status, title: &str| Problem::new(status, &error.code, title).with_detail(&error.message);
    match error.code.as_str() {
        codes::VALIDATION => {
            let fields = error.details.and_then(|d| Fields::deserialize(d).ok());
            Problem::validation(match fields {
                Some(Fields::List(errors) | Fields::Under { errors }) => errors,
                None => Vec::new(),
            })
            .with_detail(error.message)
        }
        codes::EMAIL_TAKEN => problem(StatusCode::CONFLICT, "An account with this address exists"),
        codes::INVALID_CREDENTIALS => problem(StatusCode::UNAUTHORIZED, "E-mail address or password is wrong"),
        codes::INVALID_TOKEN => problem(StatusCode::UNAUTHORIZED, "The token does not hold"),
        codes::BUSY => busy(error.details.as_ref().and_then(wait)),
        codes::KEY_REUSED => key_reused(),
        codes::VERSION_CONFLICT => problem(StatusCode::PRECONDITION_FAILED, "It was changed since it was read"),
        codes::NOT_DRAFT
        | codes::NOT_PUBLISHED
        | codes::CHANGE_PENDING
        | codes::EVENT_CANCELLED
        | codes::EVENT_OVER
        | codes::SAGA_UNFINISHED => problem(StatusCode::CONFLICT, "Not possible in its state"),
        codes::UNAVAILABLE => unavailable(service).with_detail(error.message),
        _ => {
            tracing::error!(service, code = error.code, message = error.message, "a query was refused unexpectedly");
            Problem::internal()
        }
    }
}

/// The time to wait in a refusal's details.
fn wait(details: &Value) -> Option<Duration> {
    details["retry_after_ms"].as_u64().map(Duration::from_millis)
}

/// 429: not admitted now.
pub fn busy(after: Option<Duration>) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "Too much is going on; try again a little later")
        .with_retry_after(after.unwrap_or(AGAIN))
}

/// 422: the key came with another request before.
pub fn key_reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        "This Idempotency-Key was used with another request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(code: &str, details: Option<Value>) -> Problem {
        refused("x", QueryFailure::Refused(QueryError { code: code.into(), message: "m".into(), details }), true)
    }

    #[test]
    fn refusals_have_their_status() {
        for (code, status) in [
            ("email_taken", 409),
            ("invalid_credentials", 401),
            ("version_conflict", 412),
            ("not_draft", 409),
            ("not_published", 409),
            ("change_pending", 409),
            ("event_cancelled", 409),
            ("event_over", 409),
            ("saga_unfinished", 409),
            ("key_reused", 422),
            ("busy", 429),
            ("unavailable", 503),
            ("no such code", 500),
        ] {
            assert_eq!(refusal(code, None).status, status, "{code}");
        }
        assert_eq!(
            refusal("busy", Some(json!({"retry_after_ms": 2500}))).retry_after,
            Some(Duration::from_millis(2500))
        );
    }

    #[test]
    fn fields_at_fault_come_in_either_form() {
        let field = json!({"field": "title", "code": "required", "detail": "missing"});
        for details in [json!([field]), json!({"errors": [field]})] {
            assert_eq!(refusal("validation", Some(details)).errors[0].field, "title");
        }
        assert_eq!(refusal("validation", None).status, 422);
    }

    #[test]
    fn silence_leaves_the_outcome_of_a_change_unknown_and_of_a_read_not() {
        assert_eq!(refused("x", QueryFailure::TimedOut, true).code, "outcome-unknown");
        assert_eq!(refused("x", QueryFailure::TimedOut, false).code, "unavailable");
        for changes in [true, false] {
            assert_eq!(refused("x", QueryFailure::NobodyAnswers, changes).code, "unavailable");
        }
    }
}
