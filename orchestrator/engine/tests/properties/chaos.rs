//! Random inputs.

mod ending;

use std::collections::BTreeMap;

use eventicket_saga::testing::{Behaviour, Choices, Message, Play};
use eventicket_saga::{
    Answer, Found, Half, Illegal, Input, Json, OperatorAction, Phase, Recorded, SignalKey, Status, Undo,
};
use serde_json::{Value, json};

use crate::arms::{self, Arm};
use crate::definitions::{self, HOPELESS, NAMES, SERVICES, SIGNALS};

/// How often each arm was met.
pub type Counts = BTreeMap<Arm, u64>;

/// A play of a random saga.
pub struct Chaos<'d, 'c> {
    pub play: Play<'d>,
    pub choices: Choices,
    pub counts: &'c mut Counts,
    /// Answers come that no service gave.
    pub strays: bool,
    /// It was marked from outside.
    pub marked: bool,
    /// An operator said that an undo was done by hand.
    pub by_hand: bool,
}

/// How it was before an input.
struct Before {
    phase: Phase,
    /// The point of no return was behind it.
    past: bool,
    /// A deadline had passed that nothing held off.
    end: bool,
    /// An undo was under way, as of a round that is replaced: its effect holds no deadline off.
    undoing: bool,
    /// Number of messages under way.
    mail: usize,
    /// The input is an answer, which comes before any look at deadlines.
    answered: bool,
}

impl Chaos<'_, '_> {
    pub fn feed(&mut self, input: Input) -> Result<bool, Illegal> {
        let Self { play, counts, .. } = self;
        let count = &mut |arm| *counts.entry(arm).or_default() += 1;
        arms::met(play.definition, &play.saga, &input, play.now, &play.closed, count);
        play.noise = self.choices.noise();
        let before = Before {
            phase: play.saga.phase,
            past: play.saga.past_no_return(play.definition),
            end: arms::deadline(play.definition, &play.saga, play.now).is_some(),
            undoing: play.saga.steps.iter().any(|s| s.undo != Undo::None),
            mail: play.mail.len(),
            answered: matches!(input, Input::Answer { .. }),
        };
        let result = play.feed(input);
        self.check(&before);
        result
    }

    /// What holds after every input.
    fn check(&self, before: &Before) {
        let Play { saga, definition, mail, .. } = &self.play;
        let (was, past) = (before.phase, before.past);
        let by_deadline = was == Phase::Forward && saga.reason.as_ref().is_some_and(|r| r.code == "deadline");
        assert!(
            !by_deadline || before.undoing || arms::unpaid_deadline(definition, saga, self.play.now),
            "a deadline fires that is held off"
        );
        let back = |step: &str| definition.position(step).is_some_and(|at| definition.steps[at].on_unwinding);
        let begins =
            |m: &Message| matches!(m, Message::Command(s) if s.half == Half::Do && !s.resend && !back(&s.step));
        assert!(
            before.answered || !before.end || !mail[before.mail..].iter().any(begins),
            "a step is sent after its end"
        );
        assert!(
            !past || was == saga.phase || saga.phase == Phase::Completed,
            "it turned back past the point of no return"
        );
        assert!(!saga.paused || saga.phase == Phase::Forward || saga.phase == Phase::Completed);
        for (at, step) in saga.steps.iter().enumerate() {
            let Some(command) = definition.command(at) else { continue };
            assert!(command.no_return || step.attempts <= command.retry.attempts, "{step:?} exceeds its attempts");
            // By hand, an undo gets all its attempts again.
            let tries = step.undo_attempts - step.undo_spent;
            assert!(tries <= command.undo_retry.attempts, "{step:?} exceeds its undo's attempts");
        }
    }

    fn deliver(&mut self, which: usize) {
        match self.play.mail.remove(which) {
            Message::Command(send) => {
                self.play.mail.insert(which, Message::Command(send));
                self.play.deliver(which);
            }
            Message::Reply(input) => {
                let result = self.feed(input.clone());
                assert!(result.is_ok() || self.strays, "{input:?} was refused: {result:?}");
            }
        }
    }

    fn tick(&mut self) -> bool {
        let Some(due) = self.play.saga.next_due(self.play.definition) else { return false };
        self.play.now = self.play.now.max(due);
        assert_eq!(self.feed(Input::Timer), Ok(true), "it wanted a timer, and nothing was due: {:?}", self.play.saga);
        true
    }

