//! Whether a definition can be run.

use super::{Command, Definition, Kind, OnRejection, Step};

/// A definition that cannot be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("definition {definition} is not sound: {problem}")]
pub struct Unsound {
    /// Its name.
    pub definition: String,
    /// What is wrong.
    pub problem: String,
}

impl Definition {
    /// Checks what the engine relies on.
    pub fn validate(&self) -> Result<(), Unsound> {
        let fail = |problem: String| Err(Unsound { definition: self.name.clone(), problem });
        if self.steps.is_empty() || self.steps.len() > 64 {
            return fail("it has 1 to 64 steps".into());
        }
        let mut past_return = false;
        for (at, step) in self.steps.iter().enumerate() {
            if self.position(&step.name) != Some(at) {
                return fail(format!("two steps are named {}", step.name));
            }
            match &step.kind {
                Kind::Command(c) => {
                    if past_return && !c.best_effort {
                        return fail(format!(
                            "{} comes after the point of no return and is not best effort",
                            step.name
                        ));
                    }
                    if c.retry.attempts == 0 || c.undo_retry.attempts == 0 {
                        return fail(format!("{} has no attempt", step.name));
                    }
                    if c.no_return && (c.best_effort || c.replaced_by.is_some()) {
                        return fail(format!("{} is the point of no return: only its answer decides", step.name));
                    }
                    if let OnRejection::BackTo { wait, rounds } = &c.on_rejection {
                        // A command between the two would have to be undone before its next round.
                        let waits = |from| (from..at).all(|w| self.command(w).is_none());
                        if !self.position(wait).is_some_and(|w| w < at && waits(w)) || *rounds == 0 || c.no_return {
                            return fail(format!("{} goes back to {wait}, which is no wait just before it", step.name));
                        }
                    }
                    if let Some(signal) = &c.replaced_by {
                        let waits = |s: &Step| matches!(&s.kind, Kind::Wait(w) if w.signal == *signal);
                        if c.undo.is_none() || !self.steps[..at].iter().any(waits) {
                            return fail(format!("{} needs an undo and an earlier wait for {signal}", step.name));
                        }
                    }
                    past_return |= c.no_return;
                }
                Kind::Wait(_) if past_return => {
                    return fail(format!("{} waits after the point of no return", step.name));
                }
                Kind::Wait(_) => {}
            }
            let backward = |c: &Command| c.best_effort && c.undo.is_none() && c.on_rejection == OnRejection::Unwind;
            if step.on_unwinding && !self.command(at).is_some_and(backward) {
                return fail(format!("{} is on the way back: a best-effort command without an undo", step.name));
            }
        }
        for name in self.deadlines.iter().flat_map(|d| &d.unless) {
            if self.position(name).is_none() {
                return fail(format!("a deadline names the step {name}, which does not exist"));
            }
        }
        Ok(())
    }
}
