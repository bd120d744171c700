//! The process's metrics in Prometheus' text form.

use std::sync::OnceLock;
use std::time::Duration;

use eventicket_contracts::metrics::{self as names, Kind, Metric};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds of histograms of durations, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of histograms of numbers, as the items of a batch.
const NUMBERS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 2048.0];
/// Endings of their names.
const OF_NUMBERS: [&str; 2] = ["_items", "_inputs"];
/// How often samples are folded into their buckets, so that memory stays bounded where nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder that all metrics of the process go to; further calls change nothing.
pub fn install() {
    HANDLE.get_or_init(|| {
        let mut builder = PrometheusBuilder::new().set_buckets(&SECONDS).expect("the list of bounds is not empty");
        for ending in OF_NUMBERS {
            let matcher = Matcher::Suffix(ending.to_owned());
            builder = builder.set_buckets_for_metric(matcher, &NUMBERS).expect("the list of bounds is not empty");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Fails only where another recorder was installed first; that one then gets the metrics.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    });
}

/// Says what each metric tells.
fn describe() {
    for Metric { name, kind, help, .. } in names::ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
}

/// All metrics now, as `text/plain; version=0.0.4`; empty before [`install`].
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Keeps the recorder's memory bounded until shutdown; one a process.
pub async fn upkeep(shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}
