//! The load generator: an open loop over kept-alive HTTP, with many customers.
//!
//! Each booking has an intended start, whatever became of those before it; its latency runs from there to the answer
//! `confirmed`. A generator that falls behind its own schedule says so.

pub mod client;
pub mod cpu;

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use client::Pool;

/// Answers that wait to be counted.
const OUTCOMES: usize = 65_536;
/// A schedule that is missed by more than this is the generator's fault.
const LATE: Duration = Duration::from_millis(10);

/// What is sent.
pub struct Plan {
    /// The gateway's address, as `127.0.0.1:8080`.
    pub gateway: String,
    /// Access tokens of the customers, taken in turn.
    pub tokens: Vec<String>,
    /// Event and ticket type of each booking, taken in turn.
    pub targets: Vec<(String, String)>,
    /// The payment method; none for free events.
    pub payment_method: Option<String>,
    /// Bookings a second.
    pub rate: u32,
    /// How long.
    pub duration: Duration,
    /// Most connections.
    pub connections: usize,
}

/// What came back.
pub struct Report {
    /// Latency of confirmed bookings from the intended start, microseconds.
    pub confirmed: Histogram<u64>,
    /// Answers by status of the booking, or `http_<status>`, or `failed`.
    pub outcomes: std::collections::BTreeMap<String, u64>,
    /// From the first intended start to the last answer.
    pub elapsed: Duration,
    /// Starts that left later than intended by more than the allowance.
    pub late: u64,
}

struct Outcome {
    name: String,
    latency: Duration,
    late: bool,
}

/// Sends the plan and waits for all answers.
///
/// # Errors
/// Only a histogram that cannot be made.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let plan = Arc::new(plan);
    let pool = Arc::new(Pool::new(plan.gateway.clone(), plan.connections));
    let (outcomes, mut counted) = mpsc::channel(OUTCOMES);
    let total = u64::from(plan.rate) * plan.duration.as_secs();
    let started = Instant::now();
    let sending = plan.clone();
    tokio::spawn(async move {
        let mut sent = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while sent < total {
            tick.tick().await;
            // The first one is due at once.
            let due = (started.elapsed().as_secs_f64() * f64::from(sending.rate)) as u64 + 1;
            while sent < due.min(total) {
                let intended = started + Duration::from_secs_f64(sent as f64 / f64::from(sending.rate));
                tokio::spawn(one(sending.clone(), pool.clone(), sent as usize, intended, outcomes.clone()));
                sent += 1;
            }
        }
    });
    let mut report = Report {
        confirmed: Histogram::new_with_bounds(1, 120_000_000, 3)?,
        outcomes: std::collections::BTreeMap::new(),
        elapsed: Duration::ZERO,
        late: 0,
    };
    let mut answered = 0;
    while answered < total {
        let Some(outcome) = counted.recv().await else { break };
        answered += 1;
        report.late += u64::from(outcome.late);
        if outcome.name == "confirmed" {
            report.confirmed.saturating_record(u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX));
        }
        *report.outcomes.entry(outcome.name).or_default() += 1;
    }
    report.elapsed = started.elapsed();
    Ok(report)
}

async fn one(plan: Arc<Plan>, pool: Arc<Pool>, number: usize, intended: Instant, outcomes: mpsc::Sender<Outcome>) {
    let late = intended.elapsed() > LATE;
    let (event, ticket_type) = &plan.targets[number % plan.targets.len()];
    let token = &plan.tokens[number % plan.tokens.len()];
    let mut body = json!({"event_id": event, "items": [{"ticket_type_id": ticket_type, "quantity": 1}]});
    if let Some(method) = &plan.payment_method {
        body["payment_method"] = Value::from(method.as_str());
    }
    let key = uuid::Uuid::new_v4().to_string();
    let answer = pool.book(token, &key, body.to_string()).await;
    let name = match answer {
        Ok((202, body)) => {
            let booking: Value = serde_json::from_slice(&body).unwrap_or_default();
            booking["status"].as_str().unwrap_or("unreadable").to_owned()
        }
        Ok((status, _)) => format!("http_{status}"),
        Err(_) => "failed".to_owned(),
    };
    let _ = outcomes.send(Outcome { name, latency: intended.elapsed(), late }).await;
}
