//! The audit is tested, too: each of its promises is broken on purpose where it is kept, and the audit tells that one.
//!
//! The platform stands still meanwhile, so that nothing mends by itself what is broken. A table is broken in a copy that
//! takes its place: no constraint stands in the way, and the mended table is the one that was there.

mod breaks;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use async_nats::jetstream;
use eventicket_contracts::sagas::BOOKING;
use eventicket_contracts::subjects;
use eventicket_mock_gateway::ledger;
use eventicket_orchestrator::sagas::catalogue;
use eventicket_saga::Saga;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use self::breaks::{Break, JOURNAL, Part, breaks, losses};
use crate::dead_letters::broker;
use crate::payments::until;
use crate::platform::{Platform, text};
use crate::rest::order;

/// The platform with what was broken of it.
struct Stage {
    platform: Platform,
    broker: jetstream::Context,
    tables: Vec<(&'static str, &'static str)>,
    /// Length of the ledger before it was broken.
    length: Option<u64>,
    letters: Vec<u64>,
}

impl Stage {
    async fn set(platform: Platform) -> Self {
        let broker = broker(&platform).await;
        Self { platform, broker, tables: Vec::new(), length: None, letters: Vec::new() }
    }

    /// Stops all of the platform's own work, or lets it go on.
    fn signal(&self, signal: Signal) {
        let pid = self.platform.about()["pid"].as_i64().unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    async fn breaks(&mut self, part: &Part) {
        match part {
            Part::Rows(database, tables, statements) => {
                self.copy(database, tables).await;
                self.run(database, statements).await;
            }
            Part::Saga(id, change) => {
                self.copy(JOURNAL, &["sagas"]).await;
                let mut journal = self.platform.database(JOURNAL).await;
                let row = sqlx::query_as("SELECT definition_version, body FROM sagas WHERE id = $1::uuid").bind(id);
                let (version, body): (i32, String) = row.fetch_one(&mut journal).await.unwrap();
                let mut saga: Saga = serde_json::from_str(&body).unwrap(); // of which only the JSON is written back
                let catalogue = catalogue().unwrap();
                let definition = catalogue.registry.get(BOOKING, version.try_into().unwrap()).unwrap();
                change(&mut saga, definition.position("PAY").unwrap());
                let body = serde_json::to_string(&saga).unwrap();
                let changed = sqlx::query("UPDATE sagas SET body = $2 WHERE id = $1::uuid").bind(id).bind(body);
                assert_eq!(changed.execute(&mut journal).await.unwrap().rows_affected(), 1);
            }
            Part::Line(intent) => self.append(&json!({"at": 1, "status": 200, "intent": intent}).to_string()),
            Part::Nonsense => self.append("nonsense\nnonsense"),
            Part::Letter => {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert(subjects::HEADER_REASON, "broken");
                let subject = subjects::dead_letter("bookings", "reserve");
                let sent = self.broker.publish_with_headers(subject, headers, "broken".into()).await.unwrap();
                self.letters.push(sent.await.unwrap().sequence);
            }
        }
    }

    async fn copy(&mut self, database: &'static str, tables: &[&'static str]) {
        for table in tables {
            let copy =
                format!("ALTER TABLE {table} RENAME TO kept_{table}; CREATE TABLE {table} AS TABLE kept_{table}");
            self.run(database, &copy).await;
            self.tables.push((database, table));
        }
    }

