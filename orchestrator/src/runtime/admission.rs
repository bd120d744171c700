//! Back-pressure (6.12): how many commands may be in flight at a service, and what gives way first.

use std::collections::BTreeSet;

use eventicket_saga::definition::{Definition, Kind, View};
use eventicket_saga::{Answer, Half, Input, Saga};

use super::turn::guarded;

/// Most commands in flight at a service, over all replicas. New sagas give way first, then the steps of running ones;
/// the last share is for undos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(pub i64);

impl Default for Bound {
    /// Half a second of work on a small machine, so that what is admitted in a rush ends within a second; with envelopes of
    /// up to 256 commands it still fills several at each service.
    fn default() -> Self {
        Self(1_280)
    }
}

/// Timers that fire in a turn however much is in flight.
const FEW_TIMERS: usize = 16;

/// Commands that may be sent at once to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Undos.
    pub undos: usize,
    /// Effects, beside those undos where they are fewer.
    pub effects: usize,
}

impl Bound {
    /// Commands in flight at all the services together that a new saga surely calls, from which on none may begin.
    pub fn starts(self) -> i64 {
        self.0 * 3 / 4
    }

    /// Whether steps have to wait.
    pub fn is_full(self, outstanding: i64) -> bool {
        outstanding >= self.effects()
    }

    /// Whether undos have to wait, too.
    pub fn is_brimful(self, outstanding: i64) -> bool {
        outstanding >= self.0
    }

    /// How many waiting commands may go, at most `most` of a kind.
    pub fn room(self, outstanding: i64, most: usize) -> Room {
        let below = |bound: i64| usize::try_from(bound - outstanding).unwrap_or(0).min(most);
        Room { undos: below(self.0), effects: below(self.effects()) }
    }

    /// How many timers may fire at once, where the fullest service has so many commands in flight. What expires together
    /// takes half of a service, so that others can go on beside it; a few always may.
    pub fn timers(self, outstanding: i64, most: usize) -> usize {
        usize::try_from(self.0 / 2 - outstanding).unwrap_or(0).clamp(FEW_TIMERS.min(most), most)
    }

    fn effects(self) -> i64 {
        self.0 * 7 / 8
    }
}

/// The services that nothing is sent to now, by what is at hand.
#[derive(Clone, Debug, Default)]
pub struct Shut {
    /// Those whose breaker is open.
    pub breakers: BTreeSet<String>,
    effects: BTreeSet<String>,
    all: BTreeSet<String>,
}

impl Shut {
    /// Of these services, with the open breakers among them; `outstanding` counts a service's commands in flight.
    pub fn new(
        services: &BTreeSet<String>,
        breakers: &BTreeSet<String>,
        bound: Bound,
        outstanding: impl Fn(&str) -> i64,
    ) -> Self {
        let with = |full: &dyn Fn(i64) -> bool| {
            let full = services.iter().filter(|s| full(outstanding(s)));
            breakers.iter().chain(full).cloned().collect()
        };
        let (effects, all) = (with(&|n| bound.is_full(n)), with(&|n| bound.is_brimful(n)));
        Self { breakers: breakers.clone(), effects, all }
    }

    /// For this input. What begins a step waits first; a new saga was admitted, what was in flight before or is released
    /// has its place already, and nobody makes an operator wait.
    pub fn to(&self, input: &Input) -> &BTreeSet<String> {
        match input {
            Input::Answer { half: Half::Do, answer: Answer::Done(_), .. } | Input::Signal { .. } => &self.effects,
            Input::Answer { .. } | Input::Timer => &self.all,
            _ => &self.breakers,
        }
    }
}

/// The services that a new saga surely calls by itself: up to the first wait that it surely enters, and up to its point
/// of no return, since what waits and what is past it holds nobody up. None where a condition panics: the turn finds that.
pub fn surely_called<'a>(definition: &'a Definition, saga: &Saga) -> BTreeSet<&'a str> {
    guarded(|| called(definition, saga)).unwrap_or_default()
}

