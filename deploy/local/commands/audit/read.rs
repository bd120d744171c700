//! Reads what the rules judge: the journal first, then the ledger, then the services' rows, side by side in the order of
//! the sagas' ids, so that only a page of each is held.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context as _, bail};
use eventicket_bookings::audit as bookings;
use eventicket_contracts::bookings::Reserved;
use eventicket_contracts::envelope::{Envelope, Key};
use eventicket_contracts::sagas::BOOKING;
use eventicket_contracts::{Clock, SagaId, Timestamp, subjects};
use eventicket_kit::{Settings, database_url};
use eventicket_mock_gateway::ledger::{self, Intent};
use eventicket_nats::Nats;
use eventicket_notifications::audit as notifications;
use eventicket_orchestrator::runtime::journal;
use eventicket_orchestrator::runtime::row::Row;
use eventicket_orchestrator::sagas::{Catalogue, catalogue};
use eventicket_saga::{Phase, Status, StepState, Undo};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::rows::Rows;
use super::rules::{self, Case, DeadLetter, End, Finding, SagaFacts, Severity};

/// Rows of one query.
const PAGE: u32 = 5_000;
/// Dead letters that are looked into; the others are only counted.
const LETTERS: u64 = 1_000;

/// An item of commands or of replies.
#[derive(serde::Deserialize)]
struct Keyed {
    key: Key,
}

/// What came out.
pub struct Findings {
    /// How much was looked at.
    pub counts: Vec<(&'static str, u64)>,
    pub found: Vec<Finding>,
}

impl Findings {
    /// The number of findings of this weight.
    pub fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Reads and judges everything.
///
/// # Errors
/// Something cannot be read.
pub async fn all(settings: &Settings, ledger: &Path) -> anyhow::Result<Findings> {
    let clock = Clock::system();
    let begin = clock.now();
    let journal = open(settings, eventicket_orchestrator::DATABASE).await?;
    let sagas = sagas(&journal, begin).await.context("the journal cannot be read")?;
    let ledger = Ledger::read(ledger).await?;
    let known = sagas.iter().map(|saga| (saga.id, saga.end)).collect();
    let mut audit = Audit { now: clock.now(), sagas, known, ledger, counts: Counts::default(), found: Vec::new() };
    let strangers = audit.sagas(settings).await?;
    audit.strangers(&journal, strangers).await?;
    audit.outboxes(settings).await?;
    audit.dead_letters(settings).await.context("the dead letters cannot be read")?;
    Ok(audit.findings())
}

/// A connection that only reads.
async fn open(settings: &Settings, name: &str) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(&database_url(settings, name)?)?
        .application_name("eventicket-audit")
        .options([("default_transaction_read_only", "on")]);
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await;
    pool.with_context(|| format!("the database of {name} cannot be reached"))
}

/// All sagas that had started, in the order of their ids.
async fn sagas(pool: &PgPool, begin: Timestamp) -> anyhow::Result<Vec<SagaFacts>> {
    let catalogue = catalogue()?;
    let number: i64 = sqlx::query_scalar("SELECT count(*) FROM sagas WHERE started_at <= $1")
        .bind(begin.millis())
        .fetch_one(pool)
        .await?;
    let mut sagas: Vec<SagaFacts> = Vec::new();
    loop {
        let after = sagas.last().map(|saga| saga.id);
        let rows = journal::page(pool, begin, after, i64::from(PAGE)).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            sagas.push(facts(row, begin, &catalogue)?);
        }
    }
    // The journal's reader leaves out what it cannot decode.
    if i64::try_from(sagas.len())? < number {
        bail!("{} of {number} sagas could be read", sagas.len());
    }
    Ok(sagas)
}

