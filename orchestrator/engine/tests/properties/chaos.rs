//! Random inputs, and the continuation in which services answer in the end.

use std::collections::BTreeMap;

use eventicket_saga::testing::{Behaviour, Choices, Message, Play};
use eventicket_saga::{Answer, Half, Illegal, Input, OperatorAction, Phase, Status, Undo};
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
            !by_deadline || arms::unpaid_deadline(definition, saga, self.play.now),
            "a deadline fires that is held off"
        );
        let begins = |m: &Message| matches!(m, Message::Command(s) if s.half == Half::Do && !s.resend);
        assert!(
            before.answered || !before.end || !mail[before.mail..].iter().any(begins),
            "a step is sent after its end"
        );
        assert!(
            !past || was == saga.phase || saga.phase == Phase::Completed,
            "it turned back past the point of no return"
        );
        assert!(
            !saga.paused
                || saga.phase == Phase::Forward
                || saga.phase == Phase::Completed
                || saga.phase == Phase::Abandoned
        );
        for (at, step) in saga.steps.iter().enumerate() {
            let Some(command) = definition.command(at) else { continue };
            assert!(command.no_return || step.attempts <= command.retry.attempts, "{step:?} exceeds its attempts");
            // By hand, an undo gets all its attempts again, of which the first counts as spent.
            assert!(step.undo_attempts <= command.undo_retry.attempts.max(2), "{step:?} exceeds its undo's attempts");
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
            for half in [Half::Do, Half::Undo] {
                let c = &mut self.choices;
                let n = u32::try_from(c.choose(4)).unwrap();
                let behaviour = match c.choose(if half == Half::Do { 24 } else { 18 }) {
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
                let _ = self.feed(Input::Signal { name, payload });
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
            15 | 16 => OperatorAction::Skip { output: Value::Null },
            17 if self.choices.one_in(3) => OperatorAction::Abandon,
            17..=22 => {
                let gave_up = self.play.saga.steps.iter().position(|s| s.undo == Undo::GaveUp);
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
            let half = if self.choices.one_in(2) { Half::Do } else { Half::Undo };
            let resend = self.choices.one_in(2);
            let _ = self.feed(Input::Refused { step: any_step.to_owned(), half, resend });
            return;
        }
        let which = commands[self.choices.choose(commands.len())];
        if let Message::Command(send) = self.play.mail.remove(which) {
            let _ = self.feed(Input::Refused { step: send.step, half: send.half, resend: send.resend });
        }
    }

    /// An answer that no service gave.
    fn stray(&mut self, any_step: &str) {
        let c = &mut self.choices;
        let step = self.play.definition.position(any_step).map(|at| &self.play.saga.steps[at]);
        let round = match (c.choose(8), step.map_or(1, |s| s.round)) {
            (0, round) => round + 1,
            (1, round) => round.max(2) - 1,
            (_, round) => round,
        };
        let undoing = step.is_some_and(|s| s.undo_attempts > 0);
        let half = if c.one_in(if undoing { 2 } else { 12 }) { Half::Undo } else { Half::Do };
        let attempts = step.map_or(1, |s| if half == Half::Do { s.attempts } else { s.undo_attempts });
        let attempt = if c.one_in(4) { 1 + u32::try_from(c.choose(3)).unwrap() } else { attempts };
        let answer = match c.choose(8) {
            0 => Answer::Done(definitions::output(self.play.now)),
            1 => Answer::Rejected { code: "stray".into(), message: String::new() },
            2 => Answer::Pending(json!({ "next": "act" })),
            3 => Answer::Pending(json!("other")),
            4 => Answer::Retry { code: if c.one_in(4) { HOPELESS.into() } else { "busy".into() } },
            5 => Answer::Expired,
            6 => Answer::Dead { reason: "stray".into() },
            _ => Answer::Retry { code: "busy".into() },
        };
        let _ = self.feed(Input::Answer { step: any_step.to_owned(), round, half, attempt, answer });
    }

    /// Services answer, breakers close, operators do their work: it must end.
    pub fn end_well(&mut self) {
        self.play.world.behave_well();
        self.play.closed.clear();
        for service in SERVICES {
            let _ = self.feed(Input::Released { service: service.to_owned() });
        }
        let operator = |action| Input::Act { action, actor: "ann".into(), reason: "to end it".into() };
        let mut rounds = 0;
        while !self.play.saga.ended() || !self.play.mail.is_empty() {
            rounds += 1;
            assert!(rounds < 2_000, "it does not end: {:?} {:?}", self.play.definition, self.play.saga);
            if !self.play.mail.is_empty() {
                self.deliver(0);
                continue;
            }
            if self.play.saga.paused {
                let _ = self.feed(operator(OperatorAction::Resume));
            }
            let awaited = self.waits_for().map(|name| Input::Signal { name, payload: json!("signal") });
            if awaited.is_some_and(|signal| self.feed(signal).is_ok()) {
                continue;
            }
            if self.tick() {
                continue;
            }
            let gave_up = self.play.saga.steps.iter().position(|s| s.undo == Undo::GaveUp);
            match gave_up.filter(|_| rounds % 3 == 0) {
                Some(at) => {
                    self.by_hand = true;
                    let step = NAMES[at].to_owned();
                    self.feed(operator(OperatorAction::Resolve { step })).unwrap();
                }
                None if self.play.saga.ended() => {}
                None => {
                    let tried = self.feed(operator(OperatorAction::Retry));
                    assert_eq!(tried, Ok(true), "nobody can move it: {:?} {:?}", self.play.definition, self.play.saga);
                }
            }
        }
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
        matches!(saga.steps[at].status, Status::Waiting(_)).then(|| wait.signal.clone())
    }

    /// What holds at the end.
    pub fn check_end(&self) {
        let Play { saga, definition, .. } = &self.play;
        for (at, step) in saga.steps.iter().enumerate() {
            let command = definition.command(at);
            let ok = match saga.phase {
                Phase::Completed => {
                    matches!(step.status, Status::Done | Status::Omitted | Status::Skipped)
                        || command.is_some_and(|c| c.best_effort)
                            && matches!(step.status, Status::Rejected | Status::Unknown)
                }
                Phase::Compensated => {
                    step.attempts == 0
                        || step.status == Status::Rejected
                        || command.is_some_and(|c| c.undo.is_none())
                        || matches!(step.undo, Undo::Done | Undo::Resolved)
                }
                _ => true,
            };
            assert!(ok, "{} of {definition:?}: {saga:?}", definition.steps[at].name);
        }
        assert!(saga.attention.is_empty() || self.marked || saga.phase == Phase::Abandoned, "{:?}", saga.attention);
        assert_eq!(saga.next_due(definition), None);
        if !self.strays && !self.by_hand {
            self.play.assert_nothing_is_left();
        }
    }
}
