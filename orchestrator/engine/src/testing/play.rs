//! A saga in a world of services, driven one message at a time.

use std::collections::BTreeSet;

use eventicket_json::Json;
use uuid::Uuid;

use super::World;
use crate::definition::{Definition, Kind};
use crate::input::{Effect, Entry, Illegal, Input, Moment, OperatorAction, Send, What};
use crate::state::{Half, Phase, Saga, Status, Undo};

/// Something under way between the orchestrator and a service.
#[derive(Clone, Debug)]
pub enum Message {
    /// To a service.
    Command(Send),
    /// To the saga.
    Reply(Input),
}

/// Most inputs of one play: no saga needs so many unless it goes round in circles.
const MOST_INPUTS: usize = 100_000;

/// A play.
#[derive(Clone)]
pub struct Play<'d> {
    /// The saga's definition.
    pub definition: &'d Definition,
    /// The saga.
    pub saga: Saga,
    /// The services.
    pub world: World,
    /// What is under way.
    pub mail: Vec<Message>,
    /// The time, ms.
    pub now: i64,
    /// Services whose breaker is open.
    pub closed: BTreeSet<String>,
    /// All that happened to the saga.
    pub history: Vec<Entry>,
    /// Signals, given whenever the saga waits for them.
    pub signals: Vec<(String, Json)>,
    /// Operators do at once what waits for a hand.
    pub by_hand: bool,
    /// Each command and each reply is under way twice.
    pub doubled: bool,
    /// Number of inputs so far.
    pub inputs: usize,
    /// Jitter.
    pub noise: u64,
}

impl<'d> Play<'d> {
    /// A saga that has not begun.
    pub fn new(definition: &'d Definition, input: Json, world: World) -> Self {
        let now = 1_800_000_000_000;
        Self {
            definition,
            saga: Saga::new(Uuid::nil(), definition, input, now),
            world,
            mail: Vec::new(),
            now,
            closed: BTreeSet::new(),
            history: Vec::new(),
            signals: Vec::new(),
            by_hand: false,
            doubled: false,
            inputs: 0,
            noise: 0,
        }
    }

    /// Feeds an input to the saga; what it sends is under way from then on. True where something changed.
    ///
    /// # Errors
    /// As [`crate::apply`].
    ///
    /// # Panics
    /// The engine broke a promise: a refused or repeated input changed the saga, its history has a gap, or it does not
    /// come to rest.
    pub fn feed(&mut self, input: Input) -> Result<bool, Illegal> {
        self.inputs += 1;
        assert!(self.inputs < MOST_INPUTS, "it goes round in circles: {:?}", self.history.iter().rev().take(9));
        let before = self.saga.clone();
        let moment = Moment { now: self.now, noise: self.noise, closed: &self.closed };
        let output = match crate::apply(self.definition, &mut self.saga, input.clone(), &moment) {
            Ok(output) => output,
            Err(illegal) => {
                assert_eq!(before, self.saga, "{input:?} was refused with {illegal} and changed the saga");
                return Err(illegal);
            }
        };
        if output.repeated {
            assert_eq!(before, self.saga, "{input:?} was repeated and changed the saga");
            assert!(output.effects.is_empty() && output.history.is_empty(), "{input:?} was repeated and did something");
            return Ok(false);
        }
        let mut seq = before.seq;
        for entry in &output.history {
            seq += 1;
            assert_eq!(entry.seq, seq, "the history has a gap");
        }
        assert_eq!(self.saga.seq, seq);
        self.history.extend(output.history);
        for effect in output.effects {
            match effect {
                Effect::Send(send) => {
                    assert!(!self.closed.contains(&send.service), "{} is sent to a service that is held", send.step);
                    self.post(Message::Command(send));
                }
                Effect::Ended => assert!(self.saga.ended() && !before.ended(), "it ends once"),
            }
        }
        Ok(true)
    }

    fn post(&mut self, message: Message) {
        if self.doubled {
            self.mail.push(message.clone());
        }
        self.mail.push(message);
    }

    /// Starts it.
    ///
    /// # Panics
    /// It had begun.
    pub fn start(&mut self) {
        assert_eq!(self.feed(Input::Start), Ok(true));
    }

    /// Delivers a message that is under way.
    ///
    /// # Panics
    /// A reply of a service that keeps to the protocol is refused.
    pub fn deliver(&mut self, which: usize) {
        match self.mail.remove(which) {
            Message::Command(send) => {
                if let Some(answer) = self.world.take(&send, self.now) {
                    let Send { step, round, half, attempt, .. } = send;
                    self.post(Message::Reply(Input::Answer { step, round, half, attempt, answer }));
                }
            }
            Message::Reply(input) => {
                if let Err(illegal) = self.feed(input.clone()) {
                    panic!("{input:?} was refused: {illegal}");
                }
            }
        }
    }

    /// The signal that the saga waits for, where the test gives it.
    pub fn awaited(&self) -> Option<(String, Json)> {
        let step = self.definition.steps.get(self.saga.at)?;
        let Kind::Wait(wait) = &step.kind else { return None };
        let waits =
            self.saga.phase == Phase::Forward && matches!(self.saga.steps[self.saga.at].status, Status::Waiting(_));
        self.signals.iter().find(|(name, _)| waits && *name == wait.signal).cloned()
    }

