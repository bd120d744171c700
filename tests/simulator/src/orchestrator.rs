//! A replica of the orchestrator: its turns around the runtime's own decisions. What is awaited here is what the runtime
//! awaits: reads, the commit, publishes.

mod journal;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::{Item, Reply};
use eventicket_contracts::sagas::{Act, ActAnswer, StartAnswer, StartSaga};
use eventicket_contracts::subjects;
use eventicket_nats::Fault;
use eventicket_orchestrator::runtime::admission::Shut;
use eventicket_orchestrator::runtime::intake::Work;
use eventicket_orchestrator::runtime::memory::Memory;
use eventicket_orchestrator::runtime::results::Turn;
use eventicket_orchestrator::runtime::take::Moment;
use eventicket_orchestrator::runtime::turn::{Outgoing, view};
use eventicket_orchestrator::runtime::work::{rank, saga_of};
use eventicket_saga::{Half, Input as SagaInput, Send};

use crate::breakers::Breakers;
use crate::executor::{NEVER, On, Wait};
use crate::flaws::Flaw;
use crate::network::{Answer, Payload, Stream, Unpublished};
use crate::processes::ProcessId;
use crate::world::Sim;

/// After a turn that the database refused, ms.
const DELAY: i64 = 50;
/// Most messages of replies of one turn here.
const MESSAGES: usize = 4;
/// Between two looks at what has no room, ms.
const LOOK: i64 = 200;
/// Held sagas that are released at a look.
const RELEASE: usize = 200;

/// What comes to a replica beside replies.
#[derive(Debug)]
pub(crate) enum Input {
    Start(Box<StartSaga>, String),
    Act(Act, String),
    Within(SagaId, SagaInput),
    Adopt(SagaId),
}

/// The inputs of a replica that wait for a turn.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    waiting: RefCell<Vec<Input>>,
    pub wake: Rc<Cell<bool>>,
    /// Some of its sagas are held.
    pub holds: Cell<bool>,
    /// Counts of the dead that it inherits.
    heritage: RefCell<Vec<BTreeMap<String, i64>>>,
    /// What it keeps in mind from turn to turn that is not stored, as a hash.
    retained: Cell<u64>,
}

impl Inputs {
    pub fn push(&self, input: Input) {
        self.waiting.borrow_mut().push(input);
        self.wake.set(true);
    }

    pub fn inherit(&self, counts: BTreeMap<String, i64>) {
        self.heritage.borrow_mut().push(counts);
        self.wake.set(true);
    }
}

/// A message of replies, acknowledged when each of its items is handled.
pub(crate) struct Letter {
    number: u64,
    open: Cell<usize>,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Letter({})", self.open.get())
    }
}

type Mine = Work<Rc<Letter>>;

struct Replica {
    sim: Sim,
    me: ProcessId,
    name: u64,
    memory: Memory<Rc<Letter>>,
    inputs: Rc<Inputs>,
    breakers: Breakers,
}

/// Starts a replica.
pub(crate) fn start(sim: &Sim, me: ProcessId) {
    let inputs = Rc::<Inputs>::default();
    sim.replicas.borrow_mut().insert(me, inputs.clone());
    let name = sim.name(me);
    sim.store.borrow_mut().tables.counts.insert(name, BTreeMap::new());
    let memory = Memory::new(sim.catalogue.clone(), sim.scenario.bound);
    let breakers = Breakers::new(&sim.catalogue);
    let replica = Replica { sim: Rc::clone(sim), me, name, memory, inputs, breakers };
    sim.tasks.spawn(Some(me), "turns", replica.run());
    sim.tasks.spawn_waiting(Some(me), "watch", crate::replicas::watch(Rc::clone(sim), me));
}

impl Replica {
    async fn run(mut self) {
        loop {
            let work = self.collect().await;
            self.look().await;
            self.turn(work).await;
            self.inputs.holds.set(!self.memory.held.is_empty());
            self.inputs.retained.set(self.sim.mind.hash(&(&self.memory.held, &self.breakers)));
        }
    }

