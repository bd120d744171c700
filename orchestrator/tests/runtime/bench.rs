//! A runtime with the sagas `visit` and `deposit` and the services `desk` and `vault`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventicket_contracts::envelope::{Answer, Fence, Fenced, Half, Key, Recorded};
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{
    Act, ActAnswer, Action, BREAKERS, BreakerMode, BreakerView, HISTORY, HistoryEntry, SET_BREAKER, SetBreaker,
    StartAnswer, StartSaga,
};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, CustomerId, Json, SagaId};
use eventicket_kit::Context;
use eventicket_nats::{Commands, Delivered, Fault, Handled, Nats, QueryFailure, WorkerLimits, run_worker};
use eventicket_orchestrator::api::{self, Reader};
use eventicket_orchestrator::runtime::admission::Bound;
use eventicket_orchestrator::runtime::row::Row;
use eventicket_orchestrator::runtime::{self, journal};
use eventicket_orchestrator::sagas::{Catalogue, Kind, RowView};
use eventicket_saga::definition::{Call, Command, Definition, Step};
use eventicket_saga::{Phase, Saga};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The tests' service.
pub const DESK: Service = Service::new("desk", &["open", "close", "stamp", "seal", subjects::FENCE]);
/// Another one, which takes what `deposit` brings.
pub const VAULT: Service = Service::new("vault", &["store", "give_back"]);
/// A hang is told after this.
pub const GUARD: Duration = Duration::from_secs(60);

