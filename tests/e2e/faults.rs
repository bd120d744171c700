//! PostgreSQL or NATS away: a definite 503, and work goes on by itself.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::StatusCode;
use serde_json::Value;

use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_or_postgresql_the_gateway_says_so_and_recovers() {
    let platform = Platform::start(&[]).await;
    let customer = platform.login("customer@demo.test").await;
    let event = platform.event(100, 1_000, None).await;
    for server in ["nats", "postgres"] {
        // Stopped, it answers nothing, as behind a cut network.
        let pids = platform.server_processes(server);
        let signal = |signal| pids.iter().for_each(|&pid| kill(Pid::from_raw(pid), signal).unwrap());
        signal(Signal::SIGSTOP);
        let key = format!("fault-{server}");
        let answer = platform.booking(&customer, &key, &event, Some("pm_card_visa")).send().await.unwrap();
        let (status, retry) = (answer.status(), answer.headers().get("retry-after").cloned());
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{server}: {problem}");
        assert!(retry.is_some(), "{server}: {problem}");
        let ready = platform.http.get(format!("{}/readyz", platform.url)).send().await.unwrap();
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE, "{server}");
        let ready: Value = ready.json().await.unwrap();
        assert!(!ready["missing"].as_array().unwrap().is_empty(), "{server}: {ready}");

        signal(Signal::SIGCONT);
        let booking = platform.book(&customer, &key, &event, Some("pm_card_visa")).await;
        assert_eq!(platform.ended(&customer, &booking).await["status"], "confirmed", "{server}");
        platform
            .until("it is ready again", async || {
                let ready = platform.http.get(format!("{}/readyz", platform.url)).send().await;
                ready.is_ok_and(|r| r.status() == StatusCode::OK)
            })
            .await;
    }
    platform.audit().await;
}
