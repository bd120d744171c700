//! What an input means: its saga, its rank among others, its form for the engine, and its answer's address.

use std::collections::BTreeMap;

use async_nats::Subject;
use bytes::Bytes;
use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::identity::Idempotency;
use eventicket_contracts::sagas::{ActAnswer, Action, AnsweredStart, StartAnswer};
use eventicket_contracts::{SagaId, codes};
use eventicket_saga::{Input, Json, OperatorAction, SignalKey};

use super::intake::Work;
use super::row::Row;

pub(crate) fn conflict_code(illegal: &eventicket_saga::Illegal) -> &'static str {
    use eventicket_saga::Illegal;
    match illegal {
        Illegal::Ended => "ended",
        Illegal::PastNoReturn => "past_no_return",
        Illegal::Unwinding => "unwinding",
        Illegal::NotAwaited(_) => "not_awaited",
        Illegal::KeyReused => codes::KEY_REUSED,
        Illegal::Unfit { .. } => "unfit_output",
        _ => "conflict",
    }
}

/// The answer to an action as it travels, where somebody waits for it.
pub(super) fn addressed<M>(work: &Work<M>, answer: &ActAnswer) -> Option<(Subject, Bytes)> {
    let Work::Act(_, Some(to)) = work else { return None };
    Some((to.clone(), serde_json::to_vec(answer).unwrap_or_default().into()))
}

/// Answers to starts, those to one asker together.
#[derive(Default)]
pub(super) struct StartAnswers(BTreeMap<String, Vec<AnsweredStart>>);

impl StartAnswers {
    /// Adds the answer to a start, where somebody waits for it.
    pub fn add<M>(&mut self, work: &Work<M>, answer: StartAnswer) {
        let Work::Start(start, Some(to)) = work else { return };
        let answered = AnsweredStart { id: start.id, answer };
        match self.0.get_mut(to.as_str()) {
            Some(answers) => answers.push(answered),
            None => drop(self.0.insert(to.to_string(), vec![answered])),
        }
    }

    /// As they travel.
    pub fn addressed(self) -> impl Iterator<Item = (Subject, Bytes)> {
        let payload = |answers: Vec<AnsweredStart>| serde_json::to_vec(&Envelope::new(answers)).unwrap_or_default();
        self.0.into_iter().map(move |(to, answers)| (to.into(), payload(answers).into()))
    }
}

/// Replies before anything else, starts last; what is equal keeps its order.
pub fn rank<M>(work: &Work<M>) -> u8 {
    match work {
        Work::Reply(..) => 0,
        Work::Start(..) => 2,
        _ => 1,
    }
}

/// The saga that an input is for.
pub fn saga_of<M>(work: &Work<M>) -> Option<SagaId> {
    Some(match work {
        Work::Reply(reply, _) => reply.key.saga,
        Work::Act(act, _) => act.saga,
        Work::Poke(saga, _) | Work::Adopt(saga) | Work::Probe(saga, _) => *saga,
        Work::Start(start, _) => start.id,
    })
}

/// Another customer's saga is not found.
pub(super) fn not_yours<M>(work: &Work<M>, row: Option<&Row>) -> Option<ActAnswer> {
    let Work::Act(act, _) = work else { return None };
    let owner = act.owner?;
    (row?.owner != Some(owner)).then_some(ActAnswer::NotFound)
}

pub(super) fn input_of<M>(work: &Work<M>) -> Option<(SagaId, Input)> {
    Some(match work {
        Work::Reply(reply, _) => (reply.key.saga, answer_input(reply)),
        Work::Act(act, _) => (act.saga, act_input(&act.action, &act.actor, &act.reason)),
        Work::Poke(saga, input) => (*saga, input.clone()),
        Work::Adopt(saga) => (*saga, Input::Resend),
        Work::Probe(saga, service) => (*saga, Input::Released { service: service.clone() }),
        Work::Start(..) => return None,
    })
}

/// What an action from outside is to the engine.
pub(crate) fn act_input(action: &Action, actor: &str, reason: &str) -> Input {
    let action = match action.clone() {
        Action::Signal { name, payload, idempotency } => {
            let key = idempotency.map(|Idempotency { key, fingerprint }| SignalKey { key, fingerprint });
            return Input::Signal { name, payload, key };
        }
        Action::Cancel => OperatorAction::Cancel { code: codes::CANCELLED.into() },
        Action::Retry => OperatorAction::Retry,
        Action::Skip { output } => OperatorAction::Skip { output },
        Action::Compensate => OperatorAction::Compensate,
        Action::Pause => OperatorAction::Pause,
        Action::Resume => OperatorAction::Resume,
        Action::Resolve { step } => OperatorAction::Resolve { step },
        Action::Abandon { force } => OperatorAction::Abandon { force },
        Action::Replayed { step } => OperatorAction::Replayed { step },
    };
    Input::Act { action, actor: actor.to_owned(), reason: reason.to_owned() }
}

fn answer_input(reply: &eventicket_contracts::envelope::Reply) -> Input {
    use eventicket_contracts::envelope::{Answer as Wire, Half};
    use eventicket_saga::Answer;
    let answer = match reply.answer.clone() {
        Wire::Done(output) if reply.half == Half::Fence => match found(&output) {
            Some(found) => Answer::Fenced(found),
            None => Answer::Dead { reason: "not an answer to a fence".to_owned() },
        },
        Wire::Done(output) => Answer::Done(output),
        Wire::Rejected(r) => Answer::Rejected { code: r.code, message: r.message },
        Wire::Pending(output) => Answer::Pending(output),
        Wire::Retry(code) => Answer::Retry { code },
        Wire::Expired => Answer::Expired,
        Wire::Dead(reason) => Answer::Dead { reason },
    };
    let half = match reply.half {
        Half::Do => eventicket_saga::Half::Do,
        Half::Undo => eventicket_saga::Half::Undo,
        Half::Fence => eventicket_saga::Half::Fence,
    };
    Input::Answer { step: reply.key.step.clone(), round: reply.key.round, half, attempt: reply.attempt, answer }
}

/// What a fence's answer tells, for the engine.
fn found(output: &Json) -> Option<eventicket_saga::Found> {
    use eventicket_contracts::envelope::{Fenced, Recorded as Wire};
    use eventicket_saga::Recorded;
    let Fenced { id, effect, undo } = output.read::<Fenced>().ok()?;
    let recorded = |half: Wire| match half {
        Wire::Done(output) => Recorded::Done(output),
        Wire::Rejected(r) => Recorded::Rejected { code: r.code },
        Wire::Closed => Recorded::Closed,
    };
    Some(eventicket_saga::Found { id, effect: recorded(effect), undo: undo.map(recorded) })
}
