//! Clauses of the protocol, one test each, on a saga like a booking. `rule_NN` is the clause's number in the design.

mod answers;
mod fences;
mod holds;
mod no_return;
mod operators;
mod planted;
mod refusals;
mod unwinding;
mod way_back;

use std::sync::Arc;
use std::time::Duration;

use eventicket_saga::definition::{Call, Kind};
use eventicket_saga::testing::{Play, World};
use eventicket_saga::{
    Answer, Command, Deadline, Definition, Half, Illegal, Input, OnRejection, OperatorAction, Retry, Step,
};
use serde_json::{Value, json};

/// Length of a hold, ms.
const HOLD: i64 = 60_000;

/// RESERVE, AWAIT (when asked for), PAY, CONFIRM, NOTIFY, with a hold that ends.
fn booking() -> Definition {
    let call = |service: &str, action: &str| Call::new(service, action, |v| Ok(v.input().clone()));
    let mut pay = Command::new(call("payments", "charge")).undo(call("payments", "refund")).timeout(SECOND * 10);
    pay.retry = retry(3);
    pay.undo_retry = retry(3);
    pay.on_rejection = OnRejection::BackTo { wait: "AWAIT".into(), rounds: 3 };
    pay.replaced_by = Some("method".into());
    let confirm = Command::new(call("bookings", "confirm")).no_return();
    let notify = Command::new(call("notifications", "send")).best_effort().retry(retry(3));
    let definition = Definition {
        name: "booking".into(),
        version: 1,
        steps: vec![
            Step::command("RESERVE", Command::new(call("bookings", "reserve")).undo(call("bookings", "release"))),
            Step::wait("AWAIT", "method", None).when(|v| v.input().value()["wait"] == true),
            Step::command("PAY", pay).when(|v| v.input().value()["free"] != true),
            Step::command("CONFIRM", confirm),
            Step::command("NOTIFY", notify),
        ],
        deadlines: vec![Deadline {
            reason: "hold_expired".into(),
            at: Arc::new(|v| v.output("RESERVE")?.value()["hold_until"].as_i64()),
            unless: vec!["PAY".into()],
        }],
    };
    definition.validate().unwrap();
    definition
}

const SECOND: Duration = Duration::from_secs(1);

fn retry(attempts: u32) -> Retry {
    Retry { jitter: 0.0, ..Retry::new(attempts, SECOND, SECOND) }
}

/// Changes a step's command.
fn with(mut definition: Definition, step: &str, change: impl FnOnce(&mut Command)) -> Definition {
    let at = definition.position(step).unwrap();
    let Kind::Command(command) = &mut definition.steps[at].kind else { panic!("{step} is a wait") };
    change(command);
    definition
}

fn world() -> World {
    World::new(Arc::new(|send, now| match send.step.as_str() {
        "RESERVE" => json!({ "hold_until": now + HOLD }).into(),
        step => json!(step).into(),
    }))
}

/// A play that was started, with RESERVE done: PAY, or CONFIRM where it is free, is on its way.
fn reserved(definition: &Definition, input: Value) -> Play<'_> {
    let mut play = Play::new(definition, input.into(), world());
    play.start();
    play.deliver(0);
    play.deliver(0);
    play
}

/// An answer to the first round's effect.
fn answer(step: &str, attempt: u32, answer: Answer) -> Input {
    Input::Answer { step: step.into(), round: 1, half: Half::Do, attempt, answer }
}

/// An answer to the first round's undo.
fn undo_answer(step: &str, attempt: u32, answer: Answer) -> Input {
    Input::Answer { step: step.into(), round: 1, half: Half::Undo, attempt, answer }
}

fn done() -> Answer {
    Answer::Done(json!("late").into())
}

fn rejected() -> Answer {
    Answer::Rejected { code: "declined".into(), message: String::new() }
}

fn pending() -> Answer {
    Answer::Pending(json!("act").into())
}

fn busy() -> Answer {
    Answer::Retry { code: "busy".into() }
}

fn dead() -> Answer {
    Answer::Dead { reason: "poison".into() }
}

fn act(action: OperatorAction) -> Input {
    Input::Act { action, actor: "ann".into(), reason: "because".into() }
}

fn cancel() -> Input {
    act(OperatorAction::Cancel { code: "cancelled".into() })
}

fn method() -> Input {
    Input::Signal { name: "method".into(), payload: json!("card").into(), key: None }
}

/// The publish under way of a step's half was refused.
fn refused(play: &Play<'_>, step: &str, half: Half, resend: bool) -> Input {
    let state = &play.saga.steps[play.definition.position(step).unwrap()];
    let attempt = match half {
        Half::Do => state.attempts,
        Half::Undo => state.undo_attempts,
        Half::Fence => state.fence.as_ref().map_or(0, |f| f.attempts),
    };
    Input::Refused { step: step.into(), round: state.round, half, attempt, resend }
}

fn released(service: &str) -> Input {
    Input::Released { service: service.into() }
}

/// What is under way, as `PAY do 1` (the number is the attempt); emptied.
fn sent(play: &mut Play<'_>) -> Vec<String> {
    let name = |m: eventicket_saga::testing::Message| match m {
        eventicket_saga::testing::Message::Command(s) => {
            let half = match s.half {
                Half::Do => "do",
                Half::Undo => "undo",
                Half::Fence => "fence",
            };
            format!("{} {half} {}", s.step, s.attempt)
        }
        eventicket_saga::testing::Message::Reply(input) => format!("{input:?}"),
    };
    play.mail.drain(..).map(name).collect()
}

/// Goes to the time at which something is due.
fn tick(play: &mut Play<'_>) {
    assert!(play.wait());
}

fn reason<'a>(play: &'a Play<'_>) -> &'a str {
    play.saga.reason.as_ref().map_or("", |r| r.code.as_str())
}

fn not_now(result: Result<bool, Illegal>) -> bool {
    matches!(result, Err(Illegal::NotNow(_)))
}
