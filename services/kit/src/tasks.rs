//! The long-running parts of a service, which stop together.

use std::fmt::Display;

use anyhow::anyhow;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Parts that run until shutdown. Where one ends earlier, the others are stopped too and [`Tasks::join`] tells why.
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No parts yet. `shutdown` is cancelled by a part that ends before its time: give each service a child token where
    /// one's failure shall not stop the others.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { set: JoinSet::new(), shutdown }
    }

    /// Starts a part that ends after the shutdown that it was given.
    pub fn spawn<E: Display + Send + 'static>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.set.spawn(async move { (name, part.await.map_err(|error| anyhow!("{name}: {error:#}"))) });
    }

    /// Waits until all parts have ended; an error is the first part's that failed or ended before shutdown.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.set.join_next().await {
            let error = match ended {
                Ok((_, Ok(()))) if self.shutdown.is_cancelled() => continue,
                Ok((name, Ok(()))) => anyhow!("{name} ended before its time"),
                Ok((_, Err(error))) => error,
                Err(panic) => anyhow!("a part panicked: {panic}"),
            };
            self.shutdown.cancel();
            first = first.and(Err(error));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn one_failure_stops_all_and_is_told() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        let token = shutdown.clone();
        tasks.spawn("steady", async move {
            token.cancelled().await;
            Ok::<_, Infallible>(())
        });
        tasks.spawn("broken", async { Err("no more") });
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "broken: no more");
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn an_end_before_shutdown_is_a_failure_and_after_it_is_none() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("short", async { Ok::<_, Infallible>(()) });
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "short ended before its time");

        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let mut tasks = Tasks::new(shutdown);
        tasks.spawn("short", async { Ok::<_, Infallible>(()) });
        tasks.join().await.unwrap();
    }
}
