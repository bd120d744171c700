//! After the commit: effects leave, askers are answered, replies are acknowledged.

use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;
use eventicket_contracts::sagas::{ActAnswer, StartAnswer};
use eventicket_nats::dead_item;
use eventicket_saga::{Input, Json};

use super::intake::{REPLY_LETTERS, Unacked, Work};
use super::results::Turn;
use super::turn::{Outgoing, view};
use super::work::{StartAnswers, addressed};
use super::{Replica, dispatch};

impl Replica {
    pub(super) async fn follow_up(&mut self, turn: Turn) {
        let Turn { stored, answers, existing, settled, starts, dead, sends, changes, ended, .. } = turn;
        if let Err(error) = self.breakers.record(&self.config.pool, &changes.calls, self.config.clock.now()).await {
            tracing::warn!(%error, "a breaker was not stored");
        }
        self.give_back(stored.iter().chain(&settled), &sends).await;
        let refused = self.told_refused(starts).await;
        let nats = self.config.nats.clone();
        let mut told: Vec<(Subject, Bytes)> = stored.iter().filter_map(|work| self.done(work, false)).collect();
        // A repeat is told what the first one brought.
        told.extend(settled.iter().filter_map(|work| self.done(work, true)));
        told.extend(answers.iter().filter_map(|(work, answer)| addressed(work, answer)));
        let mut begun = StartAnswers::default();
        stored.iter().for_each(|work| self.started(work, &mut begun));
        refused.into_iter().for_each(|(work, answer)| begun.add(&work, answer));
        told.extend(begun.addressed());
        let unacked = |work: Work| if let Work::Reply(_, unacked) = work { Some(unacked) } else { None };
        let handled: Vec<Arc<Unacked>> = stored.into_iter().chain(settled).filter_map(unacked).collect();
        if !(told.is_empty() && sends.is_empty() && handled.is_empty()) {
            let permit = self.publishers.clone().acquire_owned().await;
            let (nats, feedback) = (nats.clone(), self.intake.poke.clone());
            tokio::spawn(async move {
                for (to, payload) in told {
                    if let Err(error) = nats.publisher().publish(to, payload).await {
                        tracing::debug!(%error, "an answer was lost");
                    }
                }
                let again = if sends.is_empty() { Vec::new() } else { dispatch::publish(&nats, sends).await };
                for unacked in handled {
                    unacked.handled().await;
                }
                // Before it waits for room among the inputs: the loop that makes room waits for this permit.
                drop(permit);
                for work in again {
                    if feedback.send(work).await.is_err() {
                        return;
                    }
                }
            });
        }
        for id in ended {
            self.memory.rows.remove(&id);
        }
        self.answer_existing(existing).await;
        for (reply, unacked, reason) in dead {
            tracing::error!(key = %reply.key, reason, "a reply was dead-lettered");
            let (service, action) = REPLY_LETTERS;
            match dead_item(&nats, service, action, unacked.message(), &reply, &reason).await {
                Ok(()) => {
                    unacked.handled().await;
                    // A saga that still runs is marked for an operator; one that is unknown or has ended is not.
                    self.memory.again.push(Work::Poke(reply.key.saga, Input::Mark { step: reply.key.step, reason }));
                }
                Err(error) => tracing::warn!(%error, "a dead letter was not stored; the message comes again"),
            }
        }
    }

    /// A probe whose saga sent nothing to the service is free for another saga.
    async fn give_back(&mut self, works: impl Iterator<Item = &Work>, sends: &[Outgoing]) {
        for work in works {
            let Work::Probe(saga, service) = work else { continue };
            if !sends.iter().any(|s| s.saga == *saga && s.send.service == *service)
                && let Err(error) = self.breakers.give_back(&self.config.pool, service, self.config.clock.now()).await
            {
                tracing::warn!(%error, "a probe was not given back; its lease ends by itself");
            }
        }
    }

    /// The answer to an action that was stored, with its address.
    fn done(&self, work: &Work, repeated: bool) -> Option<(Subject, Bytes)> {
        let Work::Act(act, _) = work else { return None };
        let row = self.memory.rows.get(&act.saga)?;
        addressed(work, &ActAnswer::Done { view: view(&self.config.catalogue, row), repeated })
    }

    /// The answer to a start that was stored.
    fn started(&self, work: &Work, answers: &mut StartAnswers) {
        let Work::Start(start, _) = work else { return };
        let Some(row) = self.memory.rows.get(&start.id) else { return };
        let view = if start.blind { Json::NULL } else { view(&self.config.catalogue, row) };
        answers.add(work, StartAnswer::Started { id: row.id, created: true, view });
    }
}
