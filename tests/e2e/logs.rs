//! Logs: who reads them learns what happened to which saga, and nothing of whom.

use memchr::memmem::Finder;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Platform, text};

/// All logs, by their names.
fn logs(platform: &Platform) -> Vec<(String, String)> {
    let folder = std::fs::read_dir(platform.folder().join("logs")).unwrap().flatten();
    let log = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path()).unwrap();
        (entry.file_name().to_string_lossy().into_owned(), String::from_utf8_lossy(&bytes).into_owned())
    };
    folder.map(log).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_holds_an_address_a_name_a_password_or_a_token_and_each_line_can_be_searched() {
    let environment = vec![("RUST_LOG", "debug".to_owned()), ("EVENTICKET_LOG", "json".to_owned())];
    let mut platform = Platform::start_with(environment, &["--processes"]).await;
    let some = || Uuid::new_v4().simple().to_string();
    let (email, password, name) = (format!("{}@people.test", some()), some(), format!("Ada {}", some()));
    let wrong = some();
    let account = json!({"email": email, "password": password, "name": name});
    let (code, registered) = platform.post("", "/v1/auth/register", account).await;
    assert!((200..300).contains(&code), "{code} {registered}");
    let (code, _) = platform.post("", "/v1/auth/login", json!({"email": email, "password": wrong})).await;
    assert_eq!(code, 401);
    let (_, tokens) = platform.post("", "/v1/auth/login", json!({"email": email, "password": password})).await;
    let (access, refresh) = (text(&tokens["access_token"]), text(&tokens["refresh_token"]));
    let (_, fresh) = platform.post("", "/v1/auth/refresh", json!({"refresh_token": refresh})).await;

    let event = platform.event(10, 4_200, None).await;
    let booking = platform.book(&access, "good", &event, Some("pm_card_visa")).await;
    assert_eq!(booking["status"], "confirmed", "{booking}");
    let unknown = format!("pm_{}", some());
    let declined = platform.book(&access, "bad", &event, Some(&unknown)).await;
    assert!(declined["last_decline"].is_string(), "{declined}");
    let mailed = async || {
        let mail = platform.run(&["mail", "show", "latest"]).await;
        String::from_utf8_lossy(&mail.stdout).contains(&email)
    };
    platform.until("the mail arrives", mailed).await;
    let id = text(&booking["id"]);
    let trace = text(&platform.saga(&id).await["trace_id"]);
    platform.stop().await;

    let secrets = [
        email,
        name,
        password,
        wrong,
        access,
        refresh,
        text(&fresh["access_token"]),
        text(&fresh["refresh_token"]),
        unknown,
        "pm_card_visa".to_owned(),
    ];
    let logs = logs(&platform);
    for (file, log) in &logs {
        for secret in &secrets {
            let found = Finder::new(secret).find(log.as_bytes());
            let line = found.map(|at| log[at..].lines().next().unwrap_or_default());
            assert!(found.is_none(), "{file} holds what nobody may read: {secret}: {line:?}");
        }
    }
    let of = |name: &str| &logs.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no {name}")).1;
    for service in ["gateway", "orchestrator", "bookings", "payments", "notifications"] {
        let lines: Vec<Value> =
            of(&format!("{service}.log")).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{service} is as talkative as it can be");
        let traced = |line: &&Value| line["trace_id"] == trace.as_str() || line["span"]["trace_id"] == trace.as_str();
        let traced = lines.iter().filter(traced).collect::<Vec<_>>();
        assert!(!traced.is_empty(), "{service} tells of the booking by its trace");
        let by_saga = traced.iter().filter(|line| line["saga"] == id.as_str()).count();
        assert!(by_saga > 0 || service == "gateway", "{service} tells of the booking by its saga");
    }
}