    /// Waits until something is there, then takes what is ready, in-flight work before new work.
    async fn collect(&mut self) -> Vec<Mine> {
        let sim = self.sim.clone();
        let mut work = std::mem::take(&mut self.memory.again);
        if work.is_empty() {
            let due = self.memory.timers.next().map_or(NEVER, |at| sim.when(self.me, at.millis()));
            let until = due.min(self.next_look());
            sim.pause(Wait { until, on: On::Inputs(self.inputs.wake.clone()) }).await;
        }
        self.inputs.wake.set(false);
        let most = if sim.settings.is_fine && sim.choose(3) == 0 { MESSAGES } else { 1 };
        let letters = sim.broker.borrow_mut().deliver(Stream::Replies, sim.now(), most);
        for (number, message) in letters {
            sim.mind.learn(&message);
            let Payload::Replies(replies) = &*message.payload else { continue };
            let letter = Rc::new(Letter { number, open: Cell::new(replies.len()) });
            work.extend(replies.iter().map(|reply| Work::Reply(reply.clone(), letter.clone())));
        }
        sim.mind.learn(&*self.inputs.waiting.borrow());
        work.extend(self.inputs.waiting.take().into_iter().map(|input| match input {
            Input::Start(start, to) => Work::Start(start, Some(to.into())),
            Input::Act(act, to) => Work::Act(act, Some(to.into())),
            Input::Within(saga, input) => Work::Poke(saga, input),
            Input::Adopt(saga) => Work::Adopt(saga),
        }));
        let due = self.memory.timers.take_due(sim.clock(self.me), 512);
        work.extend(due.into_iter().map(|saga| Work::Poke(saga, SagaInput::Timer)));
        work.sort_by_key(rank);
        if !work.is_empty() {
            sim.taken(self.me).await;
        }
        work
    }

    /// When a saga that is held may be let go.
    fn next_look(&self) -> i64 {
        let sim = &self.sim;
        let held = self.services().into_iter().filter(|service| self.memory.held.first(service).is_some());
        held.map(|service| match self.breakers.opens(sim, &service) {
            Some(until) => sim.when(self.me, until),
            None if self.memory.bound.is_full(self.memory.outstanding(&service)) => sim.now() + LOOK,
            None => 0,
        })
        .min()
        .unwrap_or(NEVER)
    }

    fn services(&self) -> BTreeSet<String> {
        self.sim.catalogue.services()
    }

    /// Looks at breakers and at the sagas that they hold.
    async fn look(&mut self) {
        self.sim.mind.learn(&*self.inputs.heritage.borrow());
        for counts in self.inputs.heritage.take() {
            for (service, n) in counts {
                *self.memory.counts.entry(service).or_default() += n;
            }
        }
        self.stay_known();
        self.breakers.refresh(&self.sim);
        self.sum();
        for service in self.services() {
            if !self.breakers.closed().contains(&service) {
                let room = self.memory.bound.room(self.memory.outstanding(&service), RELEASE);
                for saga in self.memory.held.take(&service, room) {
                    self.memory.again.push(Work::Poke(saga, SagaInput::Released { service: service.clone() }));
                }
            } else if let Some(saga) = self.memory.held.first(&service) {
                let now = self.sim.clock(self.me);
                self.sim.step().await;
                if self.breakers.claim(&self.sim, &service, now) {
                    self.sim.tell(Some(self.me), || format!("probes {service} with {}", crate::story::saga(saga)));
                    self.memory.again.push(Work::Probe(saga, service));
                }
            }
        }
    }

    /// Registers again where others took it for dead: an heir has its counts.
    fn stay_known(&mut self) {
        let mut store = self.sim.store.borrow_mut();
        store.tables.counts.entry(self.name).or_insert_with(|| std::mem::take(&mut self.memory.counts));
    }

    /// What the other replicas have in flight.
    fn sum(&mut self) {
        let store = self.sim.store.borrow();
        let others = store.tables.counts.iter().filter(|(name, _)| **name != self.name);
        self.memory.others.clear();
        for (service, n) in others.flat_map(|(_, counts)| counts) {
            *self.memory.others.entry(service.clone()).or_default() += n;
        }
    }

    /// One turn; where its data are to blame for a failure, its halves, down to the input that is.
    async fn turn(&mut self, work: Vec<Mine>) {
        if work.is_empty() {
            return;
        }
        let mut parts = vec![work];
        while let Some(part) = parts.pop() {
            let Err((mut broken, reason)) = self.attempt(part).await else { continue };
            if broken.len() == 1 {
                let mut turn = Turn::default();
                let now = self.sim.clock(self.me);
                broken.drain(..).for_each(|work| self.memory.poison(work, &reason, now, &mut turn));
                self.follow_up(turn).await;
                continue;
            }
            broken.sort_by_key(rank);
            let second = broken.split_off(broken.len() / 2);
            parts.extend([second, broken]);
        }
    }

