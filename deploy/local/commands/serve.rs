//! `eventicket serve`: one service, configured by the environment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use eventicket_kit::http::{bind_reuseport, serve_operations};
use eventicket_kit::{Context, Settings, telemetry};
use eventicket_nats::StreamLimits;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::fleet::{ledger, mails};
use crate::interrupts::Interrupts;
use crate::part::{self, Part};

/// How long it may take to finish what it holds, before it is cut.
const GRACE: Duration = Duration::from_secs(15);
/// Exit code after a second Ctrl-C, or when the grace was not enough.
const CUT: u8 = 130;

/// Run one service, configured by the environment
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which
    #[arg(value_enum)]
    service: Part,
    /// Folder of the mock payment gateway's ledger, or of the mailbox
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    supervised: bool,
}

/// Runs the service until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot start, or it failed.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen().context("signals cannot be taken")?;
    let _telemetry = telemetry::init(args.service.name());
    super::up::raise_open_files();
    let shutdown = CancellationToken::new();
    let serving = serve(&args, home, shutdown.clone());
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map(|()| ExitCode::SUCCESS),
        () = interrupts.next() => {}
        () = parent_gone(), if args.supervised => {}
    }
    shutdown.cancel();
    tokio::select! {
        ended = &mut serving => ended.map(|()| ExitCode::SUCCESS),
        () = interrupts.next() => std::process::exit(i32::from(CUT)),
        () = tokio::time::sleep(GRACE) => {
            tracing::error!("what was under way is cut");
            std::process::exit(i32::from(CUT))
        }
    }
}

async fn serve(args: &Args, home: &Path, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    tokio::spawn(eventicket_kit::prometheus::upkeep(shutdown.clone()));
    let data = |default| args.data.clone().unwrap_or(default);
    match args.service {
        Part::MockGateway => return part::mock_gateway(&settings, data(ledger(home)), shutdown).await,
        Part::Mailbox => return part::mailbox(&settings, data(mails(home)), shutdown).await,
        _ => {}
    }
    let metrics = settings.metrics_listen;
    let mut ctx = Context::connect(settings, args.service.name(), StreamLimits::default()).await?;
    ctx.shutdown = shutdown.clone();
    eventicket_nats::ensure_streams(&ctx.nats, &ctx.limits).await?;
    if let Some(address) = metrics {
        let listener = bind_reuseport(address).with_context(|| format!("metrics at {address}"))?;
        let nats = ctx.nats.clone();
        tokio::spawn(serve_operations(listener, Arc::new(move || nats.is_connected()), shutdown.clone()));
    }
    args.service.serve(ctx).await?;
    if !shutdown.is_cancelled() {
        bail!("{} ended before its time", args.service.name());
    }
    Ok(())
}

/// Returns when the pipe from the process that started this one closes. A thread reads it, which nobody waits for.
async fn parent_gone() {
    let (tell, told) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(tell);
    });
    let _ = told.await;
}
