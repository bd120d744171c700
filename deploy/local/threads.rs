//! The threads of the platform's parts, where many run in one process.
//!
//! Each part has a runtime of its own. The kernel then shares the cores among them, so that thousands of requests at the
//! API's door never stand before the sagas under way, as they would in the queue of one runtime; and where a part needs
//! no more than one thread, its tasks wake each other without a word to another core.

use std::thread::{self, available_parallelism};

use anyhow::{Context as _, anyhow};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What tokio's own runtimes take their number of threads from.
pub const VARIABLE: &str = "TOKIO_WORKER_THREADS";

/// Threads of one part: half the cores, since parts share them.
pub fn number() -> usize {
    available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

/// Runs a part on threads of its own until it ends or is cut; yields how it ended.
///
/// # Errors
/// There are no more threads.
pub fn run(
    name: &str,
    part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    cut: CancellationToken,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let runtime = runtime(name).context("there are no more threads")?;
    let (tell, told) = oneshot::channel();
    let run = move || {
        // A task, so that its panic is an error.
        let ended = runtime.block_on(async { cut.run_until_cancelled(tokio::spawn(part)).await });
        let ended = match ended {
            Some(ended) => ended.unwrap_or_else(|panic| Err(anyhow!(panic).context("it panicked"))),
            None => Err(anyhow!("it was cut")),
        };
        runtime.shutdown_background();
        let _ = tell.send(ended); // nobody waits for what is cut
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).context("there are no more threads")?;
    Ok(told)
}

fn runtime(name: &str) -> std::io::Result<Runtime> {
    let mut builder = match number() {
        1 => Builder::new_current_thread(),
        more => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(more);
            builder
        }
    };
    builder.thread_name(name).enable_all().build()
}
