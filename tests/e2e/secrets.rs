//! Payment tokens: no file, no log line, no database and no dead letter holds one in clear.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;
use serde_json::{Value, json};
use sqlx::Connection as _;
use uuid::Uuid;

use crate::expiry::async_nats_client;
use crate::platform::{Platform, figure, text};

/// The databases of all services.
const DATABASES: [&str; 6] = [
    eventicket_orchestrator::DATABASE,
    eventicket_bookings::DATABASE,
    eventicket_payments::DATABASE,
    eventicket_notifications::DATABASE,
    eventicket_events::DATABASE,
    eventicket_identity::DATABASE,
];

/// A token that no payment gateway knows, and that no other text looks like.
fn token() -> String {
    format!("pm_{}", Uuid::new_v4().simple())
}

/// How a token may stand somewhere: as it is, in hexadecimal, and in base64 wherever it begins.
fn forms(token: &str) -> Vec<String> {
    let hex = token.bytes().map(|byte| format!("{byte:02x}")).collect();
    let aligned = (0..3).map(|skip| &token.as_bytes()[skip..][..(token.len() - skip) / 3 * 3]);
    let base64 = aligned.flat_map(|part| [STANDARD_NO_PAD.encode(part), URL_SAFE_NO_PAD.encode(part)]);
    [token.to_owned(), hex].into_iter().chain(base64).collect()
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    Finder::new(needle).find(bytes).is_some()
}

/// All files below the folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Every row of a database as text; what PostgreSQL keeps compressed shows only so.
async fn rows(platform: &Platform, name: &str) -> String {
    let mut database = platform.database(name).await;
    let tables = "SELECT format('%I', table_name) FROM information_schema.tables WHERE table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut database).await.unwrap();
    let mut all = String::new();
    for table in tables {
        let rows = sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} t"));
        let rows: Vec<String> = sqlx::query_scalar(rows).fetch_all(&mut database).await.unwrap();
        all.extend(rows);
    }
    database.close().await.unwrap();
    all
}

/// A dead letter that holds the booking's sealed payment method.
async fn dead_letter(platform: &Platform, booking: &Value) {
    let input = platform.saga(&text(&booking["id"])).await["input"].clone();
    let charge = json!({"customer": input["customer"], "amount": booking["total"], "method": input["method"], "description": ""});
    let item = json!({"key": format!("{}:PAY:1", text(&booking["id"])), "half": "do", "attempt": 1, "body": charge});
    let broker = async_nats::jetstream::new(async_nats_client(&text(&platform.about()["nats_url"])).await);
    let envelope = json!({"v": 1, "items": [item]}).to_string();
    broker.publish("cmd.payments.collect.0", envelope.into()).await.unwrap().await.unwrap();
    let listed = async || platform.json(&["dead", "ls"]).await.1.as_array().is_some_and(|letters| !letters.is_empty());
    platform.until("it is dead-lettered", listed).await;
}

/// Everything that operators and the customer are shown.
async fn shown(platform: &Platform, customer: &str, bookings: &[Value]) -> String {
    let mut all = String::new();
    let operator = platform.operator().await;
    let letters = platform.get(&operator, "/v1/dead-letters").await;
    for letter in letters["items"].as_array().unwrap() {
        let id = letter["id"].to_string();
        all += &platform.get(&operator, &format!("/v1/dead-letters/{id}")).await.to_string();
        all += &String::from_utf8(platform.run(&["dead", "show", &id]).await.stdout).unwrap();
    }
    for id in bookings.iter().map(|booking| text(&booking["id"])) {
        for path in [format!("/v1/sagas/{id}"), format!("/v1/sagas/{id}/history")] {
            all += &platform.get(&operator, &path).await.to_string();
        }
        all += &platform.get(customer, &format!("/v1/bookings/{id}")).await.to_string();
        all += &String::from_utf8(platform.run(&["saga", "show", &id]).await.stdout).unwrap();
    }
    all += &letters.to_string();
    all + &String::from_utf8(platform.run(&["dead", "ls"]).await.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_log_line_or_dead_letter_holds_a_payment_token_in_clear() {
    let debug = vec![("RUST_LOG", "debug".to_owned())];
    let mut platform = Platform::start_with(debug, &[]).await;
    let ada = platform.login("customer@demo.test").await;
    let event = platform.event(10, 2_000, None).await;
    let tokens = [token(), token(), token()];
    let declined = platform.book(&ada, "declined", &event, Some(&tokens[0])).await;
    let dead = platform.book(&ada, "dead", &event, Some(&tokens[1])).await;
    for booking in [&declined, &dead] {
        assert_eq!(booking["status"], "awaiting_payment", "{booking}");
        assert!(booking["last_decline"].is_string(), "{booking}");
    }
    let again: Value = platform.pay(&ada, "again", &declined, &tokens[2]).await.json().await.unwrap();
    assert!(again["last_decline"].is_string(), "{again}");
    dead_letter(&platform, &dead).await;
    let sealed = text(&platform.saga(&text(&dead["id"])).await["input"]["method"]);
    let needles: Vec<String> = tokens.iter().flat_map(|token| forms(token)).collect();

    let seen = shown(&platform, &ada, &[declined, dead]).await;
    assert!(holds(seen.as_bytes(), &sealed), "what is shown holds the sealed form");
    assert!(!needles.iter().any(|needle| holds(seen.as_bytes(), needle)), "{seen}");
    let mut stored = String::new();
    for name in DATABASES {
        stored += &rows(&platform, name).await;
    }
    assert!(holds(stored.as_bytes(), &sealed), "the journal holds the sealed form");
    assert!(!needles.iter().any(|needle| holds(stored.as_bytes(), needle)), "a database holds a token");

    let mut database = platform.database(eventicket_payments::DATABASE).await;
    let folder: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut database).await.unwrap();
    sqlx::query("CHECKPOINT").execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    platform.stop().await;
    let (mut all, postgres) = (Vec::new(), PathBuf::from(folder));
    files(&platform.folder(), &mut all);
    if !postgres.starts_with(platform.folder()) {
        files(&postgres, &mut all); // where its user may not enter the folder
    }
    let finders: Vec<Finder> = needles.iter().map(Finder::new).collect();
    let (mut bytes, mut with_sealed) = (0, Vec::new());
    for file in &all {
        let content = std::fs::read(file).unwrap();
        bytes += content.len();
        assert!(!finders.iter().any(|finder| finder.find(&content).is_some()), "{} holds a token", file.display());
        with_sealed.extend(holds(&content, &sealed).then_some(file));
    }
    figure(&format!("{} files with {} MB", all.len(), bytes >> 20));
    for folder in [platform.nats_folder(), postgres] {
        assert!(
            with_sealed.iter().any(|file| file.starts_with(&folder)),
            "files are read as they are: {with_sealed:?}"
        );
    }
    assert!(platform.log("eventicket.log").contains(r#""level":"DEBUG""#), "the log is as talkative as it can be");
}
