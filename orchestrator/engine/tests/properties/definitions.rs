//! Random definitions: everything that a definition can say, in any sound combination.

use std::sync::Arc;
use std::time::Duration;

use eventicket_saga::Json;
use eventicket_saga::definition::{Body, Call, Command, Deadline, Definition, OnRejection, Retry, Step, When};
use eventicket_saga::testing::Choices;
use serde_json::{Value, json};

pub const SERVICES: [&str; 3] = ["a", "b", "c"];
pub const SIGNALS: [&str; 2] = ["red", "blue"];
/// Names of the steps, and one more that no definition has.
pub const NAMES: [&str; 9] = ["S0", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"];
/// Code of a transient failure after which trying again is pointless.
pub const HOPELESS: &str = "hopeless";

/// Bodies shared by all definitions.
pub struct Bodies {
    sound: Body,
    broken: Body,
    flaky: Body,
}

impl Bodies {
    pub fn new() -> Self {
        let flaky = |v: &eventicket_saga::View<'_>| {
            if v.saga.seq.is_multiple_of(3) { Err("flaky".to_owned()) } else { Ok(Json::NULL) }
        };
        Self { sound: Arc::new(|_| Ok(Json::NULL)), broken: Arc::new(|_| Err("broken".into())), flaky: Arc::new(flaky) }
    }

    fn pick(&self, c: &mut Choices) -> Body {
        match c.choose(60) {
            0 => self.broken.clone(),
            1..=3 => self.flaky.clone(),
            _ => self.sound.clone(),
        }
    }
}

/// A sound definition of 1 to 8 steps.
pub fn definition(c: &mut Choices, bodies: &Bodies) -> Definition {
    let n = 1 + c.choose(8);
    // Every third definition begins with a wait and a step that the same signal replaces.
    let replaced = n > 1 && c.one_in(3);
    let no_return = (!c.one_in(3)).then(|| c.choose(n)).filter(|p| !replaced || *p > 1);
    let mut steps: Vec<Step> = Vec::new();
    for (at, name) in NAMES.iter().enumerate().take(n) {
        let past = no_return.is_some_and(|p| at > p);
        let (wait, command_) = (replaced && at == 0, replaced && at == 1);
        let step = if wait || (no_return != Some(at) && !past && !command_ && c.one_in(4)) {
            let timeout = c.one_in(3).then(|| (millis(c, 3_000), "too_slow".to_owned()));
            if !wait && c.one_in(6) {
                Step::by_hand(name, "by hand")
            } else {
                Step::wait(name, SIGNALS[c.choose(2)], timeout)
            }
        } else {
            let mut command = command(c, bodies);
            command.no_return = no_return == Some(at);
            command.best_effort = past || (!command.no_return && c.one_in(4));
            if !command.no_return {
                if command_ {
                    command.undo.get_or_insert_with(|| Call {
                        service: "a".into(),
                        action: "undo".into(),
                        body: bodies.pick(c),
                    });
                }
                depend(c, &mut command, &steps);
            }
            let back = !command.no_return && command.undo.is_none() && command.on_rejection == OnRejection::Unwind;
            let step = Step::command(name, command);
            if back && !command_ && c.one_in(3) { step.on_unwinding() } else { step }
        };
        let step = match c.choose(8) {
            0 => step.when(|_| false),
            1 => step.when(|v| v.output("S0").is_some()),
            _ => step,
        };
        steps.push(step);
    }
    let deadlines = (0..c.choose(3)).map(|_| deadline(c, n)).collect();
    let definition = Definition { name: "random".into(), version: 1, steps, deadlines };
    definition.validate().unwrap();
    definition
}

fn command(c: &mut Choices, bodies: &Bodies) -> Command {
    let service = SERVICES[c.choose(3)];
    let mut command = Command::new(Call { service: service.into(), action: "do".into(), body: bodies.pick(c) });
    if !c.one_in(4) {
        let service = if c.one_in(4) { SERVICES[c.choose(3)] } else { service };
        command.undo = Some(Call { service: service.into(), action: "undo".into(), body: bodies.pick(c) });
    }
    command.timeout = millis(c, 1_000);
    command.retry = retry(c);
    command.undo_retry = retry(c);
    command.ask_every = millis(c, 1_000);
    command
}

fn retry(c: &mut Choices) -> Retry {
    let attempts = 1 + u32::try_from(c.choose(4)).unwrap();
    let mut retry = Retry::new(attempts, millis(c, 300), millis(c, 1_000));
    retry.not_on = vec![HOPELESS.to_owned()];
    retry
}

/// Up to `most` ms, and none at all now and then.
fn millis(c: &mut Choices, most: usize) -> Duration {
    if c.one_in(8) { Duration::ZERO } else { Duration::from_millis(c.choose(most) as u64) }
}

/// What hangs on earlier waits.
fn depend(c: &mut Choices, command: &mut Command, earlier: &[Step]) {
    let wait = |s: &Step| match &s.kind {
        eventicket_saga::definition::Kind::Wait(w) => Some((s.name.clone(), w.signal.clone())),
        eventicket_saga::definition::Kind::Command(_) => None,
    };
    if let Some((wait, _)) = earlier.last().and_then(wait).filter(|_| c.one_in(2)) {
        command.on_rejection = OnRejection::BackTo { wait, rounds: 1 + u32::try_from(c.choose(3)).unwrap() };
    }
    if let Some((_, signal)) = earlier.iter().rev().find_map(wait).filter(|_| command.undo.is_some() && !c.one_in(3)) {
        command.replaced_by = Some(signal);
    }
}

fn deadline(c: &mut Choices, steps: usize) -> Deadline {
    let at: When = if c.one_in(2) {
        let after = i64::try_from(c.choose(5_000)).unwrap();
        Arc::new(move |v| Some(v.saga.started_at + after))
    } else {
        let step = NAMES[c.choose(steps)];
        Arc::new(move |v| v.output(step)?.value()["end"].as_i64())
    };
    let unless = (0..c.choose(4)).map(|_| NAMES[c.choose(steps)].to_owned()).collect();
    Deadline { reason: "deadline".into(), at, unless }
}

/// An output that a deadline may hang on.
pub fn output(now: i64) -> Value {
    json!({ "end": now + 1_500 })
}