    fn waits_for_a_hand(&self) -> Option<String> {
        let step = self.definition.steps.get(self.saga.at).filter(|_| self.by_hand)?;
        let hand = matches!(&step.kind, Kind::Wait(wait) if wait.by_hand.is_some());
        let waits = matches!(self.saga.steps[self.saga.at].status, Status::Waiting(_));
        (hand && waits && self.saga.phase == Phase::Forward).then(|| step.name.clone())
    }

    /// Gives the signal that it waits for, or does what waits for a hand, or else goes to the time at which something is due; false where nothing is.
    ///
    /// # Panics
    /// A timer that is due does nothing.
    pub fn wait(&mut self) -> bool {
        if let Some((name, payload)) = self.awaited() {
            return self.feed(Input::Signal { name, payload, key: None }) == Ok(true);
        }
        if let Some(step) = self.waits_for_a_hand() {
            let action = OperatorAction::Resolve { step };
            return self.feed(Input::Act { action, actor: "operator".into(), reason: "done".into() }) == Ok(true);
        }
        let Some(due) = self.saga.next_due(self.definition) else { return false };
        self.now = self.now.max(due);
        assert_eq!(self.feed(Input::Timer), Ok(true), "it wanted a timer, and nothing was due: {:?}", self.saga);
        true
    }

    /// One more step of a play in which messages come in order; false where nothing is left to do.
    pub fn step(&mut self) -> bool {
        if !self.mail.is_empty() {
            self.deliver(0);
            return true;
        }
        !self.saga.ended() && self.wait()
    }

    /// Plays on until nothing is left to do.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Plays on until nothing is left to do, or time has passed so often.
    pub fn run_for(&mut self, waits: usize) {
        let mut left = waits;
        while !self.mail.is_empty() || left > 0 {
            left -= usize::from(self.mail.is_empty());
            if !self.step() {
                return;
            }
        }
    }

    /// The orchestrator crashes: what is stored is read back, and what is awaited is sent again. Messages that were under
    /// way are lost, or come after all.
    ///
    /// # Panics
    /// The saga does not read as it was written.
    pub fn crash(&mut self, lost: bool) {
        self.read_back();
        if lost {
            self.mail.clear();
        }
        // What is sent again comes behind what was under way.
        let _ = self.feed(Input::Resend);
    }

    /// Writes the saga and reads it back.
    ///
    /// # Panics
    /// It does not read as it was written.
    pub fn read_back(&mut self) {
        let read = serde_json::to_string(&self.saga).and_then(|text| Saga::read(self.saga.origin(), &text));
        match read {
            Ok(read) => assert_eq!(read, self.saga),
            Err(error) => panic!("{error}: {:?}", self.saga),
        }
    }

    /// The status of a step.
    ///
    /// # Panics
    /// There is no such step.
    pub fn status(&self, step: &str) -> Status {
        self.state(step).status
    }

    /// The undo of a step.
    ///
    /// # Panics
    /// There is no such step.
    pub fn undo(&self, step: &str) -> Undo {
        self.state(step).undo
    }

    fn state(&self, step: &str) -> &crate::StepState {
        match self.definition.position(step) {
            Some(at) => &self.saga.steps[at],
            None => panic!("there is no step {step}"),
        }
    }

    /// The steps of which the history tells this, in order.
    pub fn told(&self, what: What) -> Vec<&str> {
        self.history.iter().filter(|e| e.what == what).filter_map(|e| e.step.as_deref()).collect()
    }

    /// The undos that happened, in order.
    pub fn undone(&self) -> Vec<&str> {
        let undos = self.world.happened.iter().filter(|(half, ..)| *half == Half::Undo);
        undos.map(|(_, step, _)| step.as_str()).collect()
    }

    /// Asserts that the saga has ended and that no effect stands in the world that the saga does not account for.
    ///
    /// # Panics
    /// Something is left behind, or what is done does not stand.
    pub fn assert_nothing_is_left(&self) {
        assert!(self.saga.ended(), "it has not ended: {:?}", self.saga);
        for (name, round) in self.world.standing() {
            let step = self.state(name);
            let command = self.definition.position(name).and_then(|at| self.definition.command(at));
            let kept = match self.saga.phase {
                Phase::Completed => round == step.round && step.status != Status::Rejected && step.undo == Undo::None,
                Phase::Abandoned => true,
                _ => step.undo == Undo::Resolved || command.is_some_and(|c| c.undo.is_none() && !c.no_return),
            };
            assert!(kept, "{name} of round {round} is left behind: {:?}", self.saga);
        }
        if self.saga.phase == Phase::Completed {
            for (at, step) in self.definition.steps.iter().enumerate() {
                let state = &self.saga.steps[at];
                let done = self.definition.command(at).is_some() && state.status == Status::Done;
                assert!(
                    !done || self.world.stands(&step.name, state.round),
                    "{} is done and does not stand",
                    step.name
                );
            }
        }
    }
}
