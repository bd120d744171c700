//! The service without its store, its driver's tasks and its sockets, for the simulator: what commands, answers of the
//! payment gateway and webhooks make of a row. Rows are opaque; what an invariant has to know of them can be asked.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use eventicket_contracts::envelope::{Key, Reply};
use eventicket_contracts::payments::FailedRefund;
use eventicket_contracts::{Money, SagaId, Timestamp};
use eventicket_kit::Settings;
use eventicket_kit::seal::SealKeys;
use eventicket_nats::{Delivered, Handled};

use crate::charge::{Charge, Outcome, State};
use crate::commands::{Origin, Rows, Surroundings};
use crate::decide;
use crate::gateway;
use crate::hint::{self, Hint};
use crate::{recorder, watch, webhooks, wire};

/// A row of `charges`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(Charge);

impl Row {
    /// Its round.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.0.state
    }

    /// How the do ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.outcome
    }

    /// Rises with each write.
    pub fn version(&self) -> i32 {
        self.0.version
    }

    /// The gateway's intent, once its id is committed.
    pub fn intent(&self) -> Option<&str> {
        self.0.intent.as_deref()
    }

    /// What is charged.
    pub fn amount(&self) -> Option<Money> {
        self.0.terms.as_ref().map(|terms| terms.amount)
    }

    /// How often the key of its create was replaced, since a failure was stored under it.
    pub fn create_keys(&self) -> u32 {
        self.0.keys.create
    }

    /// The saga that stands for a refund which failed.
    pub fn failed_refund(&self) -> Option<SagaId> {
        self.0.failed_refund
    }

    /// Whether its next call is not to be made at once.
    pub fn is_slow(&self) -> bool {
        decide::is_slow(&self.0)
    }

    /// The call that it waits for.
    pub fn next_call(&self) -> Option<Call> {
        decide::next_call(&self.0).map(Call)
    }

    /// The row as it is written, with what follows from its state; `fresh` names the saga of a failed refund.
    pub fn to_write(self, fresh: SagaId) -> Self {
        Self(self.0.with_fence_answered().with_saga(fresh))
    }

    /// The row that was read, once another replica drives it.
    pub fn taken_over(&self) -> Self {
        Self(Charge { version: self.0.version + 1, ..self.0.clone() })
    }

    /// The replies that leave once the change from `before` is committed.
    pub fn replies(&self, before: &Self) -> Vec<Reply> {
        self.0.replies(&before.0).into_iter().map(|(_, reply)| reply).collect()
    }

    /// What is told to who asks while it waits.
    pub fn standing(&self, settling: bool) -> Vec<Reply> {
        self.0.standing(settling).into_iter().map(|(_, reply)| reply).collect()
    }

    /// The saga that the change from `before` opens.
    pub fn opens(&self, before: &Self) -> Option<(SagaId, FailedRefund)> {
        recorder::failed_refund(&before.0, &self.0)
    }

    /// Whether its refund is to be looked at again.
    pub fn is_watched(&self) -> bool {
        self.0.state == State::Refunded && self.0.refund.is_some()
    }

    /// The row where a look at its refund shows that it failed after its success.
    pub fn looked_at(&self, observed: &Observed) -> Looked {
        match &observed.0 {
            decide::Observed::Refund { status: decide::RefundStatus::Failed, reason, .. } => {
                Looked::Failed(Box::new(Self(self.0.refund_failed(reason.clone()))))
            }
            decide::Observed::Refund { .. } => Looked::Stands,
            _ => Looked::Unknown,
        }
    }
}

/// What a look at a refund shows.
#[derive(Debug)]
pub enum Looked {
    /// It failed; the row as it is to be written.
    Failed(Box<Row>),
    /// It stands.
    Stands,
    /// There was no answer.
    Unknown,
}

/// The gap behind so many looks at a refund.
pub fn gap(looks: u32) -> Duration {
    watch::gap(looks)
}

/// A call to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(decide::Call);

impl Call {
    /// The confirm of an intent.
    pub const CONFIRM: Self = Self(decide::Call::Confirm);
    /// The look at a refund.
    pub const READ_REFUND: Self = Self(decide::Call::ReadRefund);
}

/// What was seen of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed(decide::Observed);

impl Observed {
    /// No answer came.
    pub fn nothing(why: &str) -> Self {
        Self(decide::Observed::Unknown(why.to_owned()))
    }

    /// An answer came.
    pub fn answer(status: u16, replayed: bool, body: &[u8], call: Call) -> Self {
        Self(wire::read(status, replayed, body, call.0))
    }
}

/// What follows from what was seen.
#[derive(Debug)]
pub enum Verdict {
    /// Commit the row so, then go on from it.
    Write(Box<Row>),
    /// This call, at once.
    Call(Call),
    /// The call of the row's state again, later.
    Later {
        /// The bank or the customer takes time; otherwise the gateway is in trouble.
        slow: bool,
    },
}

