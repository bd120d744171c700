//! A booking as it stands in all databases, in the ledger and in the streams, is read and found sound, and what is
//! taken away from it is missed.

use eventicket_contracts::bookings::Line;
use eventicket_contracts::{Currency, EventId, Money, TicketTypeId};
use eventicket_kit::Context;
use eventicket_mock_gateway::ledger::Status as IntentStatus;
use eventicket_saga::Saga;
use serde_json::json;
use sqlx::query;

use super::*;

struct Stage {
    ctx: Context,
    ledger: tempfile::TempDir,
    databases: HashMap<&'static str, PgPool>,
}

impl Stage {
    async fn set() -> Self {
        let world = eventicket_testkit::world().await;
        let mut databases = HashMap::new();
        for (name, migrator) in [
            (eventicket_orchestrator::DATABASE, &journal::MIGRATOR),
            (eventicket_bookings::DATABASE, &eventicket_bookings::MIGRATOR),
            (eventicket_payments::DATABASE, &eventicket_payments::MIGRATOR),
            (eventicket_notifications::DATABASE, &eventicket_notifications::MIGRATOR),
            (eventicket_events::DATABASE, &eventicket_events::MIGRATOR),
            (eventicket_identity::DATABASE, &eventicket_identity::MIGRATOR),
        ] {
            let url = world.database(name, migrator).await;
            databases.insert(name, PgPool::connect(&url).await.unwrap());
        }
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
        let ctx = ctx.with_settings(|s| s.database_prefix = world.prefix.clone());
        Self { ctx, ledger: tempfile::tempdir().unwrap(), databases }
    }

    async fn audit(&self) -> Findings {
        all(&self.ctx.settings, self.ledger.path()).await.unwrap()
    }

