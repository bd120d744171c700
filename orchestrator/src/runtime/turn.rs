//! One turn of the orchestrator, without IO: inputs in, changed sagas and messages out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use eventicket_contracts::envelope::{self, Fence, Item, Key};
use eventicket_contracts::sagas::StatusChange;
use eventicket_contracts::{SagaId, Timestamp};
use eventicket_nats::Fault;
use eventicket_planted::Fault as Planted;
use eventicket_saga::transition::DEFINITION_ERROR;
use eventicket_saga::{
    Answer, Definition, Effect, Entry, Illegal, Input, Json, Moment, Question, Send, State, What, apply,
};

use super::admission::Shut;
use super::held::Waits;
use super::row::{Row, held, outstanding};
use super::spans;
use crate::sagas::Catalogue;

/// What a turn looks at besides the sagas.
pub struct World<'a> {
    /// The definitions.
    pub catalogue: &'a Catalogue,
    /// The time.
    pub now: Timestamp,
    /// Any number, for jitter.
    pub noise: u64,
    /// Services that nothing is sent to.
    pub shut: &'a Shut,
    /// For a half-open breaker's probe: this saga may pass to this service.
    pub probe: Option<(SagaId, String)>,
}

/// What became of one input.
#[derive(Debug, PartialEq)]
pub enum Fate {
    /// It changed the saga; takes effect with the commit.
    Applied,
    /// It had been taken before.
    Repeated,
    /// The state does not allow it.
    Illegal(Illegal),
    /// No such saga.
    Unknown,
    /// This build does not know the saga's definition; another replica may.
    Foreign,
}

/// A command that a saga sends.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The saga.
    pub saga: SagaId,
    /// The command.
    pub send: Send,
    /// Its ordering key.
    pub order: uuid::Uuid,
    /// As it travels.
    pub item: Item,
}

/// Runs what a definition, or its kind, brings along. A panic in it is an error with the panic's text: it breaks one
/// input, not the replica.
///
/// # Errors
/// It panicked.
pub fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| Fault::of_panic(&*panic).to_string())
}

/// The same for what is only shown, which is left out then.
pub fn shown<T: Default>(run: impl FnOnce() -> T) -> T {
    guarded(run).unwrap_or_else(|error| {
        tracing::error!(error, "what is shown of a saga cannot be made");
        T::default()
    })
}

/// The status of a saga that nobody waits for, by convention of all kinds.
const PENDING: &str = "pending";

/// A saga's standing before its turn.
#[derive(Clone, Debug)]
pub struct Standing {
    status: &'static str,
    outstanding: BTreeMap<String, i64>,
}

/// The changes of one turn, by saga.
#[derive(Default)]
pub struct Changes {
    /// Sagas that changed.
    pub changed: BTreeSet<SagaId>,
    /// Their commands, in order.
    pub sends: Vec<Outgoing>,
    /// Calls that were answered or timed out: of which saga, at which service; true is a failure.
    pub calls: Vec<(SagaId, String, bool)>,
    before: HashMap<SagaId, Standing>,
}

/// Feeds one input to a loaded saga.
pub fn feed(world: &World<'_>, rows: &mut HashMap<SagaId, Row>, id: SagaId, input: Input, out: &mut Changes) -> Fate {
    let Some(row) = rows.get_mut(&id) else { return Fate::Unknown };
    let Some(definition) = world.catalogue.registry.get(&row.saga.definition, row.saga.version).cloned() else {
        return Fate::Foreign;
    };
    out.before.entry(id).or_insert_with(|| standing(world.catalogue, row, &definition));
    let mut closed = Cow::Borrowed(world.shut.to(&input));
    if let Some((probe, service)) = &world.probe
        && *probe == id
    {
        closed.to_mut().remove(service);
    }
    let moment = Moment { now: world.now.millis(), noise: world.noise ^ row.id.0.as_u64_pair().1, closed: &closed };
    let fenced = fenced(&definition, &input);
    let output = match apply(&definition, &mut row.saga, input, &moment) {
        Ok(output) if output.repeated => return Fate::Repeated,
        Ok(output) => output,
        Err(illegal) => return Fate::Illegal(illegal),
    };
    row.updated_at = world.now;
    let calls = output.history.iter().filter_map(|e| call(&definition, e)).chain(fenced);
    out.calls.extend(calls.map(|(service, failed)| (id, service, failed)));
    row.news.extend(output.history);
    for effect in output.effects {
        if let Effect::Send(send) = effect {
            out.sends.push(outgoing(row, send));
        }
    }
    out.changed.insert(id);
    Fate::Applied
}

