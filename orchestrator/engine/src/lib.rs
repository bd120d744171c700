//! The saga engine's pure core: what a saga does next is one total function of definition, state, input and time.
//!
//! Nothing here does IO, reads a clock or draws random numbers. A runtime feeds [`Input`]s to [`apply`], stores the
//! changed [`Saga`] with its history, and then carries out the [`Effect`]s. Times are milliseconds since 1970.
//!
//! * [`definition`]: steps, undos, conditions, retries, waits, deadlines, the point of no return.
//! * [`state`]: where a saga stands; serialised by the runtime.
//! * [`input`]: what is fed to it, and what comes out.
//! * [`transition`]: the match over (state, input).
//! * [`registry`]: the definitions that a runtime knows, in all versions in flight.
//! * [`breaker`]: when calls of a service are held.
//! * [`testing`]: services in memory, to test definitions in every order of messages and with every failure.
//!
//! # An order
//!
//! Stock is taken, the customer is charged, the parcel is sent. Once the parcel is on its way there is no way back; until
//! then whatever was done is undone when a later step fails.
//!
//! ```
//! use std::collections::BTreeSet;
//! use eventicket_saga::definition::{Call, Command, Definition, Step};
//! use eventicket_saga::{Answer, Effect, Half, Input, Json, Moment, Phase, Saga, apply};
//! use serde_json::json;
//!
//! let call = |service: &str, action: &str| Call::new(service, action, |view| Ok(view.input().clone()));
//! let order = Definition {
//!     name: "order".into(),
//!     version: 1,
//!     steps: vec![
//!         Step::command("TAKE", Command::new(call("stock", "take")).undo(call("stock", "put_back"))),
//!         Step::command("CHARGE", Command::new(call("money", "charge")).undo(call("money", "refund"))),
//!         Step::command("SHIP", Command::new(call("parcels", "ship")).no_return()),
//!     ],
//!     deadlines: vec![],
//! };
//! order.validate().unwrap();
//!
//! // What a runtime does: feed, store the saga, then send.
//! let mut saga = Saga::new(uuid::Uuid::nil(), &order, json!({ "item": 7 }).into(), 0);
//! let nobody = BTreeSet::new();
//! let mut feed = |input: Input, now: i64| {
//!     let output = apply(&order, &mut saga, input, &Moment { now, noise: 0, closed: &nobody }).unwrap();
//!     let sends = output.effects.iter().filter_map(|e| match e {
//!         Effect::Send(send) => Some(format!("{}.{}", send.service, send.action)),
//!         Effect::Ended => None,
//!     });
//!     (sends.collect::<Vec<_>>(), saga.phase)
//! };
//! let answer = |step: &str, half: Half, answer: Answer| {
//!     Input::Answer { step: step.into(), round: 1, half, attempt: 1, answer }
//! };
//!
//! assert_eq!(feed(Input::Start, 0).0, ["stock.take"]);
//! assert_eq!(feed(answer("TAKE", Half::Do, Answer::Done(Json::NULL)), 10).0, ["money.charge"]);
//! // No money: the stock is put back.
//! let no = Answer::Rejected { code: "declined".into(), message: "no funds".into() };
//! assert_eq!(feed(answer("CHARGE", Half::Do, no), 20).0, ["stock.put_back"]);
//! assert_eq!(feed(answer("TAKE", Half::Undo, Answer::Done(Json::NULL)), 30).1, Phase::Compensated);
//! ```

pub mod breaker;
pub mod definition;
pub mod input;
pub mod registry;
pub mod state;
pub mod testing;
pub mod transition;

pub use eventicket_json::Json;

pub use definition::{Command, Deadline, Definition, OnRejection, Retry, Step, View, Wait};
pub use input::{
    Answer, Effect, Entry, Found, Illegal, Input, Moment, OperatorAction, Output, Question, Recorded, Send, What,
};
pub use registry::Registry;
pub use state::{Attention, Fence, Half, Origin, Phase, Purpose, Saga, SignalKey, State, Status, StepState, Undo};
pub use transition::apply;