fn facts(row: &Row, begin: Timestamp, catalogue: &Catalogue) -> anyhow::Result<SagaFacts> {
    let saga = &row.saga;
    let (id, name, version) = (row.id, &saga.definition, saga.version);
    let definition = catalogue.registry.get(name, version);
    let definition =
        definition.with_context(|| format!("saga {id} is of {name} v{version}, which is not known here"))?;
    let step = |name: &str| definition.position(name).and_then(|at| saga.steps.get(at));
    let reserved = step("RESERVE").and_then(|step: &StepState| step.output.read::<Reserved>().ok());
    let tickets = |reserved: &Reserved| reserved.lines.iter().map(|line| line.quantity).sum();
    let end = match saga.phase {
        Phase::Completed => Some(End::Completed),
        Phase::Compensated => Some(End::Compensated),
        // Until what it left is given back, it is listed.
        Phase::Abandoned if saga.ended() => Some(End::Abandoned),
        Phase::Forward | Phase::Unwinding | Phase::Abandoning | Phase::Abandoned => None,
    };
    Ok(SagaFacts {
        id,
        booking: *name == BOOKING,
        end: end.filter(|_| row.updated_at <= begin),
        started_at: Timestamp(saga.started_at),
        reserved: reserved.map(|reserved| (reserved.total, tickets(&reserved))),
        notified: step("NOTIFY").is_some_and(|step| step.status == Status::Done),
        refund_told: step(rules::REFUND_MAIL).is_some_and(|step| step.status == Status::Done),
        resolved: step("PAY").is_some_and(|step| step.undo == Undo::Resolved),
        skipped: step("PAY").is_some_and(|step| step.status == Status::Skipped),
        attention: saga.attention.iter().map(|mark| (mark.step.clone(), mark.reason.clone())).collect(),
    })
}

/// The gateway's intents by the saga that their metadata names.
struct Ledger {
    by_saga: HashMap<SagaId, Vec<Intent>>,
    of_nobody: Vec<Intent>,
    intents: u64,
    standing: u64,
}

impl Ledger {
    async fn read(path: &Path) -> anyhow::Result<Self> {
        let at = path.to_owned();
        let read = tokio::task::spawn_blocking(move || ledger::read(&at)).await?;
        let read = read.with_context(|| format!("the payment gateway's ledger {} cannot be read", path.display()))?;
        let mut ledger = Self { by_saga: HashMap::new(), of_nobody: Vec::new(), intents: 0, standing: 0 };
        for intent in read.intents {
            ledger.intents += 1;
            ledger.standing += u64::from(rules::stands(&intent) > 0);
            match intent.metadata.get("saga").and_then(|saga| saga.parse().ok()) {
                Some(saga) => ledger.by_saga.entry(saga).or_default().push(intent),
                None => ledger.of_nobody.push(intent),
            }
        }
        Ok(ledger)
    }
}

#[derive(Default)]
struct Counts {
    judged: u64,
    running: u64,
    confirmed: u64,
    holds: u64,
    tickets: u64,
    charges: u64,
    deliveries: u64,
    types: u64,
    dead_letters: u64,
    unsent: u64,
}

/// Rows whose saga was not among those that were read.
#[derive(Default)]
struct Stranger {
    what: &'static str,
    money: i64,
}

type Strangers = HashMap<SagaId, Stranger>;

struct Audit {
    now: Timestamp,
    sagas: Vec<SagaFacts>,
    /// The ends of the sagas that had started.
    known: HashMap<SagaId, Option<End>>,
    ledger: Ledger,
    counts: Counts,
    found: Vec<Finding>,
}

