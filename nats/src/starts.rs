//! Starts of sagas: those that are ready leave in one message, and their answers come in few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{StatusCode, Subject};
use eventicket_contracts::envelope::{Envelope, MAX_BYTES, MAX_ITEMS, VERSION};
use eventicket_contracts::sagas::{AnsweredStart, StartAnswer, StartSaga};
use eventicket_contracts::{SagaId, subjects};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;
use crate::publish::{bytes_of, envelopes, written};
use crate::{Nats, QueryFailure};

/// Starts that may wait for the next message; beyond them the asker waits.
const WAITING: usize = 4_096;
/// Time between two tries to hear answers.
const AGAIN: Duration = Duration::from_secs(1);

impl Nats {
    /// Starts one saga, for askers that have few.
    ///
    /// # Errors
    /// As [`Nats::query`]; after `TimedOut` the saga may have begun.
    pub async fn start(&self, start: &StartSaga, timeout: Duration) -> Result<StartAnswer, QueryFailure> {
        let answers: Envelope<AnsweredStart> =
            self.request(subjects::START, &Envelope::new(vec![start]), timeout).await?;
        let answer = answers.items.into_iter().next().map(|answered| answered.answer);
        answer.ok_or_else(|| QueryFailure::Malformed("no answer to the start".into()))
    }
}

/// Starts sagas for an asker that has many, as the REST API.
pub struct Starts {
    nats: Nats,
    queue: mpsc::Sender<(SagaId, Vec<u8>)>,
    waiting: Arc<Waiting>,
}

/// Who waits for an answer, by the start's id.
#[derive(Default)]
struct Waiting(Mutex<HashMap<SagaId, Asker>>);

struct Asker {
    /// Number of the message that it left with; 0 before it left.
    message: u64,
    tell: oneshot::Sender<Result<StartAnswer, QueryFailure>>,
}

impl Waiting {
    fn askers(&self) -> MutexGuard<'_, HashMap<SagaId, Asker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: SagaId, answer: Result<StartAnswer, QueryFailure>) {
        let asker = self.askers().remove(&id);
        if let Some(asker) = asker {
            let _ = asker.tell.send(answer); // who gave up needs none
        }
    }

    fn left(&self, ids: &[SagaId], message: u64) {
        let mut askers = self.askers();
        for id in ids {
            askers.entry(*id).and_modify(|asker| asker.message = message);
        }
    }

    /// All starts of a message fail.
    fn fail(&self, message: u64, failure: &QueryFailure) {
        let those = |(id, asker): (&SagaId, &Asker)| (asker.message == message).then_some(*id);
        let ids: Vec<SagaId> = self.askers().iter().filter_map(those).collect();
        ids.into_iter().for_each(|id| self.answer(id, Err(failure.clone())));
    }
}

/// Forgets an asker that does not wait any more.
struct Asking<'a>(&'a Waiting, SagaId);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.askers().remove(&self.1);
    }
}

impl Starts {
    /// Starts what is asked for until shutdown.
    pub fn begin(nats: Nats, shutdown: CancellationToken) -> Self {
        let (queue, asked) = mpsc::channel(WAITING);
        let (waiting, inbox) = (Arc::new(Waiting::default()), nats.publisher().new_inbox());
        let (hearing, heard) = oneshot::channel();
        tokio::spawn(hear(nats.clone(), inbox.clone(), waiting.clone(), hearing, shutdown));
        tokio::spawn(send(nats.clone(), inbox, waiting.clone(), heard, asked));
        Self { nats, queue, waiting }
    }

    /// Starts a saga.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start(&self, start: &StartSaga, timeout: Duration) -> Result<StartAnswer, QueryFailure> {
        if !self.nats.is_connected() {
            return Err(QueryFailure::Disconnected);
        }
        let (tell, told) = oneshot::channel();
        self.waiting.askers().insert(start.id, Asker { message: 0, tell });
        let _asking = Asking(&self.waiting, start.id);
        let asked = async {
            self.queue.send((start.id, bytes_of(start))).await.map_err(|_| QueryFailure::Disconnected)?;
            told.await.unwrap_or(Err(QueryFailure::Disconnected))
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or(Err(QueryFailure::TimedOut))
    }
}

