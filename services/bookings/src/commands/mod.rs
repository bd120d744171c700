//! The commands of the service, one a file: its form, and its decision as a pure function over [`Books`].
//!
//! A batch is one transaction: the locks of its sagas, their records, the locks of the events whose capacity may change,
//! the decisions in arrival order, and each row written once.

pub mod confirm;
pub mod fence;
pub mod offer;
pub mod release;
pub mod reserve;

use std::collections::BTreeSet;
use std::time::Duration;

use eventicket_contracts::bookings::{Confirm, Offer, Release, Reserve};
use eventicket_contracts::envelope::{Answer, Half, Item, Key};
use eventicket_contracts::subjects::{self, Service};
use eventicket_contracts::{Clock, EventId, SagaId, Timestamp};
use eventicket_nats::{Commands, Delivered, Fault, Handled, decode};

use crate::allocation::Books;
use crate::commands::fence::{Fencible, Fencing};
use crate::desk::Desk;
use crate::needs::Needs;

/// How long records are kept: a do of an older saga is refused, since nothing may be left that would tell its repeat.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Why an undo, a confirm or a fence is dead: its records may have been there, and are no longer kept.
const NOTHING_RECORDED: &str = "nothing is recorded of a saga of this age";

/// An answer, or why the item is dead.
pub(crate) type Decided = Result<Answer, String>;

/// A command that has its form.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub round: Round,
    pub body: Body,
}

/// The part that all commands have.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub key: Key,
    pub deadline: Option<Timestamp>,
    pub trace: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Reserve(Reserve),
    Release(Release),
    Confirm(Confirm),
    Offer(Offer),
    Fence(Fencing),
}

impl Command {
    pub fn parse(delivered: &Delivered) -> Result<Self, Handled> {
        let item = &delivered.item;
        let body = match (delivered.action.as_str(), item.half) {
            ("reserve", Half::Do) => Body::Reserve(reserve::check(decode(item)?).map_err(Handled::Dead)?),
            ("release", Half::Undo) => Body::Release(decode(item)?),
            ("confirm", Half::Do) => Body::Confirm(decode(item)?),
            ("offer", Half::Do) => Body::Offer(offer::check(decode(item)?).map_err(Handled::Dead)?),
            (subjects::FENCE, Half::Fence) => Body::Fence(fence::check(decode(item)?).map_err(Handled::Dead)?),
            (action, half) => return Err(Handled::Dead(format!("there is no {action} as {half:?}"))),
        };
        let Item { key, deadline, trace, .. } = item;
        Ok(Self { round: Round { key: key.clone(), deadline: *deadline, trace: trace.clone() }, body })
    }

    /// The event whose capacity the command may change, by what is recorded.
    pub fn event(&self, books: &Books) -> Option<EventId> {
        match &self.body {
            Body::Reserve(reserve) => self.is_new_order(books).then_some(reserve.event),
            Body::Offer(offer) => self.is_new_offer(books).then_some(offer.event),
            Body::Release(_) | Body::Confirm(_) | Body::Fence(_) => Some(books.held(&self.may_end()?)?.0),
        }
    }

    /// Adds what the decision has to know of seats and customers.
    fn needs(&self, books: &Books, needs: &mut Needs) {
        match &self.body {
            Body::Reserve(reserve) if self.is_new_order(books) => needs.order(reserve, books),
            Body::Offer(offer) if self.is_new_offer(books) => needs.offer(offer, books),
            _ => self.may_end().iter().for_each(|key| needs.hold(key, books)),
        }
    }

    fn is_new_order(&self, books: &Books) -> bool {
        books.record(&self.round.key).is_none()
    }

    fn is_new_offer(&self, books: &Books) -> bool {
        books.offer_answer(&self.round.key).is_none()
    }

    /// The hold that the command may end, with its capacity given back.
    fn may_end(&self) -> Option<Key> {
        match &self.body {
            Body::Release(_) => Some(self.round.key.clone()),
            Body::Fence(Fencing { round: Fencible::Confirm(confirm), .. }) => {
                Some(confirm::hold_key(&self.round, confirm))
            }
            Body::Reserve(_) | Body::Confirm(_) | Body::Offer(_) | Body::Fence(_) => None,
        }
    }

    pub fn is_offer(&self) -> bool {
        matches!(self.body, Body::Offer(_))
    }

    pub fn is_fence(&self) -> bool {
        matches!(self.body, Body::Fence(_))
    }

