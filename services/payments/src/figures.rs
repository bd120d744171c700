//! What is counted and timed of calls to the payment gateway.

use std::time::Duration;

use eventicket_contracts::metrics::{CALL_SECONDS, CALLS};
use metrics::{Counter, Histogram, counter, histogram};

use crate::decide::Call;

/// The metrics of calls; those of the usual way are looked up once.
pub(crate) struct Figures {
    created: Usual,
    confirmed: Usual,
}

/// A call that brought what was asked for.
struct Usual {
    calls: Counter,
    seconds: Histogram,
}

/// The result of a call that brought what was asked for.
pub(crate) const OK: &str = "ok";

impl Figures {
    pub fn new() -> Self {
        Self { created: Usual::of(Call::Create), confirmed: Usual::of(Call::Confirm) }
    }

    /// Notes a call with its result and how long it took.
    pub fn note(&self, call: Call, result: &'static str, took: Duration) {
        let seconds = took.as_secs_f64();
        match call {
            Call::Create if result == OK => self.created.note(seconds),
            Call::Confirm if result == OK => self.confirmed.note(seconds),
            _ => {
                counter!(CALLS, "operation" => operation(call), "result" => result).increment(1);
                histogram!(CALL_SECONDS, "operation" => operation(call)).record(seconds);
            }
        }
    }
}

impl Usual {
    fn of(call: Call) -> Self {
        let operation = operation(call);
        let calls = counter!(CALLS, "operation" => operation, "result" => OK);
        Self { calls, seconds: histogram!(CALL_SECONDS, "operation" => operation) }
    }

    fn note(&self, seconds: f64) {
        self.calls.increment(1);
        self.seconds.record(seconds);
    }
}

/// As labels and spans name it.
pub(crate) fn operation(call: Call) -> &'static str {
    match call {
        Call::Create => "create",
        Call::Confirm => "confirm",
        Call::Read => "read",
        Call::Cancel => "cancel",
        Call::Refund => "refund",
        Call::ReadRefund => "read_refund",
        Call::FindRefund => "find_refund",
    }
}