fn called<'a>(definition: &'a Definition, saga: &Saga) -> BTreeSet<&'a str> {
    let mut services = BTreeSet::new();
    let view = View { definition, saga };
    for step in &definition.steps {
        if step.on_unwinding || step.condition.as_ref().is_some_and(|holds| !holds(&view)) {
            continue;
        }
        let Kind::Command(command) = &step.kind else { break };
        services.insert(command.call.service.as_str());
        if command.no_return {
            break;
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_saga::Json;
    use eventicket_saga::definition::{Call, Command, Step};
    use serde_json::json;

    #[test]
    fn rule_12_starts_give_way_first_then_steps_and_a_share_is_kept_for_undos() {
        let bound = Bound(80);
        let room = |undos, effects| Room { undos, effects };
        for (outstanding, full, brimful, expected) in [
            (-3, false, false, room(50, 50)),
            (0, false, false, room(50, 50)),
            (59, false, false, room(21, 11)),
            (69, false, false, room(11, 1)),
            (70, true, false, room(10, 0)),
            (79, true, false, room(1, 0)),
            (80, true, true, room(0, 0)),
            (100, true, true, room(0, 0)),
        ] {
            let found = (bound.is_full(outstanding), bound.is_brimful(outstanding));
            assert_eq!(found, (full, brimful), "{outstanding}");
            assert_eq!(bound.room(outstanding, 50), expected, "{outstanding}");
        }
        assert_eq!(bound.starts(), 60);
    }

    #[test]
    fn rule_12_what_expires_together_leaves_room_for_others() {
        let timers = [-3, 0, 100, 500, 1_024].map(|outstanding| Bound(1_024).timers(outstanding, 512));
        assert_eq!(timers, [512, 512, 412, 16, 16]);
        assert_eq!(Bound(10).timers(0, 4), 4);
    }

    #[test]
    fn rule_12_what_is_shut_depends_on_what_is_at_hand() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let outstanding = |service: &str| if service == "full" { 70 } else { i64::from(service == "brimful") * 80 };
        let services = names(&["broken", "full", "brimful", "free"]);
        let shut = Shut::new(&services, &names(&["broken"]), Bound(80), outstanding);
        let answer = |half, answer| Input::Answer { step: "A".into(), round: 1, half, attempt: 1, answer };
        let rejected = Answer::Rejected { code: "no".into(), message: String::new() };
        for (input, expected) in [
            (answer(Half::Do, Answer::Done(Json::NULL)), &["broken", "full", "brimful"][..]),
            (Input::Signal { name: "go".into(), payload: Json::NULL, key: None }, &["broken", "full", "brimful"]),
            (answer(Half::Do, rejected), &["broken", "brimful"]),
            (answer(Half::Undo, Answer::Done(Json::NULL)), &["broken", "brimful"]),
            (Input::Timer, &["broken", "brimful"]),
            (Input::Start, &["broken"]),
            (Input::Resend, &["broken"]),
            (Input::Released { service: "full".into() }, &["broken"]),
        ] {
            assert_eq!(shut.to(&input), &names(expected), "{input:?}");
        }
    }

    #[test]
    fn rule_12_a_start_looks_at_the_services_that_it_surely_calls() {
        let call = |service: &str| Call::new(service, "do", |_| Ok(Json::NULL));
        let step = |name: &str, service: &str| Step::command(name, Command::new(call(service)));
        let steps = vec![
            step("HOLD", "bookings"),
            Step::wait("AWAIT", "method", None)
                .when(|v| v.input().value()["priced"] == true && v.input().value()["method"] == false),
            step("PAY", "payments").when(|v| v.input().value()["priced"] == true),
            Step::command("CONFIRM", Command::new(call("tickets")).no_return()),
            Step::command("TELL", Command::new(call("mails")).best_effort()),
        ];
        let definition = Definition { name: "d".into(), version: 1, steps, deadlines: vec![] };
        for (input, expected) in [
            (json!({"priced": true, "method": true}), &["bookings", "payments", "tickets"][..]),
            (json!({"priced": false}), &["bookings", "tickets"]),
            (json!({"priced": true, "method": false}), &["bookings"]),
        ] {
            let saga = Saga::new(uuid::Uuid::nil(), &definition, input.into(), 0);
            assert_eq!(surely_called(&definition, &saga), expected.iter().copied().collect(), "{:?}", saga.input);
        }
    }
}