    pub fn decide(&self, books: &mut Books, now: Timestamp) -> Decided {
        match &self.body {
            Body::Reserve(body) => reserve::decide(books, &self.round, body, now),
            Body::Release(body) => release::decide(books, &self.round, body, now),
            Body::Confirm(body) => confirm::decide(books, &self.round, body, now),
            Body::Offer(body) => offer::decide(books, &self.round, body, now),
            Body::Fence(body) => fence::decide(books, &self.round, body, now),
        }
    }
}

/// The events that a batch may change, where its commands name all of them: reserves name theirs, and a confirm changes
/// nothing of an event. Those of the others are told by their records, and locks are taken in order, or all at once.
fn known_events(commands: &[&Command]) -> BTreeSet<EventId> {
    let known = |command: &&Command| match &command.body {
        Body::Reserve(reserve) => Some(Some(reserve.event)),
        Body::Confirm(_) => Some(None),
        Body::Release(_) | Body::Offer(_) | Body::Fence(_) => None,
    };
    let all: Option<Vec<Option<EventId>>> = commands.iter().map(known).collect();
    all.into_iter().flatten().flatten().collect()
}

/// What the decisions of a batch have to know of seats and customers.
pub(crate) fn needs(commands: &[&Command], books: &Books) -> Needs {
    let mut needs = Needs::default();
    // Offers first, since the others may follow one.
    let offers = commands.iter().filter(|command| command.is_offer());
    offers.chain(commands).for_each(|command| command.needs(books, &mut needs));
    needs
}

/// Whether the command came past its deadline.
pub(crate) fn is_late(round: &Round, now: Timestamp) -> bool {
    round.deadline.is_some_and(|deadline| deadline < now)
}

/// Whether a saga is older than records are kept. Its id carries the time; one that does not is of no age we know.
pub(crate) fn too_old(key: &Key, now: Timestamp) -> bool {
    let Some((seconds, nanos)) = key.saga.0.get_timestamp().map(|at| at.to_unix()) else { return true };
    let started =
        i64::try_from(seconds).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000) + i64::from(nanos / 1_000_000);
    now.since(Timestamp(started)) > RETENTION
}

/// Handles the service's commands in batches.
pub struct Bookings {
    desk: Desk,
    clock: Clock,
}

impl Bookings {
    pub(crate) fn new(desk: Desk, clock: Clock) -> Self {
        Self { desk, clock }
    }

    async fn decide(&self, commands: &[&Command]) -> Result<Vec<Decided>, sqlx::Error> {
        let sagas: Vec<SagaId> = commands.iter().map(|command| command.round.key.saga).collect();
        let offers: Vec<&Command> = commands.iter().copied().filter(|command| command.is_offer()).collect();
        let fenced = commands.iter().any(|command| command.is_fence());
        let (mut tx, mut books) = self.desk.begin(&sagas, &known_events(commands)).await?;
        if fenced || !offers.is_empty() {
            books.add_offers(tx.offer_answers(&sagas).await?);
        }
        if fenced {
            books.add_fences(tx.fence_answers(&sagas).await?);
        }
        let events = |commands: &[&Command]| commands.iter().filter_map(|c| c.event(&books)).collect::<BTreeSet<_>>();
        let (new, mut wanted) = (events(&offers), events(commands));
        wanted.retain(|event| books.event(*event).is_none());
        tx.open_events(&new).await?;
        books.add_events(tx.lock_events(&wanted).await?);
        let needs = needs(commands, &books);
        tx.supply(&mut books, &needs).await?;

        // After the waits, so that a hold's length is its customer's.
        let now = self.clock.now();
        let decided = commands.iter().map(|command| command.decide(&mut books, now)).collect();
        self.desk.commit(tx, books, now).await?;
        Ok(decided)
    }
}

impl Commands for Bookings {
    const SERVICE: Service = Service::BOOKINGS;

    async fn handle(&self, batch: &[Delivered]) -> Result<Vec<Handled>, Fault> {
        let parsed: Vec<Result<Command, Handled>> = batch.iter().map(Command::parse).collect();
        let commands: Vec<&Command> = parsed.iter().filter_map(|command| command.as_ref().ok()).collect();
        let decided = if commands.is_empty() { Vec::new() } else { self.decide(&commands).await? };
        let mut decided = decided.into_iter();
        let handled = parsed.into_iter().map(|command| match command {
            Err(dead) => dead,
            Ok(_) => match decided.next() {
                Some(Ok(answer)) => Handled::Answer(answer),
                Some(Err(reason)) => Handled::Dead(reason),
                None => Handled::Answer(Answer::Retry("not decided".to_owned())),
            },
        });
        Ok(handled.collect())
    }
}