    pub fn behave(&mut self) {
        for name in NAMES.iter().take(self.play.definition.steps.len()) {
            for half in [Half::Do, Half::Undo, Half::Fence] {
                let c = &mut self.choices;
                let n = u32::try_from(c.choose(4)).unwrap();
                let behaviour = match c.choose(if half == Half::Undo { 18 } else { 24 }) {
                    0 => Behaviour::Reject("no".into()),
                    1 => Behaviour::Mute,
                    2 => Behaviour::Deaf,
                    3 => Behaviour::Pending(n),
                    4 => Behaviour::Pending(n * 10),
                    5 => Behaviour::Retry(n),
                    6 => Behaviour::Dead,
                    _ => continue,
                };
                self.play.world.behave(name, half, behaviour);
            }
        }
    }

    /// One random thing.
    pub fn anything(&mut self) {
        let mail = self.play.mail.len();
        let beyond = usize::from(self.choices.one_in(40));
        let any = self.choices.choose(self.play.definition.steps.len() + beyond);
        let any_step = NAMES[if self.choices.one_in(3) { self.play.saga.at.min(8) } else { any }];
        match self.choices.choose(if self.strays { 64 } else { 48 }) {
            0..=19 if mail > 0 => {
                let which = self.choices.choose(mail);
                self.deliver(which);
            }
            20 if mail > 0 => {
                let which = self.choices.choose(mail);
                self.play.mail.remove(which);
            }
            21 | 22 if mail > 0 => {
                let which = self.choices.choose(mail);
                self.play.mail.push(self.play.mail[which].clone());
            }
            23..=28 => {
                self.tick();
            }
            29 | 30 => {
                self.play.now += i64::try_from(self.choices.choose(1_500)).unwrap();
                if self.choices.one_in(2) {
                    let _ = self.feed(Input::Timer);
                }
            }
            31..=34 => {
                let right = self.wants().filter(|_| !self.choices.one_in(3));
                let name = right.unwrap_or_else(|| SIGNALS[self.choices.choose(2)].to_owned());
                let payload = if self.choices.one_in(3) { Value::Null } else { json!("signal") };
                let key = self.key();
                let _ = self.feed(Input::Signal { name, payload: payload.into(), key });
            }
            35..=37 => self.operate(any_step),
            38 | 39 => {
                let service = SERVICES[self.choices.choose(3)].to_owned();
                if !self.play.closed.remove(&service) {
                    self.play.closed.insert(service.clone());
                }
                if !self.choices.one_in(3) {
                    let _ = self.feed(Input::Released { service });
                }
            }
            40..=42 => self.refuse(any_step),
            43 => {
                let _ = self.feed(Input::Resend);
            }
            44 => self.crash(),
            45 if self.choices.one_in(4) => {
                let _ = self.feed(Input::Start);
            }
            46 => self.play.now += 1,
            47 if self.strays && self.choices.one_in(4) => {
                self.marked = true;
                let _ = self.feed(Input::Mark { step: any_step.to_owned(), reason: "stray".into() });
            }
            48.. => self.stray(any_step),
            _ => {}
        }
    }

    fn crash(&mut self) {
        self.play.read_back();
        let late = std::mem::take(&mut self.play.mail);
        let _ = self.feed(Input::Resend);
        if self.choices.one_in(2) {
            self.play.mail.extend(late);
        }
    }

    fn operate(&mut self, any_step: &str) {
        let action = match self.choices.choose(24) {
            0..=3 => OperatorAction::Pause,
            4..=7 => OperatorAction::Resume,
            8 | 9 => OperatorAction::Cancel { code: "cancelled".into() },
            10..=14 => OperatorAction::Retry,
            15 | 16 => OperatorAction::Skip { output: Json::NULL },
            17 if self.choices.one_in(2) => OperatorAction::Abandon { force: self.choices.one_in(2) },
            17 => OperatorAction::Compensate,
            18 => OperatorAction::Replayed { step: any_step.to_owned() },
            19..=22 => {
                let by_hand =
                    |(at, s): (usize, &eventicket_saga::StepState)| s.undo == Undo::GaveUp || self.by_hand(at);
                let gave_up = self.play.saga.steps.iter().enumerate().position(by_hand);
                let step = gave_up.map_or(any_step, |at| NAMES[at]).to_owned();
                OperatorAction::Resolve { step }
            }
            _ => OperatorAction::Resolve { step: any_step.to_owned() },
        };
        let resolves = matches!(action, OperatorAction::Resolve { .. });
        let done = self.feed(Input::Act { action, actor: "ann".into(), reason: "because".into() });
        self.by_hand |= resolves && done == Ok(true);
    }

