//! The batch worker of a service, as `eventicket_nats::run_worker` has it: a batch from the messages that are ready, split
//! where something in it is broken, tried again where a dependency is away; then the replies, then the acknowledgements.

use std::rc::Rc;

use eventicket_contracts::envelope::{Answer, Reply};
use eventicket_contracts::subjects;
use eventicket_nats::{Delivered, Fault, Handled};
use eventicket_planted::Fault as Planted;

use crate::executor::{On, Wait};
use crate::network::{Message, Payload, Stream};
use crate::processes::ProcessId;
use crate::world::Sim;

/// Most messages of one batch here.
const MESSAGES: usize = 4;
/// First and longest delay between two tries of a batch, ms.
const DELAY: (i64, i64) = (20, 1_000);

/// Takes the commands of a service until the process ends.
pub(crate) async fn work(sim: Sim, me: ProcessId, stream: Stream) {
    loop {
        sim.pause(Wait::on(On::Mail(stream))).await;
        let most = if sim.settings.is_fine && sim.choose(3) == 0 { MESSAGES } else { 1 };
        let letters = sim.broker.borrow_mut().deliver(stream, sim.now(), most);
        letters.iter().for_each(|(_, message)| sim.mind.learn(message));
        let items: Vec<Delivered> = letters.iter().flat_map(|(_, message)| opened(message)).collect();
        if items.is_empty() {
            continue;
        }
        sim.tell(Some(me), || format!("takes {}", items.iter().map(shown).collect::<Vec<_>>().join(", ")));
        sim.taken(me).await;
        let handled = split(&sim, me, stream, &items).await;
        let finishing = sim.clone();
        sim.beside(me, "finish", finish(finishing, me, letters, items, handled)).await;
    }
}

fn opened(message: &Message) -> Vec<Delivered> {
    let Payload::Commands(action, items) = &*message.payload else { return Vec::new() };
    let delivered = |item: &eventicket_contracts::envelope::Item| Delivered {
        action: action.clone(),
        item: item.clone(),
        reply_to: subjects::reply(0),
        deliveries: message.deliveries,
    };
    items.iter().map(delivered).collect()
}

fn shown(delivered: &Delivered) -> String {
    let item = &delivered.item;
    format!("{} of {} (attempt {})", delivered.action, crate::story::key(&item.key), item.attempt)
}

/// Handles a batch; where it is broken, its halves, down to the item that is to blame.
async fn split(sim: &Sim, me: ProcessId, stream: Stream, batch: &[Delivered]) -> Vec<Handled> {
    let mut handled = Vec::new();
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        match attempt(sim, me, stream, part).await {
            Ok(done) => handled.extend(done),
            Err(reason) if part.len() == 1 => handled.push(Handled::Dead(reason)),
            Err(_) => {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            }
        }
    }
    handled
}

async fn attempt(sim: &Sim, me: ProcessId, stream: Stream, batch: &[Delivered]) -> Result<Vec<Handled>, String> {
    let mut delay = DELAY.0;
    loop {
        let outcome = match stream {
            Stream::Bookings => crate::bookings::handle(sim, me, batch).await,
            Stream::Payments => crate::payments::handle(sim, me, batch).await,
            _ => crate::notifications::handle(sim, me, batch).await,
        };
        match outcome {
            Ok(handled) => return Ok(handled),
            Err(Fault::Broken(reason)) => return Err(reason),
            Err(Fault::Transient(reason)) if Planted::FaultsAreSplit.is_planted() => return Err(reason),
            Err(Fault::Transient(_)) => {
                sim.sleep(delay).await;
                delay = (delay * 2).min(DELAY.1);
            }
        }
    }
}

/// Sends the replies, then acknowledges.
async fn finish(sim: Sim, me: ProcessId, letters: Vec<(u64, Message)>, items: Vec<Delivered>, handled: Vec<Handled>) {
    let mut replies = Vec::new();
    for (delivered, handled) in items.iter().zip(handled) {
        match handled {
            Handled::Answer(answer) => replies.push(reply(delivered, answer)),
            Handled::Later => {}
            Handled::Dead(reason) => {
                sim.dead_lettered(me, &delivered.item.key, &reason);
                replies.push(reply(delivered, Answer::Dead(reason)));
            }
        }
    }
    if send(&sim, me, replies).await {
        letters.iter().for_each(|(number, _)| sim.acknowledge(me, *number));
    }
}

/// Sends replies; whether they are known to be stored.
pub(crate) async fn send(sim: &Sim, me: ProcessId, replies: Vec<Reply>) -> bool {
    for reply in &replies {
        sim.tell(Some(me), || {
            format!("answers {}: {}", crate::story::half(&reply.key, reply.half), crate::story::answer(&reply.answer))
        });
        sim.answered(me, reply);
    }
    replies.is_empty() || sim.publish(me, Stream::Replies, Payload::Replies(replies)).await.is_ok()
}

fn reply(to: &Delivered, answer: Answer) -> Reply {
    let item = &to.item;
    Reply { key: item.key.clone(), half: item.half, attempt: item.attempt, answer, trace: None }
}

/// Spawns the worker of a service.
pub(crate) fn start(sim: &Sim, me: ProcessId, stream: Stream) {
    sim.tasks.spawn_waiting(Some(me), "worker", work(Rc::clone(sim), me, stream));
}