    /// Takes the inputs of a turn and stores what they changed.
    async fn attempt(&mut self, work: Vec<Mine>) -> Result<(), (Vec<Mine>, String)> {
        if self.load(&work).await.is_err() {
            self.sim.sleep(DELAY).await;
            self.memory.again.extend(work);
            return Ok(());
        }
        self.sum();
        let outstanding = |service: &str| self.memory.outstanding(service);
        let (services, bound) = (self.services(), self.memory.bound);
        self.memory.shut = Shut::new(&services, self.breakers.closed(), bound, outstanding);
        let mut turn = Turn::default();
        for item in work {
            let noise = if self.sim.settings.is_fine { u64::from(self.sim.choose(4)) * 250 } else { 0 };
            let moment = Moment { now: self.sim.clock(self.me), noise };
            self.sim.tell(Some(self.me), || format!("takes {}", shown(&item)));
            self.memory.take(item, moment, &mut turn);
        }
        if self.sim.has_flaw(Flaw::PublishBeforeCommit) {
            let sends = turn.changes.sends.clone();
            publish(&self.sim, self.me, sends).await;
        }
        match self.commit(&mut turn).await {
            Ok(()) => {
                self.follow_up(turn).await;
                return Ok(());
            }
            Err(Fault::Broken(reason)) => {
                turn.changes.changed.iter().for_each(|id| drop(self.memory.rows.remove(id)));
                return Err((turn.into_work().collect(), reason));
            }
            Err(Fault::Transient(_)) => {}
        }
        if self.sim.has_flaw(Flaw::UnknownCommitIsDone) {
            let all = turn.changes.changed.iter().copied().collect();
            self.memory.stored(&mut turn, &all, |_, _| ());
            self.follow_up(turn).await;
            return Ok(());
        }
        // Never the same commit again: it may have been stored. What it was computed on is read anew.
        while self.reread(&mut turn).await.is_err() {
            self.sim.sleep(DELAY).await;
        }
        self.memory.forget(&turn);
        for (work, answer) in turn.found.drain(..) {
            if let Work::Act(_, Some(to)) = work {
                self.sim.respond(self.me, to.as_str(), Answer::Act(answer));
            }
        }
        self.memory.again.extend(turn.into_work());
        Ok(())
    }

    async fn follow_up(&mut self, turn: Turn<Rc<Letter>>) {
        let sim = self.sim.clone();
        let Turn { stored, answers, existing, settled, starts, dead, sends, changes, ended, .. } = turn;
        let now = sim.clock(self.me);
        self.breakers.record(&sim, self.me, &changes.calls, now);
        for work in stored.iter().chain(&settled) {
            let Work::Probe(saga, service) = work else { continue };
            if !sends.iter().any(|send| send.saga == *saga && send.send.service == *service) {
                self.breakers.give_back(&sim, service, now);
            }
        }
        for (work, answer) in answers {
            if let Work::Act(_, Some(to)) = work {
                sim.respond(self.me, to.as_str(), Answer::Act(answer));
            }
        }
        for (work, refusal) in starts {
            let known = self.known(&work);
            self.told(&work, known.unwrap_or(refusal));
        }
        for (works, repeated) in [(&stored, false), (&settled, true)] {
            works.iter().for_each(|work| self.tell_stored(work, repeated));
        }
        let letters = stored.into_iter().chain(settled).filter_map(|work| match work {
            Work::Reply(_, letter) => Some(letter),
            _ => None,
        });
        let letters: Vec<Rc<Letter>> = letters.collect();
        if !(sends.is_empty() && letters.is_empty()) {
            let (sim, me, inputs) = (sim.clone(), self.me, self.inputs.clone());
            let follows = async move {
                let again =
                    if sim.has_flaw(Flaw::PublishBeforeCommit) { Vec::new() } else { publish(&sim, me, sends).await };
                letters.iter().for_each(|letter| handled(&sim, me, letter));
                again.into_iter().for_each(|input| inputs.push(input));
            };
            self.sim.beside(me, "follow up", follows).await;
        }
        for id in ended {
            self.memory.rows.remove(&id);
        }
        for work in existing {
            sim.step().await;
            match self.known(&work) {
                Some(answer) => self.told(&work, answer),
                // The first one was not stored after all.
                None => self.memory.again.push(work),
            }
        }
        for (reply, letter, reason) in dead {
            sim.dead_lettered(self.me, &reply.key, &reason);
            handled(&sim, self.me, &letter);
            let (saga, step) = (reply.key.saga, reply.key.step);
            self.memory.again.push(Work::Poke(saga, SagaInput::Mark { step, reason }));
        }
    }

