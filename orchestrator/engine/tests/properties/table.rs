//! Every arm of the transition that can be met, as the engine's code has them.

use std::collections::BTreeSet;

use crate::arms::Arm;

const ANSWERS: &[&str] = &["done", "rejected", "pending", "retry", "expired", "dead"];
const LATE: &[&str] = &["late retry", "late expired"];
const UNDO_ANSWERS: &[&str] =
    &["undo done", "undo rejected", "undo pending", "undo retry", "undo expired", "undo dead"];
const LATE_UNDO: &[&str] = &["late undo retry", "late undo expired"];
const RECORDED: &[&str] = &["done", "rejected", "unknown", "skipped"];
const ENDED: &[&str] = &["completed", "compensated", "abandoned"];
const ALL: &[&str] = &["forward", "unwinding", "abandoning", "completed", "compensated", "abandoned"];
/// Phases in which fences may be under way.
const LIVE: &[&str] = &["forward", "unwinding", "abandoning", "abandoned"];
const BACK: &[&str] = &["unwinding", "abandoning", "abandoned"];
const GIVEN_UP: &[&str] = &["abandoning", "abandoned"];
const FOUND: &[&str] =
    &["found done", "found rejected", "found closed", "found too early", "found too late", "no answer"];

/// Every arm that can be met, as products of phases, states and inputs.
const TABLE: &[(&[&str], &[&str], &[&str])] = &[
    // Effects answered.
    (&["forward"], &["held", "sent", "backoff", "pending", "dead letter"], ANSWERS),
    (&["forward"], &["sent"], LATE),
    (&["forward"], &["held", "sent", "backoff", "pending"], &["dead, no return"]),
    (&["forward"], &["pending"], &["pending again"]),
    (&["forward"], RECORDED, ANSWERS),
    (&["forward"], &["pending, replaced", "done, replaced", "unknown, replaced"], ANSWERS),
    (&["forward"], &["pending, replaced"], &["pending again"]),
    (&["unwinding", "completed", "compensated"], RECORDED, ANSWERS),
    (&["unwinding", "compensated"], &["undone"], ANSWERS),
    // Undos answered; on the way forward only a round that is being replaced has one.
    (&["forward", "unwinding"], &["held", "sent", "backoff", "pending", "gave up"], UNDO_ANSWERS),
    (&["forward", "unwinding"], &["sent"], LATE_UNDO),
    (&["unwinding", "compensated"], &["done", "resolved"], UNDO_ANSWERS),
    // Answers that meet nothing.
    (&["forward", "unwinding", "completed", "compensated", "abandoned"], &["never sent"], &["answer", "undo answer"]),
    (
        &["forward", "unwinding", "completed", "compensated", "abandoned"],
        &["earlier round"],
        &["answer", "undo answer"],
    ),
    (&["abandoned"], &["sent once"], &["answer", "undo answer"]),
    (&["any"], &["no such step"], &["answer", "refused"]),
    // Timers.
    (
        &["forward"],
        &["sent", "sent, pending", "backoff", "backoff, unsent", "pending", "waiting", "no return unanswered"],
        &["timer"],
    ),
    (&["forward"], &["deadline", "deadline, pending step"], &["timer"]),
    (&["forward", "unwinding"], &["undo sent", "undo backoff", "undo pending"], &["timer"]),
    (&["forward", "unwinding"], &["nothing due"], &["timer"]),
    // Breakers, publishes, losses.
    (&["forward"], &["held", "held after an attempt", "held in a pause"], &["released"]),
    (&["forward", "unwinding"], &["undo held", "nothing held", "still closed"], &["released"]),
    (&["forward"], &["sent", "sent, pending", "other"], &["refused", "refused resend"]),
    (&["unwinding"], &["other"], &["refused", "refused resend"]),
    (&["forward", "unwinding"], &["undo sent", "other undo"], &["refused", "refused resend"]),
    (&["forward"], &["sent", "sent, pending"], &["resend"]),
    (&["forward", "unwinding"], &["undo sent", "nothing sent"], &["resend"]),
    (&["forward", "unwinding"], &["marked", "not marked"], &["mark"]),
    // Signals.
    (
        &["forward"],
        &[
            "awaited",
            "another awaited",
            "wait over",
            "replaces",
            "replaced already",
            "not pending",
            "other",
            "deadline",
        ],
        &["signal"],
    ),
    (&["unwinding"], &["any"], &["signal"]),
    (ALL, &["key known", "key reused"], &["signal"]),
    // Operators.
    (&["forward"], &["before", "awaits no return", "past no return"], &["cancel", "abandon"]),
    (&["unwinding"], &["any"], &["cancel", "abandon", "skip"]),
    (&["forward"], &["backoff", "pending", "dead letter", "nothing waits", "deadline"], &["retry now"]),
    (&["forward", "unwinding"], &["undo gave up", "undo backoff", "undo pending"], &["retry now"]),
    (&["unwinding"], &["nothing waits"], &["retry now"]),
    (
        &["forward"],
        &["never sent", "held", "sent", "backoff", "pending", "wait", "no return", "replaced", "deadline", "fenced"],
        &["skip"],
    ),
    (&["forward"], &["paused", "not paused"], &["pause", "resume"]),
    (&["unwinding"], &["not paused"], &["pause", "resume"]),
    (&["forward", "unwinding"], &["gave up", "other", "no such step"], &["resolve"]),
    (&["forward"], &["before", "awaits no return", "past no return"], &["forced abandon", "compensate"]),
    (&["forward"], &["dead", "dead, fenced"], &["compensate"]),
    (GIVEN_UP, &["any"], &["cancel", "abandon", "skip"]),
    (BACK, &["any"], &["forced abandon", "compensate"]),
    (LIVE, &["any"], &["replayed"]),
    (LIVE, &["fence"], &["retry now"]),
    (GIVEN_UP, &["not paused"], &["pause", "resume"]),
    (&["forward"], &["by hand", "by hand, deadline"], &["resolve"]),
    (&["forward", "unwinding"], &["fenced"], &["resolve"]),
    (&["abandoning"], &["other", "no such step"], &["resolve"]),
    (&["abandoned"], &["fence", "other", "no such step"], &["resolve"]),
    // Fences: asked, answered, asked again.
    (LIVE, &["fence"], &["timer", "resend", "refused", "released"]),
    (LIVE, &["marked"], &["resolve"]),
    (LIVE, &["marked otherwise"], &["mark"]),
    (&["forward"], &["asked for the last time"], &["signal"]),
    (GIVEN_UP, &["fence, stands"], &["timer"]),
    (&["forward"], &["skip", "compensate", "resolve"], FOUND),
    (&["unwinding"], &["resolve"], FOUND),
    (GIVEN_UP, &["abandon", "abandon, stands"], FOUND),
    (&["forward"], &["skip", "compensate", "resolve"], &["fence dead"]),
    (&["unwinding"], &["resolve"], &["fence dead"]),
    (GIVEN_UP, &["abandon", "abandon, stands"], &["fence dead"]),
    (ALL, &["no fence"], FOUND),
    (ALL, &["never sent", "earlier round"], &["fence answer"]),
    (&["any"], &["no fence"], &["answer", "undo answer"]),
    (&["forward"], &["fenced"], &["done", "rejected", "other", "signal"]),
    // A saga that is given up: but for its fences, nothing counts.
    (&["abandoning"], &["never sent", "earlier round", "sent once"], &["answer", "undo answer"]),
    (GIVEN_UP, &["nothing due"], &["timer"]),
    (GIVEN_UP, &["nothing sent"], &["resend"]),
    (GIVEN_UP, &["nothing held", "still closed"], &["released"]),
    (GIVEN_UP, &["marked", "not marked"], &["mark"]),
    (LIVE, &["stale"], &["refused", "refused resend"]),
    (&["abandoning"], &["any"], &["start", "signal"]),
    // Steps of the way back.
    (&["unwinding"], &["sent", "sent, pending", "backoff", "backoff, unsent", "pending"], &["timer"]),
    (&["unwinding"], &["held", "held after an attempt"], &["released"]),
    (&["unwinding"], &["sent", "sent, pending"], &["resend", "refused", "refused resend"]),
    (&["unwinding"], &["way back"], &["done", "rejected", "other", "retry now"]),
    // Begin and end.
    (&["not begun"], &["any"], &["start", "other"]),
    (&["forward", "unwinding", "completed", "compensated", "abandoned"], &["any"], &["start"]),
    (ENDED, &["any"], &["timer", "released", "refused", "resend", "mark", "signal", "act"]),
];

/// The table, multiplied out.
pub fn all() -> BTreeSet<Arm> {
    let mut arms = BTreeSet::new();
    for (phases, states, inputs) in TABLE {
        for phase in *phases {
            for state in *states {
                arms.extend(inputs.iter().map(|input| (*phase, *state, *input)));
            }
        }
    }
    arms
}