impl Audit {
    /// Judges the sagas with the rows of all services; what belongs to none of them is returned.
    async fn sagas(&mut self, settings: &Settings) -> anyhow::Result<Strangers> {
        let booked = &open(settings, eventicket_bookings::DATABASE).await?;
        let paid = &open(settings, eventicket_payments::DATABASE).await?;
        let mailed = &open(settings, eventicket_notifications::DATABASE).await?;

        let types = bookings::types(booked).await.context("the capacity cannot be read")?;
        self.counts.types = types.len() as u64;
        rules::judge_types(&types, &mut self.found);
        let seats = bookings::seats(booked).await.context("the seats cannot be read")?;
        rules::judge_seats(&seats, &mut self.found);
        let over = bookings::over_limit(booked).await.context("the limits cannot be read")?;
        rules::judge_limits(&over, &mut self.found);

        let mut holds = Rows::new(
            |hold: &bookings::HoldFigures| hold.key.saga,
            async |last: Option<&bookings::HoldFigures>| bookings::holds(booked, last.map(|l| &l.key), PAGE).await,
        );
        let mut tickets = Rows::new(
            |count: &bookings::TicketCount| count.saga,
            async |last: Option<&bookings::TicketCount>| bookings::tickets(booked, last.map(|l| l.saga), PAGE).await,
        );
        let mut charges = Rows::new(
            |charge: &eventicket_payments::ChargeRow| charge.key.saga,
            async |last: Option<&eventicket_payments::ChargeRow>| {
                eventicket_payments::charges(paid, last.map(|l| &l.key), i64::from(PAGE)).await
            },
        );
        let (mut strangers, sagas) = (Strangers::new(), std::mem::take(&mut self.sagas));
        for page in sagas.chunks(PAGE as usize) {
            let until = page.last().map(|saga| saga.id);
            let mut rows = Page {
                holds: by_saga(holds.up_to(until).await.context("the holds cannot be read")?, |hold| hold.key.saga),
                tickets: by_saga(tickets.up_to(until).await.context("the tickets cannot be read")?, |count| count.saga),
                charges: by_saga(charges.up_to(until).await.context("the charges cannot be read")?, |c| c.key.saga),
                deliveries: deliveries(mailed, page).await?,
            };
            for saga in page {
                self.judge(saga, &mut rows);
            }
            rows.strange(&mut strangers);
        }
        self.sagas = sagas;
        let rest = Page {
            holds: by_saga(holds.up_to(None).await.context("the holds cannot be read")?, |hold| hold.key.saga),
            tickets: by_saga(tickets.up_to(None).await.context("the tickets cannot be read")?, |count| count.saga),
            charges: by_saga(charges.up_to(None).await.context("the charges cannot be read")?, |c| c.key.saga),
            deliveries: HashMap::new(),
        };
        rest.strange(&mut strangers);
        Ok(strangers)
    }

    fn judge(&mut self, saga: &SagaFacts, rows: &mut Page) {
        let id = &saga.id;
        let charges = rows.charges.remove(id).unwrap_or_default();
        let failed = charges.iter().filter_map(|charge| charge.failed_refund);
        let case = Case {
            saga: saga.clone(),
            failed_refunds: failed.filter_map(|saga| Some((saga, *self.known.get(&saga)?))).collect(),
            holds: rows.holds.remove(id).unwrap_or_default(),
            tickets: rows.tickets.remove(id).unwrap_or_default().iter().map(|count| count.tickets).sum(),
            charges,
            intents: self.ledger.by_saga.remove(id).unwrap_or_default(),
            deliveries: rows.deliveries.remove(id).unwrap_or_default(),
        };
        let counts = &mut self.counts;
        counts.holds += case.holds.len() as u64;
        counts.tickets += u64::try_from(case.tickets).unwrap_or(0);
        counts.charges += case.charges.len() as u64;
        counts.deliveries += case.deliveries.len() as u64;
        counts.judged += u64::from(saga.end.is_some());
        counts.running += u64::from(saga.end.is_none());
        counts.confirmed += u64::from(saga.booking && saga.end == Some(End::Completed));
        rules::judge(&case, self.now, &mut self.found);
    }

    /// A saga that started since is in the journal by now; what is not, belongs to nobody.
    async fn strangers(&mut self, journal: &PgPool, mut strangers: Strangers) -> anyhow::Result<()> {
        for (saga, intents) in std::mem::take(&mut self.ledger.by_saga) {
            let stranger = strangers.entry(saga).or_insert(Stranger { what: "a charge in the ledger", money: 0 });
            stranger.money += intents.iter().map(rules::stands).sum::<i64>();
        }
        let ids: Vec<SagaId> = strangers.keys().copied().collect();
        for page in ids.chunks(PAGE as usize) {
            for row in journal::load(journal, page).await.context("the journal cannot be read")? {
                strangers.remove(&row.id);
                self.counts.running += 1;
            }
        }
        for (saga, Stranger { what, money }) in strangers {
            rules::judge_unknown(saga, what, money, &mut self.found);
        }
        for intent in &self.ledger.of_nobody {
            rules::judge_nobody(intent, &mut self.found);
        }
        Ok(())
    }

    async fn outboxes(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let services = [
            eventicket_bookings::DATABASE,
            eventicket_payments::DATABASE,
            eventicket_events::DATABASE,
            eventicket_identity::DATABASE,
        ];
        for service in services {
            let pool = open(settings, service).await?;
            let (unsent, oldest): (i64, Option<i64>) =
                sqlx::query_as("SELECT count(*), min(created_at) FROM outbox WHERE sequence IS NULL")
                    .fetch_one(&pool)
                    .await
                    .with_context(|| format!("the outbox of {service} cannot be read"))?;
            self.counts.unsent += u64::try_from(unsent).unwrap_or(0);
            rules::judge_outbox(service, unsent, oldest.map(Timestamp), self.now, &mut self.found);
        }
        Ok(())
    }