    async fn rules(&self) -> Vec<&'static str> {
        let found = self.audit().await.found;
        found.iter().map(|finding| finding.rule).collect()
    }

    async fn run(&self, database: &str, statement: &'static str) {
        query(statement).execute(&self.databases[database]).await.unwrap();
    }

    /// A confirmed booking of two tickets of a type of ten.
    async fn booking(&self, id: SagaId) {
        let (event, kind) = (EventId::fresh(), TicketTypeId::fresh());
        let money = |amount| Money { amount, currency: Currency::EUR };
        let (name, seats) = ("Floor".into(), Vec::new());
        let line = Line { ticket_type_id: kind, name, quantity: 2, unit_price: money(4200), seats };
        let reserved =
            Reserved { lines: vec![line], total: money(8400), hold_until: Timestamp(1), title: "Gala".into() };
        let reserved = serde_json::to_value(reserved).unwrap();

        let catalogue = catalogue().unwrap();
        let definition = catalogue.registry.get(BOOKING, 1).unwrap();
        let mut saga = Saga::new(id.0, definition, json!({}).into(), 1_000);
        saga.phase = Phase::Completed;
        saga.steps.iter_mut().for_each(|step| step.status = Status::Done);
        saga.steps[definition.position("RESERVE").unwrap()].output = reserved.clone().into();
        query(
            "INSERT INTO sagas (id, definition, definition_version, started_at, input, updated_at, version, dispatcher,
                                ended, attention, state, body, history)
             VALUES ($1, 'booking', 1, 1000, '{}', 2000, 3, $1, true, false, 'completed', $2, '')",
        )
        .bind(id.0)
        .bind(serde_json::to_string(&saga).unwrap())
        .execute(&self.databases[eventicket_orchestrator::DATABASE])
        .await
        .unwrap();

        let bookings = &self.databases[eventicket_bookings::DATABASE];
        query("INSERT INTO ticket_types VALUES ($1, $2, 1, 'Floor', 4200, 'EUR', 10, 8, NULL)")
            .bind(event.0)
            .bind(kind.0)
            .execute(bookings)
            .await
            .unwrap();
        query("INSERT INTO holds VALUES ($1, 'RESERVE', 1, 'confirmed', 2, 1, 1, 1, $2, $1, $3, 2, NULL, false, $4)")
            .bind(id.0)
            .bind(event.0)
            .bind(reserved.to_string())
            .bind(["A", "B"])
            .execute(bookings)
            .await
            .unwrap();
        query(
            "INSERT INTO charges (saga, step, round, state, version, owner, customer, amount, currency, description,
                                  intent, outcome, created_at, updated_at)
             VALUES ($1, 'PAY', 1, 'done', 3, $1, $1, 8400, 'EUR', 'Gala', 'pi_1', 'done', 1, 1)",
        )
        .bind(id.0)
        .execute(&self.databases[eventicket_payments::DATABASE])
        .await
        .unwrap();
        query(
            "INSERT INTO deliveries (saga, step, round, state, template, customer, data, due_at, created_at)
             VALUES ($1, 'NOTIFY', 1, 'sent', 'booking_confirmed', $1, '{}', 1, 1)",
        )
        .bind(id.0)
        .execute(&self.databases[eventicket_notifications::DATABASE])
        .await
        .unwrap();
        self.charge("pi_1", id);
    }

    /// Adds a success to the ledger.
    fn charge(&self, intent: &str, saga: SagaId) {
        let intent = Intent {
            id: intent.into(),
            amount: 8400,
            currency: "eur".into(),
            status: IntentStatus::Succeeded,
            metadata: [("saga".to_owned(), saga.to_string())].into(),
            description: None,
            method_hash: None,
            declined: None,
            refunded: 0,
            created: 1,
        };
        let path = self.ledger.path().join(ledger::FILE);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let line = json!({ "at": 1, "status": 200, "intent": intent });
        std::fs::write(path, format!("{before}{line}\n")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_is_read_whole_and_what_is_taken_from_it_is_missed() {
    let stage = Stage::set().await;
    assert_eq!(stage.rules().await, [] as [&str; 0]);
    let id = SagaId::fresh();
    stage.booking(id).await;
    let Findings { counts, found } = stage.audit().await;
    assert_eq!(found, []);
    let count = |name: &str| counts.iter().find(|(n, _)| *n == name).unwrap().1;
    let names = ["sagas judged", "bookings confirmed", "holds", "tickets", "charges recorded", "mails asked for"];
    assert_eq!(names.map(count), [1, 1, 1, 2, 1, 1]);
    assert_eq!((count("charges that stand there"), count("sagas that had not ended")), (1, 0));

    stage.charge("pi_2", id);
    assert_eq!(stage.rules().await, ["double_charge"]);
    stage.run(eventicket_bookings::DATABASE, "UPDATE holds SET codes = ARRAY['A']").await;
    assert_eq!(stage.rules().await, ["capacity_tickets", "ticket_count", "double_charge"]);
    stage.run(eventicket_orchestrator::DATABASE, "DELETE FROM sagas").await;
    assert_eq!(stage.rules().await, ["capacity_tickets", "unknown_saga", "charge_without_tickets"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_an_error() {
    let stage = Stage::set().await;
    stage.booking(SagaId::fresh()).await;
    stage.run(eventicket_orchestrator::DATABASE, "UPDATE sagas SET body = '{}'").await;
    let error = all(&stage.ctx.settings, stage.ledger.path()).await.err().unwrap();
    assert_eq!(format!("{error:#}"), "the journal cannot be read: 0 of 1 sagas could be read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_and_events_that_stay_are_found() {
    let stage = Stage::set().await;
    let mut headers = eventicket_nats::command_headers("reply.0", None);
    headers.insert(subjects::HEADER_REASON, "the body cannot be read");
    let saga = SagaId::fresh();
    let item = json!({ "key": format!("{saga}:PAY:1"), "half": "do", "attempt": 1, "body": {} });
    let letter = eventicket_nats::Outgoing {
        subject: subjects::dead_letter("payments", "charge"),
        id: "1".into(),
        headers,
        payload: json!({ "v": 1, "items": [item] }).to_string().into_bytes().into(),
    };
    stage.ctx.nats.publish_all(vec![letter]).await.pop().unwrap().unwrap();
    stage
        .run(
            eventicket_payments::DATABASE,
            "INSERT INTO outbox VALUES (gen_random_uuid(), 'evt.payment.x', '', 1, NULL)",
        )
        .await;
    let found = stage.audit().await.found;
    let [outbox, dead] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((outbox.rule, outbox.severity), ("outbox_unsent", Severity::Warning));
    assert_eq!((dead.rule, dead.severity, dead.saga), ("dead_letter", Severity::Violation, Some(saga)));
    assert!(dead.detail.ends_with("dead.payments.charge PAY: the body cannot be read"), "{}", dead.detail);
}