    async fn run(&self, database: &str, statements: &str) {
        let mut connection = self.platform.database(database).await;
        let done = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    fn append(&mut self, lines: &str) {
        let path = self.ledger();
        self.length.get_or_insert(path.metadata().unwrap().len());
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        writeln!(file, "{lines}").unwrap();
    }

    fn ledger(&self) -> PathBuf {
        PathBuf::from(text(&self.platform.about()["ledger"])).join(ledger::FILE)
    }

    /// Undoes all that was broken.
    async fn mend(&mut self) {
        for (database, table) in std::mem::take(&mut self.tables) {
            let mend = format!("DROP TABLE IF EXISTS {table}; ALTER TABLE kept_{table} RENAME TO {table}");
            self.run(database, &mend).await;
        }
        if let Some(length) = self.length.take() {
            std::fs::File::options().write(true).open(self.ledger()).unwrap().set_len(length).unwrap();
        }
        let letters = self.broker.get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
        for letter in std::mem::take(&mut self.letters) {
            letters.delete_message(letter).await.unwrap();
        }
    }

    /// The audit's exit code, and weight, rule and saga of what it found.
    async fn audit(&self) -> (i32, Vec<[String; 3]>) {
        let (exit, told) = self.platform.json(&["audit"]).await;
        let words =
            |f: &Value| ["severity", "rule", "saga"].map(|name| f[name].as_str().unwrap_or_default().to_owned());
        let found = told["findings"].as_array().unwrap_or_else(|| panic!("{told}"));
        (exit, found.iter().map(words).collect())
    }

    /// Why the audit cannot tell.
    async fn unreadable(&self) -> String {
        let (exit, told) = self.platform.json(&["audit"]).await;
        assert_eq!(exit, 2, "{told}");
        text(&told["error"])
    }
}

/// Bookings in all the ways that the promises are about.
struct Books {
    /// Event of the first three.
    event: String,
    /// Two tickets, paid and confirmed.
    sold: Value,
    /// Two more that wait to be paid.
    waiting: Value,
    /// One that was paid and given back.
    given_back: Value,
    free: Value,
    seated: Value,
}

impl Books {
    async fn fill(platform: &Platform, ada: &str) -> Self {
        let event = platform
            .event_with(2_100, json!({"quantity": 10}), json!({"max_per_customer": 9, "hold_seconds": 600}))
            .await;
        let theatre = platform.event_with(0, json!({"quantity": 1, "seats": ["A-1"]}), json!({})).await;
        let gratis = platform.event(5, 0, None).await;
        let book = async |event: &(String, String), number: u32, method: Option<&str>| {
            let mut body = order(event, method);
            body["items"][0]["quantity"] = number.into();
            platform.accepted(ada, &format!("{}-{number}-{}", event.0, method.unwrap_or_default()), &body).await
        };
        let (sold, waiting) = (book(&event, 2, Some("pm_card_visa")).await, book(&event, 2, None).await);
        let (free, seated) = (book(&gratis, 1, None).await, book(&theatre, 1, None).await);
        let confirmed = [&sold, &free, &seated].map(|booking| text(&booking["status"]));
        assert_eq!((confirmed, &waiting["status"]), (["confirmed"; 3].map(String::from), &json!("awaiting_payment")));
        let given_back = book(&event, 1, Some("pm_card_action_required")).await;
        give_back(platform, ada, &given_back).await;
        Self { event: event.0, sold, waiting, given_back, free, seated }
    }
}

/// Its saga is paused before it is paid, so that it can still be cancelled.
async fn give_back(platform: &Platform, ada: &str, booking: &Value) {
    let id = text(&booking["id"]);
    let pause = format!("/v1/sagas/{id}/pause");
    assert_eq!(platform.post(&platform.operator().await, &pause, json!({"reason": "a test"})).await.0, 200);
    let url = format!("{}/complete", text(&booking["next_action"]["url"]));
    platform.http.post(url).send().await.unwrap().error_for_status().unwrap();
    platform.until("it is paid", async || platform.step(&id, "PAY").await["state"] == "done").await;
    assert_eq!(platform.post(ada, &format!("/v1/bookings/{id}/cancel"), json!({})).await.0, 200);
    until(platform, ada, booking, "it is given back", |b| b["refund"] == "done").await;
    let ended = async || platform.saga(&id).await["state"] == "compensated";
    platform.until("its saga has ended", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_promise_that_is_broken_is_told_and_nothing_else() {
    let platform = Platform::start(&[]).await;
    let ada = platform.login("customer@demo.test").await;
    let books = Books::fill(&platform, &ada).await;
    let told = async || {
        let (_, audit) = platform.json(&["audit"]).await;
        audit["counts"].as_array().unwrap().contains(&json!(["events not yet told", 0]))
    };
    platform.until("all events are told", told).await;
    let breaks = breaks(&platform, &books);
    let mut stage = Stage::set(platform).await;
    stage.signal(Signal::SIGSTOP);

    let clean = (0, Vec::new());
    assert_eq!(stage.audit().await, clean);
    for Break { tells, parts } in &breaks {
        for part in parts {
            stage.breaks(part).await;
        }
        // Whatever a former break had left would be told, too.
        assert_eq!(stage.audit().await, (i32::from(tells[0] == "violation"), vec![tells.clone()]));
        stage.mend().await;
    }
    assert_eq!(stage.audit().await, clean, "all is mended");
    let (_, rules) = stage.platform.json(&["audit", "--rules"]).await;
    let known: BTreeSet<String> = rules.as_array().unwrap().iter().map(|rule| text(&rule["rule"])).collect();
    let broken: BTreeSet<String> = breaks.iter().map(|b| b.tells[1].clone()).collect();
    assert_eq!(broken, known, "each of the audit's rules is broken here");

    let warning = breaks.iter().find(|b| b.tells[0] == "warning").unwrap();
    stage.breaks(&warning.parts[0]).await;
    let strict = stage.platform.run(&["audit", "--strict"]).await;
    assert_eq!(strict.status.code(), Some(1), "a warning counts where that is asked for");
    stage.mend().await;

    for (part, why) in losses(&books) {
        stage.breaks(&part).await;
        let told = stage.unreadable().await;
        assert!(told.contains(&why), "{why}: {told}");
        stage.mend().await;
    }
    stage.broker.delete_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
    assert!(stage.unreadable().await.contains("the dead letters cannot be read"));

    // It goes on as if nothing had been.
    stage.signal(Signal::SIGCONT);
    let cancel = format!("/v1/bookings/{}/cancel", text(&books.waiting["id"]));
    assert_eq!(stage.platform.post(&ada, &cancel, json!({})).await.0, 200);
    let back = async || stage.broker.get_stream(subjects::DEADLETTERS_STREAM).await.is_ok();
    stage.platform.until("the stream is made again", back).await;
    stage.platform.audit().await;
}