    /// A publish is refused: one that is under way and so was not stored, or (with strays) any.
    fn refuse(&mut self, any_step: &str) {
        let commands = self.play.mail.iter().enumerate().filter(|(_, m)| matches!(m, Message::Command(_)));
        let commands: Vec<usize> = commands.map(|(at, _)| at).collect();
        if self.strays && self.choices.one_in(3) || commands.is_empty() {
            let half = [Half::Do, Half::Undo, Half::Fence][self.choices.choose(3)];
            let (resend, c) = (self.choices.one_in(2), &mut self.choices);
            let state = self.play.definition.position(any_step).map(|at| &self.play.saga.steps[at]);
            let round = state.map_or(1, |s| s.round) + u32::from(c.one_in(8));
            let attempt = state.map_or(1, |s| attempts(s, half)) + u32::from(c.one_in(8));
            let _ = self.feed(Input::Refused { step: any_step.to_owned(), round, half, attempt, resend });
            return;
        }
        let which = commands[self.choices.choose(commands.len())];
        if let Message::Command(send) = self.play.mail.remove(which) {
            let eventicket_saga::Send { step, round, half, attempt, resend, .. } = send;
            let _ = self.feed(Input::Refused { step, round, half, attempt, resend });
        }
    }

    /// An answer that no service gave.
    fn stray(&mut self, any_step: &str) {
        let c = &mut self.choices;
        let step = self.play.definition.position(any_step).map(|at| &self.play.saga.steps[at]);
        let round = match (c.choose(8), step.map_or(1, |s| s.round)) {
            (0, round) => round + 1,
            (1 | 2, round) => round.max(2) - 1,
            (_, round) => round,
        };
        let undoing = step.is_some_and(|s| s.undo_attempts > 0);
        let asked = step.is_some_and(|s| s.fences > 0);
        let half = match c.choose(15) {
            0..=5 if undoing => Half::Undo,
            6..=9 if asked => Half::Fence,
            10..=12 => Half::Undo,
            13 => Half::Fence,
            _ => Half::Do,
        };
        let id = step.map_or(0, |s| s.fences) + u32::try_from(c.choose(3)).unwrap();
        let attempts = step.map_or(1, |s| attempts(s, half));
        let attempt = if c.one_in(4) { 1 + u32::try_from(c.choose(3)).unwrap() } else { attempts };
        let answer = match c.choose(if half == Half::Fence { 24 } else { 8 }) {
            8.. => Answer::Fenced(found(c, id.saturating_sub(1), self.play.now)),
            _ if half != Half::Fence && c.one_in(12) => Answer::Fenced(found(c, id, self.play.now)),
            0 => Answer::Done(definitions::output(self.play.now).into()),
            1 => Answer::Rejected { code: "stray".into(), message: String::new() },
            2 => Answer::Pending(json!({ "next": "act" }).into()),
            3 => Answer::Pending(json!("other").into()),
            4 => Answer::Retry { code: if c.one_in(4) { HOPELESS.into() } else { "busy".into() } },
            5 => Answer::Expired,
            6 => Answer::Dead { reason: "stray".into() },
            _ => Answer::Retry { code: "busy".into() },
        };
        let _ = self.feed(Input::Answer { step: any_step.to_owned(), round, half, attempt, answer });
    }

    fn key(&mut self) -> Option<SignalKey> {
        let c = &mut self.choices;
        let (key, fingerprint) = (c.choose(3).to_string(), c.choose(2).to_string());
        c.one_in(2).then_some(SignalKey { key, fingerprint })
    }

    /// Whether the step waits for an operator.
    fn by_hand(&self, at: usize) -> bool {
        let Play { saga, definition, .. } = &self.play;
        let eventicket_saga::definition::Kind::Wait(wait) = &definition.steps[at].kind else { return false };
        wait.by_hand.is_some() && matches!(saga.steps[at].status, Status::Waiting(_)) && saga.phase == Phase::Forward
    }

    /// The signal that the saga waits for, or that may replace the round that it is at.
    fn wants(&self) -> Option<String> {
        let replaces = |at| self.play.definition.command(at).and_then(|c| c.replaced_by.clone());
        self.waits_for().or_else(|| replaces(self.play.saga.at))
    }

    fn waits_for(&self) -> Option<String> {
        let Play { saga, definition, .. } = &self.play;
        let at = saga.at;
        let eventicket_saga::definition::Kind::Wait(wait) = &definition.steps.get(at)?.kind else { return None };
        let waits = matches!(saga.steps[at].status, Status::Waiting(_)) && wait.by_hand.is_none();
        waits.then(|| wait.signal.clone())
    }
}

fn attempts(step: &eventicket_saga::StepState, half: Half) -> u32 {
    match half {
        Half::Do => step.attempts,
        Half::Undo => step.undo_attempts,
        Half::Fence => step.fence.as_ref().map_or(0, |f| f.attempts),
    }
}

fn found(c: &mut Choices, id: u32, now: i64) -> Found {
    let mut recorded = || match c.choose(3) {
        0 => Recorded::Done(definitions::output(now).into()),
        1 => Recorded::Rejected { code: "stray".into() },
        _ => Recorded::Closed,
    };
    let (effect, undo) = (recorded(), recorded());
    Found { id, effect, undo: Some(undo) }
}
