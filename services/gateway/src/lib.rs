//! The REST API: it authenticates, validates and translates; it holds no data of its own.
//!
//! A request passes [`edge`] (request id, span, metrics, panics), then [`admit`] (token, rate limit), then its endpoint
//! under [`v1`], which asks a service or the orchestrator over NATS through [`backend`]. Any number of replicas may run.

// A problem is built only to be answered at once; boxing it would gain nothing.
#![allow(clippy::result_large_err)]

mod admit;
mod app;
mod auth;
mod backend;
mod docs;
mod edge;
mod etag;
mod extract;
mod figures;
mod health;
mod idempotency;
mod jwks;
mod limits;
mod openapi;
mod paging;
mod prefer;
mod reads;
mod router;
mod status;
mod throttle;
mod trace;
mod v1;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use eventicket_kit::Context;
use eventicket_kit::http::bind_reuseport;
use eventicket_kit::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use openapi::openapi;

use crate::app::App;

/// How long requests that are under way at shutdown may take.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves the REST API on `settings.gateway_listen` until shutdown.
///
/// # Errors
/// The port is taken by another user's process or by one that does not share it; a key in the settings is malformed.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let address = ctx.settings.gateway_listen;
    let listener = bind_reuseport(address)
        .with_context(|| format!("the gateway cannot listen on {address}: the port is taken or not allowed"))?;
    let app = Arc::new(App::new(&ctx)?);
    tracing::info!(address = %listener.local_addr()?, "the gateway listens");

    let mut tasks = Tasks::new(ctx.shutdown.clone());
    tasks.spawn("requests", serve(listener, app.clone(), ctx.shutdown.clone()));
    tasks.spawn("status", endless(app.status.clone().follow(ctx.nats.clone(), ctx.shutdown.clone())));
    tasks.spawn("throttle", endless(app.throttle.clone().follow(ctx.nats.clone(), ctx.shutdown.clone())));
    let (keys, limits, shutdown) = (app.clone(), app, ctx.shutdown.clone());
    tasks.spawn("keys", endless(async move { keys.auth.keep_fresh(&keys.backend, shutdown).await }));
    tasks.spawn("limits", endless(async move { limits.limits.keep_small(ctx.shutdown).await }));
    tasks.join().await
}

async fn endless(part: impl Future<Output = ()>) -> Result<(), Infallible> {
    part.await;
    Ok(())
}

/// Serves until shutdown, then gives what is under way [`DRAIN`] to end.
async fn serve(listener: TcpListener, app: Arc<App>, shutdown: CancellationToken) -> std::io::Result<()> {
    // Answers are small and written at once: nothing is gained by waiting for more.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    });
    let service = router::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let cut = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = cut => {
            tracing::warn!("requests that were under way are cut");
            Ok(())
        }
    }
}
