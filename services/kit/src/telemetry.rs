//! Logs and traces of the process.

use std::fs::File;
use std::io::IsTerminal;
use std::sync::Arc;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

/// Where spans go; without it none are exported. OpenTelemetry's own name, as are the others.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Share of the traces that are kept, 0 to 1; all where it is not set.
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
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
/// set, W3C propagation, metrics and TLS. `process` is the traces' service name. A second call changes nothing.
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
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let (provider, failure) = match exporter(process) {
        Ok(provider) => (provider, None),
        Err(error) => (None, Some(error)),
    };
    let spans = provider.as_ref().map(|provider| {
        opentelemetry::global::set_tracer_provider(provider.clone());
        tracing_opentelemetry::layer().with_tracer(provider.tracer("eventicket"))
    });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    // Fails only where a subscriber is set already, as in tests.
    let _ = Registry::default().with(filter).with(spans).with(lines(log)).try_init();
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
    } else if std::io::stderr().is_terminal() {
        fmt::layer().with_writer(std::io::stderr).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
    }
}

fn exporter(process: &str) -> Result<Option<SdkTracerProvider>, opentelemetry_otlp::ExporterBuildError> {
    if !ENDPOINT.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
    let ratio = std::env::var(RATIO).ok();
    let resource = Resource::builder().with_service_name(process.to_owned()).build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler(ratio.as_deref()))
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

/// A trace that was begun elsewhere is kept where it was kept there.
fn sampler(ratio: Option<&str>) -> Sampler {
    let ratio = ratio.and_then(|text| text.parse::<f64>().ok()).filter(|r| (0.0..=1.0).contains(r)).unwrap_or(1.0);
    Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)))
}

#[cfg(test)]
mod tests {
    use super::sampler;

    #[test]
    fn the_ratio_is_read_and_nonsense_keeps_everything() {
        for (text, shown) in [(Some("0.25"), "0.25"), (None, "1.0"), (Some("2"), "1.0"), (Some("many"), "1.0")] {
            assert!(format!("{:?}", sampler(text)).contains(&format!("TraceIdRatioBased({shown})")), "{text:?}");
        }
    }
}
