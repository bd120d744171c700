//! `eventicket load`: an open-loop load of bookings on the running platform, with latencies and CPU by process.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use eventicket_contracts::events::{Event, EventState};
use serde_json::{Value, json};

use crate::load::{self, Plan, Report, cpu};
use crate::platform::Platform;

/// Time from the publication of the load's events to their sale.
const PUBLISH: Duration = Duration::from_secs(30);
/// Most tickets of a load's event.
const QUANTITY: u32 = 10_000_000;

/// Send an open-loop load of bookings to the running platform
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bookings a second
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Seconds
    #[arg(long, default_value_t = 20)]
    duration: u64,
    /// Events that are booked in turn
    #[arg(long, default_value_t = 1)]
    events: u32,
    /// Customers that book in turn
    #[arg(long, default_value_t = 1_000)]
    customers: u32,
    /// Price of a ticket in cents; 0 is free
    #[arg(long, default_value_t = 4_200)]
    price: i64,
    /// Payment method of each booking
    #[arg(long, default_value = "pm_card_visa")]
    payment_method: String,
    /// Most connections
    #[arg(long, default_value_t = 4_000)]
    connections: usize,
    /// Figures as JSON
    #[arg(long)]
    json: bool,
}

/// Sends the load and prints what came of it.
///
/// # Errors
/// The platform does not run, or its events cannot be made.
pub async fn run(args: Args, home: &Path) -> anyhow::Result<ExitCode> {
    let platform = Platform::read(home)?;
    let settings = platform.settings(home)?;
    let tokens = eventicket_identity::load_customers(&settings, args.customers).await?;
    let targets = events(&platform.gateway_url, &args).await?;
    let gateway = platform.gateway_url.trim_start_matches("http://").to_owned();
    let plan = Plan {
        gateway,
        tokens,
        targets,
        payment_method: (args.price > 0).then(|| args.payment_method.clone()),
        rate: args.rate,
        duration: Duration::from_secs(args.duration),
        connections: args.connections,
    };
    let before = (cpu::seconds(), cpu::own());
    let report = load::run(plan).await?;
    let mut spent = cpu::since(&before.0);
    let own = cpu::own() - before.1;
    if let Some(all) = spent.get_mut("eventicket") {
        *all -= own;
    }
    spent.insert("load generator".into(), own);
    let figures = figures(&args, &report, &spent);
    crate::output::line(&if args.json { figures.to_string() } else { table(&figures) });
    Ok(ExitCode::SUCCESS)
}

/// Makes events of one ticket type each as the demo organizer, and waits until they are sold.
async fn events(gateway: &str, args: &Args) -> anyhow::Result<Vec<(String, String)>> {
    let http = reqwest::Client::new();
    let login = json!({"email": "organizer@demo.test", "password": "demo-password"});
    let login: Value = http.post(format!("{gateway}/v1/auth/login")).json(&login).send().await?.json().await?;
    let token = login["access_token"].as_str().context("the demo organizer cannot log in")?;
    let mut targets = Vec::new();
    for number in 0..args.events {
        let starts = eventicket_contracts::Clock::system().now().plus(Duration::from_secs(90 * 86_400));
        let event = json!({
            "title": format!("Load {number}"), "description": "", "category": "load",
            "starts_at": starts, "ends_at": starts.plus(Duration::from_secs(7_200)), "timezone": "UTC",
            "venue": {"name": "Everywhere", "city": "Vienna", "country": "AT"},
            "ticket_types": [{"name": "Any", "price": {"amount": args.price, "currency": "EUR"}, "quantity": QUANTITY}],
        });
        let made = http.post(format!("{gateway}/v1/events")).bearer_auth(token).json(&event).send().await?;
        let made: Event = made.error_for_status().context("an event cannot be made")?.json().await?;
        let at = format!("{gateway}/v1/events/{}", made.id);
        http.post(format!("{at}/publish")).bearer_auth(token).send().await?.error_for_status()?;
        let published = async {
            loop {
                let event: Event = http.get(&at).bearer_auth(token).send().await?.json().await?;
                if event.state == EventState::Published {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PUBLISH, published).await.context("an event was not published in time")??;
        let Some(kind) = made.details.ticket_types.first() else { bail!("an event without ticket types") };
        targets.push((made.id.to_string(), kind.id.to_string()));
    }
    Ok(targets)
}

fn figures(args: &Args, report: &Report, cpu: &std::collections::BTreeMap<String, f64>) -> Value {
    let ms = |q: f64| (report.confirmed.value_at_quantile(q) as f64 / 100.0).round() / 10.0;
    let confirmed = report.outcomes.get("confirmed").copied().unwrap_or(0);
    let seconds = report.elapsed.as_secs_f64();
    let total: u64 = report.outcomes.values().sum();
    json!({
        "rate": args.rate, "seconds": seconds, "events": args.events, "price": args.price,
        "confirmed": confirmed, "confirmed_per_second": confirmed as f64 / seconds,
        "outcomes": report.outcomes,
        "latency_ms": {"p50": ms(0.5), "p90": ms(0.9), "p99": ms(0.99), "p999": ms(0.999), "max": ms(1.0)},
        "cpu_seconds": cpu,
        "late_starts": report.late, "generator_kept_up": report.late * 100 <= total,
    })
}

fn table(figures: &Value) -> String {
    let mut text = format!(
        "offered {}/s on {} event(s); {} confirmed in {:.1} s: {:.0}/s\n",
        figures["rate"],
        figures["events"],
        figures["confirmed"],
        figures["seconds"].as_f64().unwrap_or_default(),
        figures["confirmed_per_second"].as_f64().unwrap_or_default(),
    );
    let l = &figures["latency_ms"];
    text += &format!(
        "latency from the intended start to confirmed, ms: p50 {} p90 {} p99 {} p99.9 {} max {}\n",
        l["p50"], l["p90"], l["p99"], l["p999"], l["max"]
    );
    text += &format!("outcomes {}\n", figures["outcomes"]);
    let confirmed = figures["confirmed"].as_f64().unwrap_or_default().max(1.0);
    for (name, seconds) in figures["cpu_seconds"].as_object().into_iter().flatten() {
        let seconds = seconds.as_f64().unwrap_or_default();
        text += &format!("cpu {name:<15} {seconds:>7.1} s {:>6.0} us a booking\n", seconds * 1e6 / confirmed);
    }
    if figures["generator_kept_up"] != true {
        text += &format!("the generator was late for {} starts: it was the limit\n", figures["late_starts"]);
    }
    text
}
