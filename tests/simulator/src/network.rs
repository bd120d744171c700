//! The broker and the wires to it: streams keep messages until they are acknowledged, and deliver them again where that
//! does not come. A message may be refused, lost, stored twice or late; its publisher may not learn what became of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use eventicket_contracts::envelope::{Item, Reply};

use crate::chaos::Kind;
use crate::executor::NEVER;
use crate::mind::Flag;
use crate::processes::ProcessId;
use crate::world::World;

/// A message that is not acknowledged comes again after so long, ms.
const ACK_WAIT: i64 = 30_000;

/// A work queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    Bookings,
    Payments,
    Notifications,
    Replies,
}

impl Stream {
    /// The queue of a service's commands.
    pub fn of(service: &str) -> Self {
        match service {
            "bookings" => Self::Bookings,
            "payments" => Self::Payments,
            _ => Self::Notifications,
        }
    }

    pub fn service(self) -> &'static str {
        match self {
            Self::Bookings => "bookings",
            Self::Payments => "payments",
            Self::Notifications => "notifications",
            Self::Replies => "replies",
        }
    }
}

/// What a message carries.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Commands(String, Vec<Item>),
    Replies(Vec<Reply>),
}

/// A message as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub stream: Stream,
    pub payload: Rc<Payload>,
    /// Delivered from then on.
    at: i64,
    pub deliveries: u64,
}

/// Why a publish is not known to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unpublished {
    /// Certainly not.
    Refused,
    Unknown,
}

#[derive(Default)]
pub(crate) struct Broker {
    messages: BTreeMap<u64, Message>,
    number: u64,
    /// Rises with each change of what is stored.
    pub changes: u64,
    /// It answers nobody until then.
    pub down_until: i64,
    /// How often its store was lost.
    pub losses: u32,
}

impl Broker {
    /// When the next one can be.
    pub fn next_mail(&self, stream: Stream) -> i64 {
        let of = self.messages.values().filter(|m| m.stream == stream);
        of.map(|m| m.at.max(self.down_until)).min().unwrap_or(NEVER)
    }

    /// Delivers at most so many messages.
    pub fn deliver(&mut self, stream: Stream, now: i64, most: usize) -> Vec<(u64, Message)> {
        if now < self.down_until {
            return Vec::new();
        }
        let ready = self.messages.iter_mut().filter(|(_, m)| m.stream == stream && m.at <= now).take(most);
        let taken = ready.map(|(number, message)| {
            self.changes += 1;
            message.at = now + ACK_WAIT;
            message.deliveries += 1;
            (*number, message.clone())
        });
        taken.collect()
    }

    fn store(&mut self, stream: Stream, payload: Rc<Payload>, at: i64) {
        self.number += 1;
        self.changes += 1;
        self.messages.insert(self.number, Message { stream, payload, at, deliveries: 0 });
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// All messages are gone.
    pub fn lose(&mut self) {
        self.messages.clear();
        self.changes += 1;
        self.losses += 1;
    }

    /// For fingerprints: what is stored, without its order of publishing.
    pub fn shown(&self) -> Vec<String> {
        let mut all: Vec<String> = self.messages.values().map(|m| format!("{m:?}")).collect();
        all.sort();
        all
    }
}

impl World {
    /// Publishes a message.
    pub async fn publish(&self, from: ProcessId, stream: Stream, payload: Payload) -> Result<(), Unpublished> {
        self.step().await;
        if self.now() < self.broker.borrow().down_until {
            let refused = self.choose(2) == 0;
            self.tell(Some(from), || format!("publishes to {}, and the broker is away", stream.service()));
            return Err(if refused { Unpublished::Refused } else { Unpublished::Unknown });
        }
        let now = self.now();
        let payload = Rc::new(payload);
        let store = |at: i64| self.broker.borrow_mut().store(stream, payload.clone(), at);
        if self.befalls(Kind::Loss) {
            let (stored, refused) = [(false, false), (false, true), (true, false)][self.choose(3) as usize];
            if stored {
                store(now);
            }
            self.tell(Some(from), || {
                let end = if refused { "refused" } else { "unanswered" };
                format!("its publish to {} is {end}{}", stream.service(), if stored { ", and stored" } else { "" })
            });
            return Err(if refused { Unpublished::Refused } else { Unpublished::Unknown });
        }
        let late = if self.befalls(Kind::Late) { self.lateness() } else { 0 };
        if late > 0 {
            self.tell(Some(from), || format!("what it publishes to {} comes {late} ms late", stream.service()));
        }
        store(now + late);
        if self.befalls(Kind::Repeat) {
            let later = self.lateness();
            self.tell(Some(from), || format!("what it publishes to {} comes again in {later} ms", stream.service()));
            store(now + later);
        }
        self.edge(from).await;
        Ok(())
    }

    /// Acknowledges a message.
    pub fn acknowledge(&self, by: ProcessId, message: u64) {
        if self.now() < self.broker.borrow().down_until || self.befalls(Kind::Loss) {
            self.tell(Some(by), || "an acknowledgement is lost".to_owned());
            return;
        }
        let mut broker = self.broker.borrow_mut();
        broker.messages.remove(&message);
        broker.changes += 1;
    }

    /// A core NATS request to one of the orchestrator's replicas, whose answer is put into the slot; `None` where nobody
    /// got it.
    pub fn request(&self, work: impl Fn(String) -> crate::orchestrator::Input) -> Option<Inbox> {
        if self.now() < self.broker.borrow().down_until || self.befalls(Kind::Loss) {
            self.tell(None, || "a request is lost".to_owned());
            return None;
        }
        let living = self.living("orchestrator");
        let to = *living.get(self.choose(u32::try_from(living.len()).unwrap_or(0)) as usize)?;
        let inbox = self.inbox();
        let input = work(inbox.name.clone());
        let replicas = self.replicas.borrow();
        replicas.get(&to)?.push(input);
        if self.befalls(Kind::Repeat) {
            let other = living[self.choose(u32::try_from(living.len()).unwrap_or(0)) as usize];
            self.tell(None, || "a request comes twice".to_owned());
            replicas.get(&other)?.push(work(format!("{}.again", inbox.name)));
        }
        Some(inbox)
    }

    fn inbox(&self) -> Inbox {
        let number = self.fresh_number();
        let inbox = Inbox { name: format!("_INBOX.{number}"), came: Rc::default() };
        self.inboxes.borrow_mut().insert(inbox.name.clone(), inbox.came.clone());
        inbox
    }

    /// An answer to a request, which may be lost.
    pub fn respond(&self, from: ProcessId, to: &str, answer: Answer) {
        let Some(inbox) = self.inboxes.borrow_mut().remove(to) else { return };
        if self.befalls(Kind::Loss) {
            self.tell(Some(from), || "an answer to a request is lost".to_owned());
            return;
        }
        inbox.here.raise(self.mind.hash(&answer));
        inbox.answer.replace(Some(answer));
    }
}

/// An answer of the orchestrator.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Start(eventicket_contracts::sagas::StartAnswer),
    Act(eventicket_contracts::sagas::ActAnswer),
}

/// Where an answer comes.
pub(crate) struct Inbox {
    pub name: String,
    pub came: Rc<Slot>,
}

#[derive(Default)]
pub(crate) struct Slot {
    pub answer: std::cell::RefCell<Option<Answer>>,
    pub here: Rc<Flag>,
}