/// The saga: OPEN, then WAIT where the input asks for it, then STAMP from version 2 on, then SEAL.
pub fn visit(versions: &[u32]) -> Kind {
    let call = |action: &str| Call::new(DESK.name(), action, |v| Ok(v.input().clone()));
    let definition = |version: u32| {
        let open = Command::new(call("open")).undo(call("close")).timeout(Duration::from_secs(2));
        let mut steps = vec![
            Step::command("OPEN", open),
            Step::wait("WAIT", "go", None).when(|v| v.input().value()["wait"] == true),
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
    let (check, view) = (|_: &Json| Ok(()), |row: &RowView<'_>| json!(row.id).into());
    Kind { name: "visit", definitions: versions.iter().map(|v| definition(*v)).collect(), check, status, view }
}

/// The saga that asks for the vault: WAIT where the input asks for it, then STORE. A panic in its body is the input's wish.
fn deposit() -> Kind {
    let store = Call::new(VAULT.name(), "store", |v| match v.input().value()["panic"].as_bool() {
        Some(true) => panic!("the body cannot be built"),
        _ => Ok(Json::NULL),
    });
    let undo = Call::new(VAULT.name(), "give_back", |_| Ok(Json::NULL));
    let seal = Call::new(DESK.name(), "seal", |_| Ok(Json::NULL));
    let steps = vec![
        Step::wait("WAIT", "go", None).when(|v| v.input().value()["wait"] == true),
        Step::command("STORE", Command::new(store).undo(undo)).when(|v| v.input().value()["store"] != false),
        Step::command("SEAL", Command::new(seal).timeout(Duration::from_secs(2))),
    ];
    let definition = Definition { name: "deposit".into(), version: 1, steps, deadlines: vec![] };
    Kind { name: "deposit", definitions: vec![definition], ..visit(&[1]) }
}

/// A service: it remembers its answers, as a database would, and counts how often each effect took place.
#[derive(Default)]
pub struct Desk {
    /// Effects by round and half.
    pub effects: Mutex<HashMap<(Key, Half), u32>>,
    /// Commands that came, by round and half.
    pub received: Mutex<HashMap<(Key, Half), u32>>,
    answers: Mutex<HashMap<(Key, Half), Answer>>,
    /// Answers `retry` while it is set.
    pub broken: AtomicBool,
    /// Rejects what is new to it while it is set.
    pub refusing: AtomicBool,
    /// Panics on these actions.
    pub panics: Mutex<BTreeSet<&'static str>>,
}

impl Commands for Desk {
    const SERVICE: Service = DESK;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        Ok(batch.iter().map(|d| Handled::Answer(self.answer(d))).collect())
    }
}

impl Desk {
    fn answer(&self, d: &Delivered) -> Answer {
        let key = (d.item.key.clone(), d.item.half);
        *self.received.lock().unwrap().entry(key.clone()).or_default() += 1;
        let panics = self.panics.lock().unwrap().contains(d.action.as_str());
        assert!(!panics, "the desk is on fire");
        if self.broken.load(Ordering::SeqCst) {
            return Answer::Retry("unavailable".into());
        }
        let mut answers = self.answers.lock().unwrap();
        if d.item.half == Half::Fence {
            return fenced(d, &answers);
        }
        let answer = answers.entry(key.clone()).or_insert_with(|| {
            if self.refusing.load(Ordering::SeqCst) {
                return Answer::rejected("closed_today", "come again");
            }
            *self.effects.lock().unwrap().entry(key).or_default() += 1;
            Answer::done(&d.action)
        });
        answer.clone()
    }
}

/// What is recorded of a round; the tests' rounds are not sent again once they are fenced.
fn fenced(d: &Delivered, answers: &HashMap<(Key, Half), Answer>) -> Answer {
    let fence: Fence = d.item.body.read().unwrap();
    let recorded = |half| match answers.get(&(d.item.key.clone(), half)) {
        Some(Answer::Done(output)) => Recorded::Done(output.clone()),
        Some(Answer::Rejected(rejection)) => Recorded::Rejected(rejection.clone()),
        _ => Recorded::Closed,
    };
    let (effect, undo) = (recorded(Half::Do), fence.undo.then(|| recorded(Half::Undo)));
    Answer::done(&Fenced { id: fence.id, effect, undo })
}

/// The vault, which takes everything.
struct Vault;

impl Commands for Vault {
    const SERVICE: Service = VAULT;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        Ok(batch.iter().map(|d| Handled::Answer(Answer::done(&d.action))).collect())
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
    queries: JoinHandle<()>,
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

    /// Starts a replica that knows these versions of `visit`.
    pub async fn replica(&self, versions: &[u32]) -> Replica {
        self.bounded_replica(versions, Bound::default()).await
    }

    /// Starts a replica that keeps so many commands in flight.
    pub async fn bounded_replica(&self, versions: &[u32], bound: Bound) -> Replica {
        self.replica_over(self.pool.clone(), self.ctx.nats.clone(), versions, bound).await
    }

    /// Starts a replica with ways of its own to the servers.
    pub async fn replica_over(&self, pool: PgPool, nats: Nats, versions: &[u32], bound: Bound) -> Replica {
        let services = [DESK, VAULT];
        let may_call =
            |service: &str, action: &str| services.iter().any(|s| s.name() == service && s.actions().contains(&action));
        let catalogue = Arc::new(Catalogue::new(vec![visit(versions), deposit()], may_call).unwrap());
        let clock = Clock::system();
        let reader =
            Reader { pool: pool.clone(), catalogue: catalogue.clone(), nats: nats.clone(), clock: clock.clone() };
        let shutdown = self.ctx.shutdown.child_token();
        let queries = tokio::spawn(api::server(&nats, reader).await.unwrap().run(shutdown.clone()));
        let config = runtime::Config { pool, nats, limits: self.ctx.limits.clone(), clock, catalogue, bound };
        let task = tokio::spawn(runtime::run(config, shutdown.clone()));
        Replica { shutdown, task, queries }
    }

    /// Starts a worker of the desk.
    pub fn desk(&self) -> JoinHandle<()> {
        self.worker(self.desk.clone())
    }

    /// Starts a worker of the vault.
    pub fn vault(&self) -> JoinHandle<()> {
        self.worker(Arc::new(Vault))
    }

    fn worker<C: Commands>(&self, commands: Arc<C>) -> JoinHandle<()> {
        let limits = WorkerLimits { limits: self.ctx.limits.clone(), ..WorkerLimits::default() };
        let worker = run_worker(self.ctx.nats.clone(), commands, limits, Clock::system(), self.ctx.shutdown.clone());
        tokio::spawn(async move { worker.await.unwrap() })
    }

    /// Starts a visit; repeated until the runtime answers.
    pub async fn start(&self, input: Value, owner: Option<(CustomerId, &str, &str)>) -> StartAnswer {
        let mut start = self.asking("visit", input);
        start.owner = owner.map(|(owner, ..)| owner);
        start.idempotency = owner.map(|(_, key, print)| Idempotency { key: key.into(), fingerprint: print.into() });
        self.ask(start).await
    }

    /// What starts a saga.
    pub fn asking(&self, definition: &str, input: Value) -> StartSaga {
        StartSaga {
            id: SagaId::fresh(),
            definition: definition.into(),
            owner: None,
            idempotency: None,
            event: None,
            input: input.into(),
            give_up_at: self.ctx.clock.now().plus(GUARD),
            trace: None,
            blind: false,
        }
    }

    /// Asks until the runtime answers.
    pub async fn ask(&self, mut start: StartSaga) -> StartAnswer {
        let asked = async {
            loop {
                start.give_up_at = self.ctx.clock.now().plus(Duration::from_secs(5));
                match self.ctx.nats.start(&start, Duration::from_secs(5)).await {
                    Ok(answer) => return answer,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await, // the runtime is still starting
                }
            }
        };
        tokio::time::timeout(GUARD, asked).await.expect("the runtime answers")
    }

    /// Starts a visit and returns its id.
    pub async fn started(&self, input: Value) -> SagaId {
        self.started_as("visit", input).await
    }

    /// Starts a saga and returns its id.
    pub async fn started_as(&self, definition: &str, input: Value) -> SagaId {
        match self.ask(self.asking(definition, input)).await {
            StartAnswer::Started { id, created: true, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    /// Sends the signal that WAIT waits for.
    pub async fn signal(&self, saga: SagaId) -> ActAnswer {
        self.act(saga, Action::Signal { name: "go".into(), payload: json!({"by": "test"}).into(), idempotency: None })
            .await
    }

    /// Acts as the operator `test`, because of `a test`.
    pub async fn act(&self, saga: SagaId, action: Action) -> ActAnswer {
        let act = Act { saga, owner: None, actor: "test".into(), reason: "a test".into(), action, trace: None };
        self.ctx.nats.request(subjects::ACT, &act, GUARD).await.unwrap()
    }

    /// Asks the orchestrator; repeated while it is still starting.
    pub async fn query<A: DeserializeOwned>(&self, name: &str, query: &impl Serialize) -> A {
        let asked = async {
            loop {
                match self.ctx.nats.query(api::SERVICE, name, query).await {
                    Err(QueryFailure::NobodyAnswers) => tokio::time::sleep(Duration::from_millis(20)).await,
                    answered => return answered.unwrap_or_else(|error| panic!("{name}: {error}")),
                }
            }
        };
        tokio::time::timeout(GUARD, asked).await.expect("the orchestrator answers")
    }

    pub async fn history(&self, saga: SagaId) -> Vec<HistoryEntry> {
        self.query::<Option<Vec<HistoryEntry>>>(HISTORY, &saga).await.expect("the saga is there")
    }

    /// The breaker of the desk.
    pub async fn breaker(&self) -> BreakerView {
        let all: Vec<BreakerView> = self.query(BREAKERS, &()).await;
        all.into_iter().find(|b| b.service == DESK.name()).expect("the desk has one")
    }

    /// Sets the breaker of the desk.
    pub async fn set_breaker(&self, mode: BreakerMode) -> BreakerView {
        let service = DESK.name().to_owned();
        let set = SetBreaker { service, mode, actor: "test".into(), reason: "a test".into() };
        self.query::<Option<BreakerView>>(SET_BREAKER, &set).await.expect("the desk has one")
    }

    /// Waits until the breaker of the desk is as asked for.
    pub async fn breaker_until(&self, what: impl Fn(&BreakerView) -> bool) -> BreakerView {
        let waited = async {
            loop {
                let breaker = self.breaker().await;
                if what(&breaker) {
                    return breaker;
                }
                tokio::time::sleep(Duration::from_millis(50)).await; // nobody tells of breakers
            }
        };
        match tokio::time::timeout(GUARD, waited).await {
            Ok(breaker) => breaker,
            Err(_) => panic!("{:?}", self.breaker().await),
        }
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

    /// Commands in flight at a service, by what each replica has added and taken off.
    pub async fn in_flight(&self, service: &str) -> Vec<i64> {
        let sql = "SELECT coalesce((outstanding::jsonb ->> $1)::bigint, 0) FROM replicas ORDER BY name";
        sqlx::query_scalar(sql).bind(service).fetch_all(&self.pool).await.unwrap()
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
            replica.queries.await.unwrap();
        }
    }
}

impl Replica {
    /// Stops it as kill -9 would: nothing is finished.
    pub async fn kill(self) {
        self.task.abort();
        self.queries.abort();
        let _ = tokio::join!(self.task, self.queries);
        self.shutdown.cancel();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        self.queries.await.unwrap();
    }
}
