//! How far behind a consumer is, told as metrics.

use std::time::Duration;

use eventicket_contracts::metrics as names;
use metrics::gauge;
use tokio_util::sync::CancellationToken;

use crate::Nats;
use crate::pull::ConsumerSpec;

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(5);

/// Asks again and again until shutdown; while it cannot be told, it stays as it was.
pub(crate) async fn watch(nats: Nats, spec: ConsumerSpec, shutdown: CancellationToken) {
    let labels = [("stream", spec.stream.clone()), ("consumer", spec.durable.clone())];
    let pending = gauge!(names::CONSUMER_PENDING, &labels);
    let unacknowledged = gauge!(names::CONSUMER_UNACKNOWLEDGED, &labels);
    loop {
        let consumer =
            nats.consuming().get_consumer_from_stream::<async_nats::jetstream::consumer::pull::Config, _, _>(
                spec.durable.as_str(),
                spec.stream.as_str(),
            );
        match consumer.await {
            Ok(consumer) => {
                let info = consumer.cached_info();
                pending.set(info.num_pending as f64);
                unacknowledged.set(info.num_ack_pending as f64);
            }
            Err(error) => tracing::debug!(stream = spec.stream, %error, "a consumer's lag cannot be told"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}
