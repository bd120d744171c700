//! The metrics that processes tell, in Prometheus' conventions: base units, `_total` for counters, few values a label.
//! Dashboards and alerts rely on the names; `METRICS.md` beside this crate is generated from this list.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises while its process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often which values occurred.
    Histogram,
}

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things, as the name says.
    Count,
    /// Seconds.
    Seconds,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// The labels of each of its series.
    pub labels: &'static [&'static str],
    /// What it tells, in one line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// All of them, in the order in which the page has them.
        pub const ALL: &[Metric] = &[$(
            Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help },
        )*];
    };
}

metrics! {
    BUILD_INFO = Gauge Count "eventicket_build_info" ["version"] "1 in each process";

    HTTP_REQUESTS = Counter Count "eventicket_http_requests_total" ["method", "route", "status"]
        "Requests that were answered";
    HTTP_SECONDS = Histogram Seconds "eventicket_http_request_duration_seconds" ["method", "route"]
        "From a request's arrival to its answer, `Prefer: wait` included";
    HTTP_IN_FLIGHT = Gauge Count "eventicket_http_requests_in_flight" [] "Requests under way";
    HTTP_RATE_LIMITED = Counter Count "eventicket_http_rate_limited_total" [] "Requests that were answered 429 by a rate limit";

    COMMANDS = Counter Count "eventicket_commands_total" ["service", "action", "outcome"]
        "Commands that were handled; `later` is answered once its end is known";
    BATCH_SECONDS = Histogram Seconds "eventicket_command_batch_duration_seconds" ["service"]
        "One batch of commands in its transaction";
    BATCH_ITEMS = Histogram Count "eventicket_command_batch_items" ["service"] "Commands of one batch";
    BATCH_RETRIES = Counter Count "eventicket_command_batch_retries_total" ["service"]
        "Batches that were tried again because a dependency was away";
    BATCH_SPLITS = Counter Count "eventicket_command_batch_splits_total" ["service"]
        "Batches that were halved because something in them cannot be handled";
    DEAD_LETTERS = Counter Count "eventicket_dead_letters_total" ["service"] "Messages and items that were dead-lettered";
    QUERY_SECONDS = Histogram Seconds "eventicket_query_duration_seconds" ["query", "outcome"]
        "Queries that were answered, `refused` among them";
    CONSUMER_PENDING = Gauge Count "eventicket_consumer_pending_messages" ["stream", "consumer"]
        "Messages of a stream that its consumer has not been given";
    CONSUMER_UNACKNOWLEDGED = Gauge Count "eventicket_consumer_unacknowledged_messages" ["stream", "consumer"]
        "Messages that were given out and are not acknowledged";
    NATS_DROPPED = Counter Count "eventicket_nats_messages_dropped_total" []
        "Messages that a subscription had no room for";

    TURN_SECONDS = Histogram Seconds "eventicket_orchestrator_turn_duration_seconds" []
        "One turn: sagas read, changed, stored, followed up";
    TURN_INPUTS = Histogram Count "eventicket_orchestrator_turn_inputs" [] "Replies, starts, timers and actions of one turn";
    TIMERS = Gauge Count "eventicket_orchestrator_timers" [] "Sagas of this replica that wait for a time";
    HELD = Gauge Count "eventicket_orchestrator_held" [] "Sagas of this replica that wait for a breaker or for room";
    IN_FLIGHT = Gauge Count "eventicket_commands_in_flight" ["service"]
        "Commands sent whose end is not recorded, over all replicas";
    SAGAS_STARTED = Counter Count "eventicket_sagas_started_total" ["definition"] "Sagas that began";
    SAGAS_ENDED = Counter Count "eventicket_sagas_ended_total" ["definition", "state"] "Sagas that ended";
    SAGAS = Gauge Count "eventicket_sagas" ["definition", "state", "step"]
        "Sagas that have not ended; each replica tells of all";
    SAGAS_ATTENTION = Gauge Count "eventicket_sagas_attention" [] "Sagas marked for an operator; each replica tells of all";
    STEPS = Counter Count "eventicket_saga_steps_total" ["definition", "step", "outcome"]
        "What happened to steps: `done`, `rejected`, `unknown`, their undos, and what spends an attempt on the way";
    STEP_SECONDS = Histogram Seconds "eventicket_saga_step_duration_seconds" ["definition", "step"]
        "From the first dispatch of a step to its recorded end";
    BREAKERS = Gauge Count "eventicket_breaker_state" ["service", "state"] "1 at the state that a service's breaker has";
    TRACES_LOST = Counter Count "eventicket_traces_lost_total" []
        "Failed sagas outside of the sample whose spans were not recorded, since too many failed at once";

    CALLS = Counter Count "eventicket_payment_gateway_calls_total" ["operation", "result"] "Calls to the payment gateway";
    CALL_SECONDS = Histogram Seconds "eventicket_payment_gateway_call_duration_seconds" ["operation"]
        "One call to the payment gateway";
    WEBHOOKS = Counter Count "eventicket_payment_webhooks_total" ["result"] "Webhooks, by what they changed";
    HOLDS = Counter Count "eventicket_bookings_holds_total" ["outcome"] "Holds, by what became of them";
    MAILS_SENT = Counter Count "eventicket_mails_sent_total" [] "Mails handed to the mail server";
    MAILS_FAILED = Counter Count "eventicket_mails_failed_total" [] "Mails that were given up";
    MAILS_RETRIED = Counter Count "eventicket_mails_retried_total" [] "Tries that failed and are repeated";
    MAILS_WAITING = Gauge Count "eventicket_mails_waiting" [] "Mails that have not left; each replica tells of all";
    MAILS_OLDEST = Gauge Seconds "eventicket_mails_oldest_seconds" [] "Age of the oldest of them";

    CONNECTIONS = Gauge Count "eventicket_database_connections" ["database", "state"]
        "Connections of this process, `idle` or `used`";
    CONNECTIONS_MOST = Gauge Count "eventicket_database_connections_max" ["database"] "The most that it may have";
    ACQUIRE_SECONDS = Histogram Seconds "eventicket_database_acquire_duration_seconds" ["database"]
        "Until a connection is free, measured by a probe every few seconds";
}

/// The page that lists them, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `contracts/src/metrics.rs`; `UPDATE=1 cargo test -p eventicket-contracts metrics` \
         writes it anew. Each process tells, at `/metrics`, those of what it does.\n\n\
         | name | kind | unit | labels | what it tells |\n|---|---|---|---|---|\n",
    );
    for Metric { name, kind, unit, labels, help } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, unit) = (format!("{kind:?}").to_lowercase(), format!("{unit:?}").to_lowercase());
        page += &format!("| `{name}` | {kind} | {unit} | {} | {help} |\n", labels.join(", "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn metrics_are_named_by_the_conventions() {
        assert_eq!(ALL.iter().map(|metric| metric.name).collect::<HashSet<_>>().len(), ALL.len());
        for Metric { name, kind, unit, .. } in ALL {
            assert!(name.starts_with("eventicket_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
        }
    }

    #[test]
    fn the_page_of_metrics_is_this_list() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(file, page()).unwrap();
        }
        let page_on_disk = std::fs::read_to_string(file).unwrap_or_default();
        assert!(page_on_disk == page(), "METRICS.md is not of this list: UPDATE=1 writes it anew");
    }
}