/// Sends what is ready, once answers are heard. Every message has a reply subject of its own below the inbox, so that one
/// that nobody takes is known.
async fn send(
    nats: Nats,
    inbox: String,
    waiting: Arc<Waiting>,
    heard: oneshot::Receiver<()>,
    mut asked: mpsc::Receiver<(SagaId, Vec<u8>)>,
) {
    if heard.await.is_err() {
        return; // shutdown
    }
    let (mut ready, mut message, mut pace) = (Vec::new(), 0, Pace::default());
    while asked.recv_many(&mut ready, WAITING).await > 0 {
        pace.took(ready.len());
        while !ready.is_empty() {
            let rest = ready.split_off(fitting(&ready));
            let (ids, starts): (Vec<SagaId>, Vec<Vec<u8>>) = std::mem::replace(&mut ready, rest).into_iter().unzip();
            message += 1;
            waiting.left(&ids, message);
            for payload in envelopes(starts, written) {
                let reply = format!("{inbox}.{message}");
                let sent = nats.publisher().publish_with_reply(subjects::START, reply, payload).await;
                if sent.is_err() {
                    waiting.fail(message, &QueryFailure::Disconnected);
                }
            }
        }
        pace.begin().await;
    }
}

/// How many of them fit into one envelope.
fn fitting(starts: &[(SagaId, Vec<u8>)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, start): &&(SagaId, Vec<u8>)| {
        bytes += start.len() + 1;
        bytes <= MAX_BYTES / 2
    };
    starts.iter().take(MAX_ITEMS).take_while(fits).count().max(1)
}

/// Hears answers until shutdown, on the connection that publishes: the server tells no other that nobody takes a message.
async fn hear(
    nats: Nats,
    inbox: String,
    waiting: Arc<Waiting>,
    hearing: oneshot::Sender<()>,
    shutdown: CancellationToken,
) {
    let mut hearing = Some(hearing);
    while !shutdown.is_cancelled() {
        match nats.publisher().subscribe(format!("{inbox}.*")).await {
            Ok(mut answers) => {
                if let Some(hearing) = hearing.take() {
                    let _ = hearing.send(());
                }
                while let Some(Some(message)) = shutdown.run_until_cancelled(answers.next()).await {
                    if message.status == Some(StatusCode::NO_RESPONDERS) {
                        waiting.fail(number(&message.subject), &QueryFailure::NobodyAnswers);
                        continue;
                    }
                    match serde_json::from_slice::<Envelope<AnsweredStart>>(&message.payload) {
                        Ok(answers) if answers.v == VERSION => {
                            answers.items.into_iter().for_each(|a| waiting.answer(a.id, Ok(a.answer)));
                        }
                        _ => {
                            let failure = QueryFailure::Malformed("not answers to starts".into());
                            waiting.fail(number(&message.subject), &failure);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "answers to starts cannot be heard");
                shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
            }
        }
    }
}

/// The number of the message that is answered.
fn number(subject: &Subject) -> u64 {
    subject.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_what_fits() {
        let starts = |size: usize, n: usize| vec![(SagaId::fresh(), vec![0; size]); n];
        assert_eq!(fitting(&starts(100, 3)), 3);
        assert_eq!(fitting(&starts(100, 1_000)), MAX_ITEMS);
        assert_eq!(fitting(&starts(MAX_BYTES / 4, 9)), 1);
        assert_eq!(fitting(&starts(MAX_BYTES, 2)), 1, "what is too large travels alone");
    }

    #[tokio::test]
    async fn those_of_a_message_that_nobody_takes_fail_and_no_others() {
        let waiting = Waiting::default();
        let mut told = HashMap::new();
        for message in [1, 2] {
            let (id, (tell, heard)) = (SagaId::fresh(), oneshot::channel());
            waiting.askers().insert(id, Asker { message: 0, tell });
            waiting.left(&[id], message);
            told.insert(message, heard);
        }
        waiting.fail(2, &QueryFailure::NobodyAnswers);
        assert_eq!(told.remove(&2).unwrap().await.unwrap(), Err(QueryFailure::NobodyAnswers));
        assert!(told.remove(&1).unwrap().try_recv().is_err());
        assert_eq!(waiting.askers().len(), 1);
    }
}
