//! Waits for bookings' decision on a change of what is sold.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use eventicket_contracts::codes;
use eventicket_contracts::events::{Event, SaleChange, Viewer};
use eventicket_kit::Problem;
use tokio::time::Instant;

use crate::app::App;
use crate::etag;
use crate::prefer::Wait;

/// How long a decision is waited for where the request does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at it: such changes are few.
const LOOK: Duration = Duration::from_millis(50);

/// What is known of a change.
#[derive(Debug, PartialEq)]
enum Outcome {
    UnderWay,
    Accepted,
    Refused(String),
    /// It was decided, and another one has followed: what became of it can no longer be seen.
    Passed,
}

/// The answer to a request that led to this event: 200 where nothing is left to decide or bookings accepts, 409 where it
/// refuses, 202 where the decision does not come in time.
pub async fn decided(app: &App, event: Event, viewer: Viewer, wait: Wait) -> Result<Response, Problem> {
    let Some(version) = event.change.as_ref().filter(|change| change.refused.is_none()).map(|change| change.version)
    else {
        return Ok(answer(StatusCode::OK, &event, wait));
    };
    let mut event = event;
    let until = Instant::now() + wait.duration().unwrap_or(PATIENCE);
    loop {
        match outcome(&event, version) {
            Outcome::Accepted => return Ok(answer(StatusCode::OK, &event, wait)),
            Outcome::Refused(code) => return Err(refused(&code)),
            Outcome::UnderWay if Instant::now() < until => {}
            Outcome::UnderWay | Outcome::Passed => return Ok(answer(StatusCode::ACCEPTED, &event, wait)),
        }
        let woken = app.shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        match super::read(app, event.id, viewer).await {
            Ok(now) if woken.is_some() => event = now,
            // The request was accepted: that much is known.
            _ => return Ok(answer(StatusCode::ACCEPTED, &event, wait)),
        }
    }
}

/// What became of the change that was offered as `version`: its end is the next version.
fn outcome(event: &Event, version: i64) -> Outcome {
    match &event.change {
        Some(SaleChange { version: last, refused: None }) if *last == version => Outcome::UnderWay,
        Some(SaleChange { version: last, refused: Some(code) }) if *last == version => Outcome::Refused(code.clone()),
        None if event.version == version + 1 => Outcome::Accepted,
        _ => Outcome::Passed,
    }
}

fn answer(status: StatusCode, event: &Event, wait: Wait) -> Response {
    let mut response = etag::tagged(event.version, (status, Json(event)).into_response());
    wait.applied(response.headers_mut());
    response
}

/// 409 with the code of bookings' refusal.
fn refused(code: &str) -> Problem {
    let problem = Problem::new(StatusCode::CONFLICT, code, "What is sold cannot be changed so");
    match code {
        codes::BELOW_SOLD => problem.with_detail("tickets that would be taken away are held or sold"),
        codes::HAS_BOOKINGS => problem.with_detail("tickets are held or sold"),
        codes::EVENT_OVER => problem.with_detail("the event is over"),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_followed_to_its_own_end() {
        let event = |version, change: Option<(i64, Option<&str>)>| {
            let change = change.map(|(version, code)| SaleChange { version, refused: code.map(str::to_owned) });
            let event: Event = serde_json::from_value(super::super::example("published")).unwrap();
            Event { version, change, ..event }
        };
        let refused = || Outcome::Refused("below_sold".into());
        for (version, change, expected) in [
            (4, Some((4, None)), Outcome::UnderWay),
            (5, None, Outcome::Accepted),
            (5, Some((4, Some("below_sold"))), refused()),
            (6, Some((4, Some("below_sold"))), refused()),
            (6, Some((6, None)), Outcome::Passed),
            (7, Some((6, Some("below_sold"))), Outcome::Passed),
            (7, None, Outcome::Passed),
        ] {
            assert_eq!(outcome(&event(version, change), 4), expected, "{version} {change:?}");
        }
    }
}
