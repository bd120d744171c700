//! A booking of four steps on Restate, whose services do nothing: `serve` is its services, `load` calls it. The script `run`
//! beside it compares it with the platform.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use restate_sdk::prelude::*;
use tokio::task::JoinSet;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the booking and its services.
    Serve {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Books for some time and prints how many bookings completed in a second.
    Load {
        /// Restate's ingress.
        #[arg(long)]
        url: String,
        /// Bookings under way at a time.
        #[arg(long, default_value_t = 256)]
        customers: usize,
        /// Seconds.
        #[arg(long, default_value_t = 20)]
        duration: u64,
    },
}

/// Its four services in one: a call is a call.
struct Shop;

#[service]
impl Shop {
    #[handler]
    async fn step(&self, _: Context<'_>, booking: String) -> HandlerResult<String> {
        Ok(booking)
    }
}

/// The saga; nothing of it fails, so that it needs no compensations here.
struct Booking;

#[service]
impl Booking {
    #[handler]
    async fn book(&self, ctx: Context<'_>, mut booking: String) -> HandlerResult<String> {
        for _step in ["reserve", "pay", "confirm", "notify"] {
            booking = ctx.service_client::<ShopClient>().step(booking).call().await?;
        }
        Ok(booking)
    }
}

async fn load(url: String, customers: usize, duration: Duration) -> anyhow::Result<()> {
    let (client, done) = (reqwest::Client::new(), Arc::new(AtomicU64::new(0)));
    let (url, began) = (format!("{url}/restate/call/Booking/book"), Instant::now());
    let mut tasks = JoinSet::new();
    for customer in 0..customers {
        let (client, done, url) = (client.clone(), done.clone(), url.clone());
        tasks.spawn(async move {
            for number in 0_u64.. {
                if began.elapsed() >= duration {
                    break;
                }
                let body = format!("\"{customer}-{number}\"");
                let request = client.post(&url).header("content-type", "application/json").body(body);
                request.send().await?.error_for_status()?;
                // Those under way at the end are not counted, as those at the beginning were not there yet.
                if began.elapsed() < duration {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    println!("{:.0}", done.load(Ordering::Relaxed) as f64 / duration.as_secs_f64());
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve { listen } => {
            let endpoint = Endpoint::builder().bind(Shop).bind(Booking).build();
            HttpServer::new(endpoint).listen_and_serve(listen).await;
            Ok(())
        }
        Command::Load { url, customers, duration } => load(url, customers, Duration::from_secs(duration)).await,
    }
}
