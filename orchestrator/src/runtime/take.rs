//! What one input does to its saga, before anything is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use eventicket_contracts::sagas::{ActAnswer, StartAnswer};
use eventicket_contracts::{SagaId, Timestamp};
use eventicket_saga::Input;

use super::intake::Work;
use super::memory::Memory;
use super::results::Turn;
use super::row;
use super::turn::{Fate, World, feed, guarded};
use super::work::{input_of, not_yours, saga_of};

/// When a saga is looked at again whose timer cannot be handled: a defect, which must not keep the replica busy.
const POISON_PAUSE: Duration = Duration::from_secs(60);

/// What chance and the clock bring to an input.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Any number, for jitter.
    pub noise: u64,
}

impl<M> Memory<M> {
    /// Feeds one input; notes what must happen after the commit.
    pub fn take(&mut self, work: Work<M>, moment: Moment, turn: &mut Turn<M>) {
        if let Work::Start(..) = work {
            return self.start(work, moment, turn);
        }
        let Some((saga, input)) = input_of(&work) else { return };
        if let Some(refusal) = not_yours(&work, self.rows.get(&saga)) {
            turn.answers.push((work, refusal));
            return;
        }
        let probe = if let Work::Probe(saga, service) = &work { Some((*saga, service.clone())) } else { None };
        let fate = match self.feed(saga, input, probe, moment, turn) {
            Ok(fate) => fate,
            Err(reason) => return self.poison(work, &reason, moment.now, turn),
        };
        match fate {
            Fate::Applied => turn.applied.entry(saga).or_default().push(work),
            // An adopted saga changes hands even where nothing is sent again.
            Fate::Repeated if matches!(work, Work::Adopt(_)) => {
                turn.changes.changed.insert(saga);
                turn.applied.entry(saga).or_default().push(work);
            }
            Fate::Repeated => {
                self.look_after(saga, &work);
                turn.settled.push(work);
            }
            // Another replica may have changed the row since it was read: only a fresh look refuses for good (6.10).
            Fate::Illegal(_) | Fate::Unknown if !self.fresh.contains(&saga) => {
                if !turn.changes.changed.contains(&saga) {
                    self.rows.remove(&saga);
                }
                self.again.push(work);
            }
            fate => {
                match &work {
                    // It is left to a replica that knows it, and tried again at the next sweep.
                    Work::Adopt(_) if matches!(fate, Fate::Unknown | Fate::Foreign) => self.stuck.add(saga),
                    Work::Probe(..) => self.held.set(saga, BTreeMap::new()),
                    _ => {}
                }
                turn.refused(work, fate);
            }
        }
    }

    /// One transition; the error is a panic's text.
    pub(super) fn feed(
        &mut self,
        saga: SagaId,
        input: Input,
        probe: Option<(SagaId, String)>,
        moment: Moment,
        turn: &mut Turn<M>,
    ) -> Result<Fate, String> {
        let world = World { catalogue: &self.catalogue, now: moment.now, noise: moment.noise, shut: &self.shut, probe };
        let fed = guarded(|| feed(&world, &mut self.rows, saga, input, &mut turn.changes));
        if fed.is_err() {
            // It may be half changed: it is read again, and so are the inputs that it had taken in this turn.
            self.rows.remove(&saga);
            self.fresh.remove(&saga);
        }
        fed
    }

    /// An input that breaks its turn all by itself: it is dead-lettered, refused or dropped, and the others proceed (6.9).
    pub fn poison(&mut self, work: Work<M>, reason: &str, now: Timestamp, turn: &mut Turn<M>) {
        tracing::error!(saga = ?saga_of(&work), reason, "an input cannot be handled");
        let message = "it cannot be carried out".to_owned();
        match work {
            Work::Reply(reply, unacked) => turn.dead.push((reply, unacked, reason.to_owned())),
            Work::Act(..) => turn.answers.push((work, ActAnswer::Conflict { code: "conflict".into(), message })),
            Work::Start(..) => {
                turn.starts.push((work, StartAnswer::Refused { code: "invalid_input".into(), message }));
            }
            Work::Poke(saga, _) | Work::Adopt(saga) | Work::Probe(saga, _) => {
                match work {
                    Work::Adopt(_) => self.stuck.add(saga),
                    Work::Probe(..) => {
                        self.held.set(saga, BTreeMap::new());
                        turn.settled.push(work);
                    }
                    _ => {}
                }
                self.timers.set(saga, Some(now.plus(POISON_PAUSE)));
            }
        }
    }

    /// An input that was meant to wake a saga found nothing to do: what is kept of the saga in memory is set anew.
    fn look_after(&mut self, saga: SagaId, work: &Work<M>) {
        if !matches!(work, Work::Probe(..) | Work::Poke(_, Input::Released { .. } | Input::Timer)) {
            return;
        }
        let row = self.rows.get(&saga);
        let known = row.and_then(|r| self.catalogue.registry.get(&r.saga.definition, r.saga.version).map(|d| (r, d)));
        let (held, due) = known.map_or_else(Default::default, |(r, d)| (row::held(&r.saga, d), r.saga.next_due(d)));
        self.held.set(saga, held);
        self.timers.set(saga, due.map(Timestamp));
    }
}
