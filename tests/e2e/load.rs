//! The load tool tells what happened: its counts against the platform's own books.

use serde_json::Value;

use crate::platform::{Platform, figure};

/// Exit code where the generator was the limit, as it may be on a machine that does something else, too.
const LIMITED: i32 = 3;

/// Runs the load tool, which must end well or find the machine too busy; what it wrote.
async fn load(platform: &Platform, arguments: &[&str]) -> Value {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (json, html) = (file("load.json"), file("load.html"));
    let all = [&["load", "--json", &json, "--html", &html][..], arguments].concat();
    let output = platform.run(&all).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | LIMITED)), "{out}{err}");
    figure(&out);
    let html = std::fs::read_to_string(&html).unwrap();
    assert!(html.contains("<svg") && !html.contains("src="), "charts, and nothing from elsewhere");
    serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap()
}

fn ways(report: &Value) -> Vec<(String, u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap();
    let one =
        |way: &Value| (way["name"].as_str().unwrap().to_owned(), number(&way["offered"]), number(&way["expected"]));
    report["ways"].as_array().unwrap().iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_offered_booking_is_confirmed_charged_and_accounted_for() {
    let platform = Platform::start(&["--processes"]).await;
    let report = load(&platform, &["--rate", "40", "--duration", "3", "--events", "3"]).await;
    let phase = &report["phases"][0];
    assert_eq!((phase["offered"].as_u64(), phase["confirmed"].as_u64()), (Some(120), Some(120)), "{phase}");
    assert_eq!(phase["latency"]["count"], 120);
    assert_eq!(platform.charges().len(), 120);
    assert_eq!(report["audit"]["violations"], 0);
    let spent: Vec<&str> = report["cpu"].as_array().unwrap().iter().filter_map(|cpu| cpu["name"].as_str()).collect();
    for name in
        ["orchestrator", "bookings", "payments", "gateway", "nats-server", "postgres orchestrator", "load generator"]
    {
        assert!(spent.contains(&name), "{name} is among {spent:?}");
    }
    let steps: Vec<&str> =
        report["steps"].as_array().unwrap().iter().filter_map(|step| step["name"].as_str()).collect();
    for step in ["RESERVE", "PAY", "CONFIRM"] {
        assert!(steps.contains(&step), "{step} is among {steps:?}");
    }
    platform.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_of_every_kind_end_as_they_must() {
    let platform = Platform::start(&[]).await;
    let arguments = ["--mix", "realistic", "--rate", "50", "--duration", "4", "--hold", "5"];
    let report = load(&platform, &arguments).await;
    let ways = ways(&report);
    assert!(ways.len() >= 9, "of each kind but the rarest: {ways:?}");
    for (name, offered, expected) in &ways {
        assert_eq!(offered, expected, "{name}");
    }
    platform.audit().await;
}
