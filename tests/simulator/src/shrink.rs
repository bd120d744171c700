//! A run that broke an invariant is made as short as possible: blocks of its decisions are made ordinary, or left out, for
//! as long as the same invariant stays broken.

use crate::invariants::Violation;
use crate::run::{Plan, Simulator};
use crate::timeline::Timeline;

/// A short run that breaks an invariant.
#[derive(Clone, Debug)]
pub struct Story {
    /// Its decisions; those behind them are ordinary.
    pub values: Vec<u32>,
    /// What is broken.
    pub violation: Violation,
    /// How it came to that.
    pub told: Timeline,
}

/// Makes a run shorter, with at most so many further runs.
pub fn shrink(simulator: &Simulator, plan: &Plan, values: Vec<u32>, most: u32) -> Option<Story> {
    let broken = simulator.given(plan, values.clone(), false).violation?;
    let mut best = trimmed(values);
    let mut left = most;
    let mut breaks = |values: &[u32]| {
        left = left.saturating_sub(1);
        let violation = simulator.given(plan, values.to_vec(), false).violation;
        violation.is_some_and(|violation| violation.rule == broken.rule).then_some(left)
    };
    let mut size = best.len().next_power_of_two();
    let mut spent = 0;
    while size >= 1 && spent < most {
        let mut changed = false;
        let mut at = 0;
        while at < best.len() && spent < most {
            let end = (at + size).min(best.len());
            let mut tries: Vec<Vec<u32>> = Vec::new();
            if best[at..end].iter().any(|value| *value > 0) {
                tries.push(best.iter().enumerate().map(|(i, v)| if (at..end).contains(&i) { 0 } else { *v }).collect());
            }
            tries.push(best[..at].iter().chain(&best[end..]).copied().collect());
            if size == 1 && best[at] > 1 {
                let mut lower = best.clone();
                lower[at] = 1;
                tries.push(lower);
            }
            let found = tries.into_iter().map(trimmed).filter(|values| *values != best).find(|values| {
                spent += 1;
                breaks(values).is_some()
            });
            match found {
                Some(shorter) => (best, changed) = (shorter, true),
                None => at += size,
            }
        }
        if !changed || size > 1 {
            size /= 2;
        }
    }
    let outcome = simulator.given(plan, best.clone(), true);
    Some(Story { values: best, violation: outcome.violation?, told: outcome.story })
}

/// Without the ordinary decisions at its end, which follow by themselves.
fn trimmed(mut values: Vec<u32>) -> Vec<u32> {
    while values.last() == Some(&0) {
        values.pop();
    }
    values
}
