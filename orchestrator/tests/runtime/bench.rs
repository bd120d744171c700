//! A runtime with the saga `visit` and the service `desk`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, Half, Key};
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{Act, ActAnswer, Action, StartAnswer, StartSaga};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, CustomerId, SagaId};
use eventicket_kit::Context;
use eventicket_nats::{Commands, Delivered, Fault, Handled, WorkerLimits, run_worker};
use eventicket_orchestrator::runtime::row::Row;
use eventicket_orchestrator::runtime::{self, journal};
use eventicket_orchestrator::sagas::{Catalogue, Kind, RowView};
use eventicket_saga::definition::{Call, Command, Definition, Step};
use eventicket_saga::{Phase, Saga};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The tests' service.
pub const DESK: Service = Service::new("desk", &["open", "close", "stamp", "seal"]);
/// A hang is told after this.
pub const GUARD: Duration = Duration::from_secs(60);

/// The saga: OPEN, then WAIT where the input asks for it, then STAMP from version 2 on, then SEAL.
pub fn visit(versions: &[u32]) -> Kind {
    let call = |action: &str| Call::new(DESK.name(), action, |v| Ok(v.input().clone()));
    let definition = |version: u32| {
        let open = Command::new(call("open")).undo(call("close")).timeout(Duration::from_secs(2));
        let mut steps = vec![
            Step::command("OPEN", open),
            Step::wait("WAIT", "go", None).when(|v| v.input()["wait"] == true),
            Step::command("SEAL", Command::new(call("seal")).no_return().timeout(Duration::from_secs(2))),
        ];
        if version > 1 {
            steps.insert(2, Step::command("STAMP", Command::new(call("stamp")).undo(call("close"))));
        }
        Definition { name: "visit".into(), version, steps, deadlines: vec![] }
    };
    let status = |saga: &Saga| match saga.phase {
        Phase::Completed => "completed",
        Phase::Compensated => "compensated",
        _ => "pending",
    };
    let (check, view) = (|_: &Value| Ok(()), |row: &RowView<'_>| json!(row.id));
    Kind { name: "visit", definitions: versions.iter().map(|v| definition(*v)).collect(), check, status, view }
}

/// The service: it remembers its answers, as a database would, and counts how often each effect took place.
#[derive(Default)]
pub struct Desk {
    /// Effects by round and half.
    pub effects: Mutex<HashMap<(Key, Half), u32>>,
    answers: Mutex<HashMap<(Key, Half), Answer>>,
    /// Answers `retry` while it is set.
    pub broken: AtomicBool,
}

impl Commands for Desk {
    const SERVICE: Service = DESK;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        Ok(batch.iter().map(|d| Handled::Answer(self.answer(d))).collect())
    }
}

impl Desk {
    fn answer(&self, d: &Delivered) -> Answer {
        if self.broken.load(Ordering::SeqCst) {
            return Answer::Retry("unavailable".into());
        }
        let key = (d.item.key.clone(), d.item.half);
        let mut answers = self.answers.lock().unwrap();
        let answer = answers.entry(key.clone()).or_insert_with(|| {
            *self.effects.lock().unwrap().entry(key).or_default() += 1;
            Answer::done(&d.action)
        });
        answer.clone()
    }
}

/// The parts of a test.
pub struct Bench {
    pub ctx: Context,
    pub pool: PgPool,
    pub desk: Arc<Desk>,
}

/// A replica of the runtime.
pub struct Replica {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Bench {
    pub async fn new() -> Self {
        let world = eventicket_testkit::world().await;
        world.database("orchestrator", &journal::MIGRATOR).await;
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap();
        let ctx = ctx.with_settings(|s| s.database_prefix = world.prefix.clone());
        let pool = eventicket_kit::database(&ctx.settings, "orchestrator", &journal::MIGRATOR).await.unwrap();
        Self { ctx, pool, desk: Arc::default() }
    }