    /// The answer to a start whose saga is there.
    fn known(&self, work: &Mine) -> Option<StartAnswer> {
        let Work::Start(start, _) = work else { return None };
        let store = self.sim.store.borrow();
        let request = start.owner.zip(start.idempotency.as_ref()).map(|(owner, request)| (owner, request.key.clone()));
        let by_key = request.and_then(|request| store.tables.requests.get(&request)).copied();
        let journaled =
            store.tables.sagas.get(&by_key.unwrap_or(start.id)).or_else(|| store.tables.sagas.get(&start.id))?;
        Some(self.memory.existing(start, &journaled.row))
    }

    fn told(&self, work: &Mine, answer: StartAnswer) {
        if let Work::Start(_, Some(to)) = work {
            self.sim.respond(self.me, to.as_str(), Answer::Start(answer));
        }
    }

    /// Answers who asked for an input that was stored.
    fn tell_stored(&self, work: &Mine, repeated: bool) {
        let Some(row) = saga_of(work).and_then(|id| self.memory.rows.get(&id)) else { return };
        match work {
            Work::Start(..) => {
                let view = view(&self.sim.catalogue, row);
                self.told(work, StartAnswer::Started { id: row.id, created: true, view });
            }
            Work::Act(_, Some(to)) => {
                let view = view(&self.sim.catalogue, row);
                self.sim.respond(self.me, to.as_str(), Answer::Act(ActAnswer::Done { view, repeated }));
            }
            _ => {}
        }
    }
}

fn shown(work: &Mine) -> String {
    match work {
        Work::Reply(Reply { key, half, answer, .. }, _) => {
            format!("the answer to {}: {}", crate::story::half(key, *half), crate::story::answer(answer))
        }
        Work::Act(act, _) => format!("{} of {} by {}", act.action.name(), crate::story::saga(act.saga), act.actor),
        Work::Poke(saga, input) => {
            let text = format!("{input:?}");
            format!("{} for {}", text.split([' ', '{']).next().unwrap_or_default(), crate::story::saga(*saga))
        }
        Work::Adopt(saga) => format!("over {}", crate::story::saga(*saga)),
        Work::Probe(saga, service) => format!("{} as the probe of {service}", crate::story::saga(*saga)),
        Work::Start(start, _) => format!("the start of {} {}", start.definition, crate::story::saga(start.id)),
    }
}

/// One more of a message's items is handled; acknowledges it with the last one.
fn handled(sim: &Sim, me: ProcessId, letter: &Letter) {
    letter.open.set(letter.open.get().saturating_sub(1));
    if letter.open.get() == 0 {
        sim.acknowledge(me, letter.number);
    }
}

/// Publishes commands, in messages by service and action; what is certainly not stored comes back.
async fn publish(sim: &Sim, me: ProcessId, sends: Vec<Outgoing>) -> Vec<Input> {
    let mut packed: BTreeMap<(Stream, String), Vec<Outgoing>> = BTreeMap::new();
    for outgoing in sends {
        let send = &outgoing.send;
        let action = if send.half == Half::Fence { subjects::FENCE } else { send.action.as_str() };
        packed.entry((Stream::of(&send.service), action.to_owned())).or_default().push(outgoing);
    }
    let mut again = Vec::new();
    for ((stream, action), commands) in packed {
        for Outgoing { item, send, .. } in &commands {
            sim.tell(Some(me), || {
                format!("sends {} {} (attempt {})", action, crate::story::half(&item.key, item.half), send.attempt)
            });
            sim.sent(me, &item.key, send);
        }
        let items: Vec<Item> = commands.iter().map(|outgoing| outgoing.item.clone()).collect();
        if sim.publish(me, stream, Payload::Commands(action, items)).await == Err(Unpublished::Refused) {
            again.extend(commands.into_iter().map(|outgoing| {
                let Send { step, round, half, attempt, resend, .. } = outgoing.send;
                Input::Within(outgoing.saga, SagaInput::Refused { step, round, half, attempt, resend })
            }));
        }
    }
    again
}