/// What follows from what was seen of `call`.
pub fn observe(row: &Row, call: Call, observed: Observed) -> Verdict {
    match decide::observe(&row.0, call.0, observed.0) {
        decide::Verdict::Write(after) => Verdict::Write(Box::new(Row(*after))),
        decide::Verdict::Call(call) => Verdict::Call(Call(call)),
        decide::Verdict::Later(delay) => Verdict::Later { slow: delay == decide::Delay::Slow },
    }
}

/// A request to the payment gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// `POST` or `GET`.
    pub method: String,
    /// Below `/v1/`, with its query.
    pub path: String,
    /// The idempotency key.
    pub key: Option<String>,
    /// Form-encoded.
    pub body: Vec<u8>,
}

impl Request {
    /// What goes over the wire.
    fn of(request: &hyper::Request<Bytes>) -> Self {
        let path = request.uri().to_string();
        let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
        Self {
            method: request.method().to_string(),
            path: path.strip_prefix("/v1/").unwrap_or(&path).to_owned(),
            key: key.map(str::to_owned),
            body: request.body().to_vec(),
        }
    }
}

/// Makes the requests of calls.
pub struct Requests(gateway::Gateway);

impl Requests {
    /// With the keys of sealed payment methods that `settings` hold.
    ///
    /// # Errors
    /// The keys cannot be read.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        gateway::Gateway::new(settings, 0).map(Self)
    }

    /// The request of a call, or what stands in for its answer where it cannot be made.
    ///
    /// # Errors
    /// What is seen in the place of an answer.
    pub fn request(&self, row: &Row, call: Call) -> Result<Request, Observed> {
        let request = self.0.request(&row.0, call.0, None).map_err(|observed| Observed(*observed))?;
        Ok(Request::of(&request))
    }
}

/// What a batch of commands comes to.
#[derive(Debug)]
pub struct Decided {
    /// One a command, in their order.
    pub handled: Vec<Handled>,
    /// Rows to be made.
    pub inserted: Vec<Row>,
    /// Rows to be written over the version before theirs.
    pub updated: Vec<Row>,
    /// Rows that the driver takes up, with whether somebody asked for them.
    pub driven: Vec<(Row, bool)>,
}

/// Decides a batch over the rows of its rounds, each with whether this replica drives it.
pub fn decide(found: HashMap<Key, (Row, bool)>, batch: &[Delivered], now: Timestamp, seal: &SealKeys) -> Decided {
    let found = found.into_iter().map(|(key, (row, mine))| (key, (row.0, mine)));
    let mut rows = Rows::new(found.collect());
    let surroundings = Surroundings { now, seal, is_full: false };
    let handled = batch.iter().map(|command| rows.handle(command, &surroundings)).collect();
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by(|a, b| a.0.key.cmp(&b.0.key));
        rows
    };
    let written = |origin| sorted(rows.written(origin).into_iter().cloned().map(Row).collect());
    let (inserted, updated) = (written(Origin::New), written(Origin::Stored));
    let mut driven: Vec<_> = rows.due().map(|(charge, origin)| (Row(charge), origin == Origin::Stored)).collect();
    driven.sort_by(|(a, _), (b, _)| a.0.key.cmp(&b.0.key));
    Decided { handled, inserted, updated, driven }
}

/// A webhook that concerns a round.
#[derive(Clone, Debug)]
pub struct Event(hint::Event);

impl Event {
    /// Reads the body of a webhook.
    pub fn read(body: &[u8]) -> Option<Self> {
        webhooks::event::read(body).map(Self)
    }

    /// The gateway's id of it.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The round.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// What follows for the row that it names.
    pub fn hint(&self, row: &Row) -> Hinted {
        match hint::hint(&row.0, &self.0.told) {
            Hint::Nothing => Hinted::Nothing,
            Hint::NotYet => Hinted::NotYet,
            Hint::Write(after) => Hinted::Write(Box::new(Row(*after))),
            Hint::Stray(stray) => {
                let before = Box::new(Row(Charge { version: 0, ..(*stray).clone() }));
                Hinted::Stray { before, after: Box::new(Row(*stray)) }
            }
        }
    }
}

/// What follows from a webhook.
#[derive(Debug)]
pub enum Hinted {
    /// Nothing.
    Nothing,
    /// It has to come again.
    NotYet,
    /// Commit the row so.
    Write(Box<Row>),
    /// Money was taken with an intent that is not the round's own: a row of its own.
    Stray {
        /// In the place of a former version.
        before: Box<Row>,
        /// The new row.
        after: Box<Row>,
    },
}
