//! Spans leave by OTLP over HTTP.

use eventicket_nats::trace::{Sampling, SpanId, TraceId, export, new_span_id, new_trace_id};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, Sampler, SdkTracerProvider};

/// Where spans go; without it none are exported. OpenTelemetry's own name, as are the others.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Which traces are kept, and which share of them.
const SAMPLER: [&str; 2] = ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"];

/// Exports the process's spans where an endpoint is set.
pub(super) fn provider(process: &str) -> Result<Option<SdkTracerProvider>, ExporterBuildError> {
    if !ENDPOINT.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder().with_service_name(process.to_owned()).build();
    // Spans are begun only where the edge, or a failure, has decided that they are kept.
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::AlwaysOn)
        .with_id_generator(Ids)
        .with_resource(resource)
        .build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    let [sampler, argument] = SAMPLER.map(|name| std::env::var(name).ok());
    export(Sampling::read(sampler.as_deref(), argument.as_deref()));
    Ok(Some(provider))
}

/// The runtime's own ids, some of which were told to others before their span began.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        new_trace_id()
    }

    fn new_span_id(&self) -> SpanId {
        new_span_id()
    }
}
