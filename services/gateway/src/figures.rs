//! What is counted and timed of requests. The metrics of a route are looked up once, not for each request.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;
use eventicket_contracts::metrics as names;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Of a method at a route.
struct Route {
    seconds: Histogram,
    requests: HashMap<StatusCode, Counter>,
}

type Routes = HashMap<&'static str, HashMap<String, Route>>;

static ROUTES: LazyLock<RwLock<Routes>> = LazyLock::new(RwLock::default);
static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| gauge!(names::HTTP_IN_FLIGHT));
static RATE_LIMITED: LazyLock<Counter> = LazyLock::new(|| counter!(names::HTTP_RATE_LIMITED));

/// Counts a request as under way until it is dropped.
pub struct UnderWay;

impl UnderWay {
    /// Begins.
    pub fn begin() -> Self {
        IN_FLIGHT.increment(1.0);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        IN_FLIGHT.decrement(1.0);
    }
}

/// Notes a request that was refused by its rate.
pub fn rate_limited() {
    RATE_LIMITED.increment(1);
}

/// Notes a request with its answer; method and route are of bounded number.
pub fn answered(method: &'static str, route: &str, status: StatusCode, took: Duration) {
    let note = |route: &Route| {
        let Some(requests) = route.requests.get(&status) else { return false };
        requests.increment(1);
        route.seconds.record(took.as_secs_f64());
        true
    };
    let known = ROUTES.read().unwrap_or_else(PoisonError::into_inner);
    if known.get(method).and_then(|routes| routes.get(route)).is_some_and(note) {
        return;
    }
    drop(known);
    let mut routes = ROUTES.write().unwrap_or_else(PoisonError::into_inner);
    let of_route = routes.entry(method).or_default().entry(route.to_owned()).or_insert_with(|| Route {
        seconds: histogram!(names::HTTP_SECONDS, "method" => method, "route" => route.to_owned()),
        requests: HashMap::new(),
    });
    of_route.requests.entry(status).or_insert_with(|| {
        let (route, status) = (route.to_owned(), status.as_str().to_owned());
        counter!(names::HTTP_REQUESTS, "method" => method, "route" => route, "status" => status)
    });
    note(of_route);
}
