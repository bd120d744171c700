//! Packs commands in envelopes and publishes them.

use std::collections::BTreeMap;

use eventicket_contracts::envelope::{Envelope, Item, MAX_BYTES, MAX_ITEMS};
use eventicket_contracts::subjects;
use eventicket_nats::{Nats, Outgoing as Published, PublishError, command_headers};
use eventicket_saga::{Half, Input, Send};

use super::intake::Work;
use super::turn::Outgoing;

/// Publishes a turn's commands, in envelopes by service, action and shard. What is certainly not stored comes back as work,
/// so that it is tried again without spending an attempt; of anything else the step's own time-out takes care.
pub async fn publish(nats: &Nats, commands: Vec<Outgoing>) -> Vec<Work> {
    let mut again = Vec::new();
    let (messages, contents): (Vec<_>, Vec<_>) = pack(commands).into_iter().map(compose).unzip();
    let results = nats.publish_all(messages).await;
    for (result, content) in results.into_iter().zip(contents) {
        match result {
            Ok(_) => {}
            Err(PublishError::Unknown(error)) => tracing::debug!(error, "a publish has no answer"),
            Err(PublishError::Refused(error)) => {
                tracing::warn!(error, commands = content.len(), "a publish was refused");
                again.extend(content.into_iter().map(|c| {
                    let Send { step, round, half, attempt, resend, .. } = c.send;
                    Work::Poke(c.saga, Input::Refused { step, round, half, attempt, resend })
                }));
            }
        }
    }
    again
}

fn pack(commands: Vec<Outgoing>) -> Vec<(String, Vec<Outgoing>)> {
    let mut by_subject: BTreeMap<String, Vec<Outgoing>> = BTreeMap::new();
    for c in commands {
        let shard = subjects::shard_of(c.order, subjects::SHARDS);
        let action = if c.send.half == Half::Fence { subjects::FENCE } else { c.send.action.as_str() };
        by_subject.entry(subjects::command(&c.send.service, action, shard)).or_default().push(c);
    }
    let mut packed = Vec::new();
    for (subject, commands) in by_subject {
        let mut envelope: Vec<Outgoing> = Vec::new();
        let mut bytes = 0;
        for c in commands {
            let size = size(&c);
            if !envelope.is_empty() && (envelope.len() >= MAX_ITEMS || bytes + size > MAX_BYTES) {
                packed.push((subject.clone(), std::mem::take(&mut envelope)));
                bytes = 0;
            }
            bytes += size;
            envelope.push(c);
        }
        packed.push((subject, envelope));
    }
    packed
}

/// About how many bytes it takes.
fn size(command: &Outgoing) -> usize {
    command.item.body.text().len() + 256
}

fn compose((subject, commands): (String, Vec<Outgoing>)) -> (Published, Vec<Outgoing>) {
    let items: Vec<&Item> = commands.iter().map(|c| &c.item).collect();
    let mut payload = Vec::with_capacity(commands.iter().map(size).sum());
    // Fails only on a map whose keys are no strings, which no item has.
    let _ = serde_json::to_writer(&mut payload, &Envelope::new(items));
    let trace = commands.first().and_then(|c| c.item.trace.as_deref());
    let headers = command_headers(&subjects::reply(0), trace);
    (Published { subject, id: uuid::Uuid::new_v4().to_string(), headers, payload: payload.into() }, commands)
}