/// What an entry of the history tells of the service that was called; a rejection is a good answer.
fn call(definition: &Definition, entry: &Entry) -> Option<(String, bool)> {
    let command = definition.command(definition.position(entry.step.as_deref()?)?)?;
    let undo = || command.undo.as_ref().map(|u| u.service.clone());
    match entry.what {
        // Its body could not be built, so nothing was sent.
        What::Rejected if entry.error.as_deref() == Some(DEFINITION_ERROR) => None,
        What::Rejected if Planted::RejectionsTrip.is_planted() => Some((command.call.service.clone(), true)),
        What::Done | What::Rejected | What::Pending => Some((command.call.service.clone(), false)),
        What::TimedOut | What::Retrying => Some((command.call.service.clone(), true)),
        What::Undone | What::UndoPending => Some((undo()?, false)),
        What::UndoTimedOut | What::UndoRetrying => Some((undo()?, true)),
        _ => None,
    }
}

/// A service that tells what it knows of a round has answered, also where the history has it already.
fn fenced(definition: &Definition, input: &Input) -> Option<(String, bool)> {
    let Input::Answer { step, answer: Answer::Fenced(_), .. } = input else { return None };
    let command = definition.command(definition.position(step)?)?;
    Some((command.call.service.clone(), false))
}

fn outgoing(row: &Row, send: Send) -> Outgoing {
    let half = match send.half {
        eventicket_saga::Half::Do => envelope::Half::Do,
        eventicket_saga::Half::Undo => envelope::Half::Undo,
        eventicket_saga::Half::Fence => envelope::Half::Fence,
    };
    let body = match send.question {
        None => Ok(send.body.clone()),
        Some(Question { id, undo }) => {
            let (action, body) = (send.action.clone(), send.body.clone());
            Json::of(&Fence { id, action, undo, body })
        }
    };
    let item = Item {
        key: Key { saga: row.id, step: send.step.clone(), round: send.round },
        half,
        attempt: send.attempt,
        deadline: send.deadline.map(Timestamp),
        trace: spans::of_command(row, &send),
        body: body.unwrap_or_default(),
    };
    Outgoing { saga: row.id, order: row.event.map_or(row.id.0, |e| e.0), send, item }
}

fn standing(catalogue: &Catalogue, row: &Row, definition: &Arc<Definition>) -> Standing {
    Standing { status: status(catalogue, row), outstanding: outstanding(&row.saga, definition) }
}

fn status(catalogue: &Catalogue, row: &Row) -> &'static str {
    catalogue.kind(&row.saga.definition).map_or("", |k| shown(|| (k.status)(&row.saga)))
}

/// The definition's view of a saga.
pub fn view(catalogue: &Catalogue, row: &Row) -> Json {
    catalogue.kind(&row.saga.definition).map(|k| shown(|| (k.view)(&row.view()))).unwrap_or_default()
}

impl Changes {
    /// Adds what a saga's change means to the number of commands in flight.
    pub fn count(&self, catalogue: &Catalogue, row: &Row, counts: &mut BTreeMap<String, i64>) {
        let Some(definition) = catalogue.registry.get(&row.saga.definition, row.saga.version) else { return };
        for (service, n) in outstanding(&row.saga, definition) {
            *counts.entry(service).or_default() += n;
        }
        for (service, n) in self.before.get(&row.id).iter().flat_map(|b| &b.outstanding) {
            *counts.entry(service.clone()).or_default() -= n;
        }
    }

    /// For a stored saga: what changed for the world to see.
    pub fn settle(&self, catalogue: &Catalogue, row: &Row) -> Settled {
        let state = row.saga.state();
        let Some(definition) = catalogue.registry.get(&row.saga.definition, row.saga.version) else {
            return Settled { state, held: BTreeMap::new(), due: None, change: None };
        };
        let status = status(catalogue, row);
        let seen = self.before.get(&row.id).filter(|_| row.version > 1).map(|b| b.status);
        let change = (seen != Some(status)).then(|| StatusChange {
            id: row.id,
            status: status.to_owned(),
            version: row.version,
            view: (status != PENDING).then(|| view(catalogue, row)),
        });
        let due = row.saga.next_due(definition).map(Timestamp);
        Settled { state, held: held(&row.saga, definition), due, change }
    }
}

/// What a stored change means to the runtime.
pub struct Settled {
    /// Its state now.
    pub state: State,
    /// The services that it waits for.
    pub held: BTreeMap<String, Waits>,
    /// When it wants a timer.
    pub due: Option<Timestamp>,
    /// To be told to whoever waits for it.
    pub change: Option<StatusChange>,
}