    async fn dead_letters(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let nats = Nats::connect(&settings.nats_url, "eventicket-audit").await?;
        let stream = nats.jetstream().get_stream(subjects::DEADLETTERS_STREAM).await?;
        let state = stream.cached_info().state.clone();
        self.counts.dead_letters = state.messages;
        let mut sequence = state.first_sequence;
        let mut found = Vec::new();
        for _ in 0..state.messages.min(LETTERS) {
            let letter = stream.get_first_raw_message_by_subject(subjects::DEADLETTERS, sequence).await?;
            sequence = letter.sequence + 1;
            let reason = letter.headers.get(subjects::HEADER_REASON).map(|reason| reason.as_str().to_owned());
            let item =
                serde_json::from_slice::<Envelope<Keyed>>(&letter.payload).ok().and_then(|mut all| all.items.pop());
            let dead = DeadLetter {
                subject: letter.subject.to_string(),
                reason: reason.unwrap_or_default(),
                round: item.map(|item| (item.key.saga, item.key.step)),
            };
            let saga = dead.round.as_ref().and_then(|(saga, _)| self.saga(*saga));
            rules::judge_dead(&dead, saga, &mut found);
        }
        if state.messages > LETTERS {
            let reason = format!("there are {} more", state.messages - LETTERS);
            let more = DeadLetter { subject: subjects::DEADLETTERS.to_owned(), reason, round: None };
            rules::judge_dead(&more, None, &mut found);
        }
        self.found.extend(found);
        Ok(())
    }

    fn saga(&self, id: SagaId) -> Option<&SagaFacts> {
        self.sagas.binary_search_by_key(&id, |saga| saga.id).ok().and_then(|at| self.sagas.get(at))
    }

    fn findings(self) -> Findings {
        let Self { counts, ledger, found, .. } = self;
        let counts = vec![
            ("sagas judged", counts.judged),
            ("sagas that had not ended", counts.running),
            ("bookings confirmed", counts.confirmed),
            ("ticket types", counts.types),
            ("holds", counts.holds),
            ("tickets", counts.tickets),
            ("charges recorded", counts.charges),
            ("intents in the ledger", ledger.intents),
            ("charges that stand there", ledger.standing),
            ("mails asked for", counts.deliveries),
            ("events not yet told", counts.unsent),
            ("dead letters", counts.dead_letters),
        ];
        Findings { counts, found }
    }
}

/// Rows of all services about a page of sagas.
struct Page {
    holds: HashMap<SagaId, Vec<bookings::HoldFigures>>,
    tickets: HashMap<SagaId, Vec<bookings::TicketCount>>,
    charges: HashMap<SagaId, Vec<eventicket_payments::ChargeRow>>,
    deliveries: HashMap<SagaId, Vec<notifications::Recorded>>,
}

impl Page {
    /// Adds what is left: rows of sagas that were not read.
    fn strange(self, strangers: &mut Strangers) {
        let holds = self.holds.into_keys().map(|saga| (saga, "a hold"));
        let tickets = self.tickets.into_keys().map(|saga| (saga, "tickets"));
        let charges = self.charges.into_keys().map(|saga| (saga, "a charge"));
        for (saga, what) in holds.chain(tickets).chain(charges) {
            strangers.entry(saga).or_insert(Stranger { what, money: 0 });
        }
    }
}

async fn deliveries(
    pool: &PgPool,
    page: &[SagaFacts],
) -> anyhow::Result<HashMap<SagaId, Vec<notifications::Recorded>>> {
    let ids: Vec<SagaId> = page.iter().filter(|saga| saga.booking).map(|saga| saga.id).collect();
    let rows = notifications::deliveries(pool, &ids).await.context("the deliveries cannot be read")?;
    Ok(by_saga(rows, |row| row.key.saga))
}

fn by_saga<T>(rows: Vec<T>, saga: impl Fn(&T) -> SagaId) -> HashMap<SagaId, Vec<T>> {
    let mut map: HashMap<SagaId, Vec<T>> = HashMap::new();
    for row in rows {
        map.entry(saga(&row)).or_default().push(row);
    }
    map
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
