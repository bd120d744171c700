//! What the entries of a history are as spans.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use eventicket_contracts::SagaId;
use eventicket_nats::trace::{Past, SpanId, Traceparent};
use eventicket_saga::{Entry, What};

/// What is known of a saga.
pub struct Story<'a> {
    pub saga: SagaId,
    pub definition: &'a str,
    /// Of the request that began it.
    pub trace: Traceparent,
    /// Its history, or the last part of it.
    pub entries: &'a [Entry],
}

/// A step's round, and whether its undo is meant.
type Part<'a> = (&'a str, u32, bool);

impl<'a> Story<'a> {
    /// The spans that ended with the entry of this number or later.
    pub fn spans(&self, from: u32) -> Vec<Past> {
        let mut spans = Vec::new();
        // When what has not ended began: what was sent, and waits.
        let (mut open, mut waits) = (BTreeMap::<Part<'a>, i64>::new(), BTreeMap::<Part<'a>, i64>::new());
        for entry in self.entries {
            let mut ended: Vec<(Part<'a>, i64, Option<String>)> = Vec::new();
            let mut end = |part: Part<'a>, begin: i64, why: Option<&str>| {
                ended.push((part, begin, why.map(str::to_owned)));
            };
            let step = entry.step.as_deref().unwrap_or_default();
            let part = |undo| (step, entry.round.unwrap_or(1), undo);
            // The first dispatch, also where that is not among the entries.
            let told = entry.duration.map(|took| entry.at.saturating_sub(took));
            match entry.what {
                What::Started if entry.seq >= from => spans.push(self.start(entry)),
                What::Dispatched => {
                    open.entry(part(false)).or_insert(entry.at);
                }
                What::Waiting => {
                    waits.insert(part(false), entry.at);
                }
                What::Signalled => {
                    let begin = waits.remove(&part(false)).or(told).unwrap_or(entry.at);
                    end(part(false), begin, None);
                }
                What::Unwinding => {
                    let why = entry.error.as_deref().or(Some("unwinding"));
                    std::mem::take(&mut waits).into_iter().for_each(|(part, begin)| end(part, begin, why));
                }
                What::TimedOut | What::Retrying | What::Pending => {
                    open.entry(part(false)).or_insert(told.unwrap_or(entry.at));
                }
                What::UndoTimedOut | What::UndoRetrying | What::UndoPending => {
                    open.entry(part(true)).or_insert(told.unwrap_or(entry.at));
                }
                What::Done | What::Rejected | What::Unknown => {
                    let begin = open.remove(&part(false)).or(told).unwrap_or(entry.at);
                    let failure = entry.error.as_deref().filter(|_| entry.what != What::Done);
                    end(part(false), begin, failure);
                }
                What::Skipped => {
                    if let Some(begin) = open.remove(&part(false)).or_else(|| waits.remove(&part(false))) {
                        end(part(false), begin, Some("skipped"));
                    }
                }
                What::UndoDispatched => {
                    if let Some(begin) = open.remove(&part(false)) {
                        end(part(false), begin, Some("undone before its end was known"));
                    }
                    open.entry(part(true)).or_insert(entry.at);
                }
                What::Undone | What::UndoGaveUp => {
                    let begin = open.remove(&part(true)).or(told).unwrap_or(entry.at);
                    let failure = (entry.what == What::UndoGaveUp).then(|| entry.error.as_deref().unwrap_or("gave up"));
                    end(part(true), begin, failure);
                }
                What::Completed | What::Compensated | What::Abandoned => {
                    waits.append(&mut open);
                    std::mem::take(&mut waits).into_iter().for_each(|(part, begin)| end(part, begin, None));
                }
                _ => {}
            }
            if entry.seq >= from {
                spans.extend(ended.into_iter().map(|(part, begin, why)| self.step(part, begin, entry, why)));
            }
        }
        spans
    }

    fn start(&self, entry: &Entry) -> Past {
        // Outside of the sample the request's own span is not recorded.
        let parent = self.trace.sampled.then_some(self.trace.span);
        Past {
            place: Traceparent { span: start_id(self.saga), sampled: true, ..self.trace },
            parent,
            name: format!("{} started", self.definition),
            time: (time(entry.at), time(entry.at)),
            attributes: vec![("eventicket.saga", self.saga.to_string())],
            error: None,
        }
    }

    fn step(&self, (step, round, undo): Part<'_>, begin: i64, entry: &Entry, error: Option<String>) -> Past {
        let behind = if undo { " undo" } else { "" };
        Past {
            place: Traceparent { span: half_id(self.saga, step, round, undo), sampled: true, ..self.trace },
            parent: Some(start_id(self.saga)),
            name: format!("{} {step}{behind}", self.definition),
            time: (time(begin), time(entry.at.max(begin))),
            attributes: vec![
                ("eventicket.saga", self.saga.to_string()),
                ("eventicket.step", step.to_owned()),
                ("eventicket.round", round.to_string()),
                ("eventicket.attempt", entry.attempt.unwrap_or(1).to_string()),
            ],
            error,
        }
    }
}

fn time(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// Of the span that all others of the saga are below.
pub fn start_id(saga: SagaId) -> SpanId {
    id(saga, &[])
}

/// Of a step's round, or of its undo.
pub fn half_id(saga: SagaId, step: &str, round: u32, undo: bool) -> SpanId {
    id(saga, &[step.as_bytes(), &round.to_be_bytes(), &[u8::from(undo)]])
}

/// FNV-1a of 64 bits; the saga's id is random, and ids need to differ within one trace only.
fn id(saga: SagaId, parts: &[&[u8]]) -> SpanId {
    let bytes = saga.0.as_bytes().iter().chain(parts.iter().copied().flatten());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    SpanId::from(hash.max(1))
}