    /// Starts a replica that knows these versions of the saga.
    pub async fn replica(&self, versions: &[u32]) -> Replica {
        let may_call = |service: &str, action: &str| service == DESK.name() && DESK.actions().contains(&action);
        let catalogue = Arc::new(Catalogue::new(vec![visit(versions)], may_call).unwrap());
        let config = runtime::Config {
            pool: self.pool.clone(),
            nats: self.ctx.nats.clone(),
            limits: self.ctx.limits.clone(),
            clock: Clock::system(),
            catalogue,
        };
        let shutdown = self.ctx.shutdown.child_token();
        let task = tokio::spawn(runtime::run(config, shutdown.clone()));
        Replica { shutdown, task }
    }

    /// Starts a worker of the service.
    pub fn desk(&self) -> JoinHandle<()> {
        let limits = WorkerLimits { limits: self.ctx.limits.clone(), ..WorkerLimits::default() };
        let worker =
            run_worker(self.ctx.nats.clone(), self.desk.clone(), limits, Clock::system(), self.ctx.shutdown.clone());
        tokio::spawn(async move { worker.await.unwrap() })
    }

    /// Starts a saga; repeated until the runtime answers.
    pub async fn start(&self, input: Value, owner: Option<(CustomerId, &str, &str)>) -> StartAnswer {
        let mut start = StartSaga {
            id: SagaId::fresh(),
            definition: "visit".into(),
            owner: owner.map(|(owner, ..)| owner),
            idempotency: owner.map(|(_, key, print)| Idempotency { key: key.into(), fingerprint: print.into() }),
            event: None,
            input,
            give_up_at: self.ctx.clock.now().plus(GUARD),
            trace: None,
        };
        let asked = async {
            loop {
                start.give_up_at = self.ctx.clock.now().plus(Duration::from_secs(5));
                match self.ctx.nats.request(subjects::START, &start, Duration::from_secs(5)).await {
                    Ok(answer) => return answer,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await, // the runtime is still starting
                }
            }
        };
        tokio::time::timeout(GUARD, asked).await.expect("the runtime answers")
    }

    /// Starts a saga and returns its id.
    pub async fn started(&self, input: Value) -> SagaId {
        match self.start(input, None).await {
            StartAnswer::Started { id, created: true, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    /// Sends the signal that WAIT waits for.
    pub async fn signal(&self, saga: SagaId) -> ActAnswer {
        let action = Action::Signal { name: "go".into(), payload: json!({"by": "test"}) };
        let act = Act { saga, owner: None, actor: "test".into(), reason: "test".into(), action, trace: None };
        self.ctx.nats.request(subjects::ACT, &act, GUARD).await.unwrap()
    }

    pub async fn row(&self, saga: SagaId) -> Row {
        journal::load(&self.pool, &[saga]).await.unwrap().pop().expect("the saga is there")
    }

    /// Waits until each saga is as asked for; looks when a change of status is told, and now and then, since it is a hint.
    pub async fn until(&self, sagas: &[SagaId], what: impl Fn(&Row) -> bool) {
        let mut changes = self.ctx.nats.subscriber().subscribe(subjects::STATUS).await.unwrap();
        let waited = async {
            loop {
                let rows = journal::load(&self.pool, sagas).await.unwrap();
                if rows.len() == sagas.len() && rows.iter().all(&what) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
            }
        };
        if tokio::time::timeout(GUARD, waited).await.is_err() {
            let rows = journal::load(&self.pool, sagas).await.unwrap();
            panic!("{:#?}", rows.iter().filter(|r| !what(r)).map(|r| &r.saga).next());
        }
    }

    pub async fn completed(&self, sagas: &[SagaId]) {
        self.until(sagas, |row| row.saga.phase == Phase::Completed).await;
    }

    /// The reasons of all dead letters.
    pub async fn dead_letters(&self) -> Vec<String> {
        let stream = self.ctx.nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await.unwrap();
        let state = stream.cached_info().state.clone();
        let mut reasons = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            reasons.push(message.headers.get(subjects::HEADER_REASON).unwrap().to_string());
        }
        reasons
    }

    /// Stops everything and sees that no message is left.
    pub async fn end(self, replicas: Vec<Replica>) {
        assert_eq!(self.dead_letters().await, Vec::<String>::new());
        self.ctx.shutdown.cancel();
        for replica in replicas {
            replica.task.await.unwrap().unwrap();
        }
    }
}

impl Replica {
    /// Stops it as kill -9 would: nothing is finished.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        self.shutdown.cancel();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}
