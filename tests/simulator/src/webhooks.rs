//! The payment gateway's webhooks, as payments takes them.

use std::cell::Cell;
use std::rc::Rc;

use eventicket_payments::simulation::{Event, Hinted, Row};

use crate::mind::Flag;
use crate::processes::ProcessId;
use crate::world::Sim;

/// How often a row that others change meanwhile is looked at.
const LOOKS: u32 = 3;

/// What a webhook is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// It is to come again.
    NotYet,
}

/// Where the answer comes.
pub(crate) type Told = Rc<(Cell<Option<Taken>>, Rc<Flag>)>;

/// Hands a webhook over to a replica.
pub(crate) fn hand_over(sim: &Sim, to: ProcessId, body: Vec<u8>) -> Told {
    let told: Told = Rc::default();
    let (handling, answer) = (Rc::clone(sim), told.clone());
    let knows = sim.mind.hash(&body);
    let handle = async move {
        let taken = take(&handling, to, &body).await;
        answer.0.set(Some(taken));
        answer.1.raise(handling.mind.hash(&taken));
    };
    sim.mind.knowing(knows, || sim.tasks.spawn(Some(to), "webhook", handle));
    told
}

async fn take(sim: &Sim, me: ProcessId, body: &[u8]) -> Taken {
    let Some(event) = Event::read(body) else { return Taken::Yes };
    for _ in 0..LOOKS {
        sim.step().await;
        let row = sim.store.borrow().tables.charges.get(event.key()).map(|charge| charge.row.clone());
        let (before, after) = match row.as_ref().map_or(Hinted::Nothing, |row| event.hint(row)) {
            Hinted::Nothing => return Taken::Yes,
            Hinted::NotYet => return Taken::NotYet,
            Hinted::Write(after) => match row {
                Some(before) => (Box::new(before), after),
                None => return Taken::Yes,
            },
            Hinted::Stray { before, after } => (before, after),
        };
        // Asked after the row, so that one whose effect came between the two is known.
        sim.step().await;
        if sim.store.borrow().tables.webhooks.contains(event.id()) {
            return Taken::Yes;
        }
        if write(sim, me, &before, *after, &event).await {
            return Taken::Yes;
        }
    }
    Taken::NotYet
}

/// Commits a row and drives it on; false where it has changed meanwhile.
async fn write(sim: &Sim, me: ProcessId, before: &Row, after: Row, event: &Event) -> bool {
    let (is_new, key) = (before.version() == 0, after.key().clone());
    let Some(written) = sim.record(me, before, after, Some(event.id().to_owned())).await else {
        // What is a row already is given back already.
        return is_new && sim.store.borrow().tables.charges.contains_key(&key);
    };
    sim.tell(Some(me), || format!("a webhook moves {} to {:?}", crate::story::key(&key), written.state()));
    if written.state().is_due() {
        sim.drive(me, written, false);
    }
    true
}
