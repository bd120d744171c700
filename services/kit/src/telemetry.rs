//! Logs and traces of the process.

mod export;

use std::fs::File;
use std::io::IsTerminal;
use std::sync::Arc;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

/// `json` or `text`: the form of logs on standard error. Where it is not set, a terminal gets text.
const FORM: &str = "EVENTICKET_LOG";
/// What is logged where `RUST_LOG` says nothing.
const FILTER: &str = "info";

/// Sends what is left of the spans when it is dropped.
#[must_use = "spans are lost when it is dropped early"]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Sets up logs on standard error (JSON lines, or text on a terminal), traces by OTLP over HTTP where an endpoint is
/// set, metrics and TLS. `process` is the traces' service name. A second call changes nothing.
pub fn init(process: &str) -> Guard {
    set_up(process, None)
}

/// The same with the log as JSON lines in a file; standard error shows warnings and errors only, for people, and of the
/// quiet targets nothing but errors.
pub fn init_with_file(process: &str, log: File, quiet: &[&str]) -> Guard {
    let shown = Targets::new().with_default(LevelFilter::WARN);
    let shown = shown.with_targets(quiet.iter().map(|target| (*target, LevelFilter::ERROR)));
    set_up(process, Some((log, shown)))
}

fn set_up(process: &str, log: Option<(File, Targets)>) -> Guard {
    crate::tls::install();
    crate::prometheus::install();
    let (provider, failure) = match export::provider(process) {
        Ok(provider) => (provider, None),
        Err(error) => (None, Some(error)),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    // Fails only where a subscriber is set already, as in tests.
    let _ = Registry::default().with(filter).with(lines(log)).try_init();
    if let Some(error) = failure {
        tracing::error!(%error, "traces are not exported");
    }
    Guard(provider)
}

fn lines<S>(log: Option<(File, Targets)>) -> Box<dyn tracing_subscriber::Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    if let Some((log, shown)) = log {
        let people = fmt::layer().compact().without_time().with_target(false);
        let people = people.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
        let file = fmt::layer().json().flatten_event(true).with_writer(Arc::new(log));
        file.and_then(people.with_filter(shown)).boxed()
    } else if is_text(std::env::var(FORM).ok().as_deref(), std::io::stderr().is_terminal()) {
        fmt::layer().with_writer(std::io::stderr).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
    }
}

/// Whether people read the log.
fn is_text(form: Option<&str>, terminal: bool) -> bool {
    match form {
        Some("text") => true,
        Some("json") => false,
        _ => terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::is_text;

    #[test]
    fn the_form_that_is_asked_for_counts_and_else_a_terminal_gets_text() {
        assert!(is_text(Some("text"), false) && !is_text(Some("json"), true));
        assert!(is_text(None, true) && !is_text(None, false) && is_text(Some("xml"), true));
    }
}
