//! The arms of the transition: which (phase, state, input) an input meets. All that can be met are in the table.

use std::collections::BTreeSet;

use eventicket_saga::definition::{Definition, Kind};
use eventicket_saga::state::NEVER;
use eventicket_saga::transition::ATTENTION_AFTER;
use eventicket_saga::{
    Answer, Half, Input, OperatorAction, Phase, Purpose, Recorded, Saga, Status, StepState, Undo, View,
};

/// Phase, state of what the input concerns, input.
pub type Arm = (&'static str, &'static str, &'static str);

fn phase(saga: &Saga) -> &'static str {
    match saga.phase {
        Phase::Forward => "forward",
        Phase::Unwinding => "unwinding",
        Phase::Abandoning => "abandoning",
        Phase::Completed => "completed",
        Phase::Compensated => "compensated",
        Phase::Abandoned => "abandoned",
    }
}

fn effect(step: &StepState) -> &'static str {
    let replaced = step.undo != Undo::None;
    match step.status {
        Status::Idle => "idle",
        Status::Held => "held",
        Status::Sent(_) => "sent",
        Status::Backoff(_) => "backoff",
        Status::Pending(NEVER) => "dead letter",
        Status::Pending(_) if replaced => "pending, replaced",
        Status::Pending(_) => "pending",
        Status::Waiting(_) => "waiting",
        Status::Done => "done",
        Status::Rejected => "rejected",
        Status::Unknown => "unknown",
        Status::Omitted => "omitted",
        Status::Skipped => "skipped",
    }
}

fn undo(step: &StepState) -> &'static str {
    match step.undo {
        Undo::None => "none",
        Undo::Queued => "queued",
        Undo::Held => "held",
        Undo::Sent(_) => "sent",
        Undo::Backoff(_) => "backoff",
        Undo::Pending(_) => "pending",
        Undo::Done => "done",
        Undo::GaveUp => "gave up",
        Undo::Resolved => "resolved",
    }
}

/// Tells of each arm that the input takes.
pub fn met(
    definition: &Definition,
    saga: &Saga,
    input: &Input,
    now: i64,
    closed: &BTreeSet<String>,
    tell: &mut impl FnMut(Arm),
) {
    let p = phase(saga);
    if saga.seq == 0 {
        return tell(("not begun", "any", if *input == Input::Start { "start" } else { "other" }));
    }
    match input {
        Input::Start => tell((p, "any", "start")),
        Input::Answer { step, round, half, attempt, answer } => {
            let Some(at) = definition.position(step) else { return tell(("any", "no such step", "answer")) };
            tell(answered(definition, saga, at, *round, *half, *attempt, answer));
        }
        Input::Signal { key: Some(key), .. } if saga.signals.iter().any(|s| s.key == key.key) => {
            tell((p, if saga.signals.contains(key) { "key known" } else { "key reused" }, "signal"));
        }
        Input::Timer
        | Input::Released { .. }
        | Input::Refused { .. }
        | Input::Resend
        | Input::Mark { .. }
        | Input::Signal { .. }
        | Input::Act { .. }
            if saga.ended() =>
        {
            let name = match input {
                Input::Timer => "timer",
                Input::Released { .. } => "released",
                Input::Refused { .. } => "refused",
                Input::Resend => "resend",
                Input::Mark { .. } => "mark",
                Input::Signal { .. } => "signal",
                _ => "act",
            };
            tell((p, "any", name));
        }
        Input::Timer => timer(definition, saga, now, p, tell),
        Input::Released { service } if closed.contains(service) => tell((p, "still closed", "released")),
        Input::Released { service } => released(definition, saga, service, p, tell),
        Input::Refused { step, round, half, attempt, resend } => {
            let name = if *resend && *half != Half::Fence { "refused resend" } else { "refused" };
            let Some(at) = definition.position(step) else { return tell(("any", "no such step", "refused")) };
            let step = &saga.steps[at];
            let stale = match half {
                Half::Do => step.attempts != *attempt || step.fence.is_some() || given_up(saga),
                Half::Undo => step.undo_attempts != *attempt || step.fence.is_some() || given_up(saga),
                Half::Fence => step.fence.as_ref().is_none_or(|f| f.attempts != *attempt || f.due == NEVER),
            };
            let state = match half {
                _ if stale || step.round != *round => "stale",
                Half::Fence => "fence",
                half => publish(step, *half),
            };
            tell((p, state, name));
        }
        Input::Resend => {
            let mut any = false;
            for step in &saga.steps {
                if let Some(fence) = &step.fence {
                    if fence.due < NEVER && !fence.stands {
                        any = true;
                        tell((p, "fence", "resend"));
                    }
                    continue;
                }
                for half in [Half::Do, Half::Undo] {
                    let state = publish(step, half);
                    if state.contains("sent") {
                        any = true;
                        tell((p, state, "resend"));
                    }
                }
            }
            if !any {
                tell((p, "nothing sent", "resend"));
            }
        }
        Input::Mark { step, reason } => {
            let state = match saga.attention.iter().find(|a| a.step == *step) {
                Some(mark) if mark.reason == *reason => "marked",
                Some(_) => "marked otherwise",
                None => "not marked",
            };
            tell((p, state, "mark"));
        }
        Input::Signal { .. } if saga.phase != Phase::Forward => tell((p, "any", "signal")),
        Input::Signal { name, .. } => tell((p, signal(definition, saga, name, now), "signal")),
        Input::Act { action, .. } => acted(definition, saga, action, now, p, tell),
    }
}

#[rustfmt::skip]
fn answered(d: &Definition, saga: &Saga, at: usize, round: u32, half: Half, attempt: u32, answer: &Answer) -> Arm {
    let (p, step) = (phase(saga), &saga.steps[at]);
    let (any, attempts) = match half {
        Half::Do => ("answer", step.attempts),
        Half::Undo => ("undo answer", step.undo_attempts),
        Half::Fence => ("fence answer", step.fences),
    };
    if round > step.round || (round == step.round && attempts == 0) {
        return (p, "never sent", any);
    }
    if round < step.round {
        return (p, "earlier round", any);
    }
    if half == Half::Fence {
        return fenced(p, step, answer);
    }
    if given_up(saga) {
        return (p, "sent once", any);
    }
    if matches!(answer, Answer::Fenced(_)) {
        return ("any", "no fence", any);
    }
    let late = attempt != attempts;
    if half == Half::Undo {
        let late = late && matches!(step.undo, Undo::Sent(_));
        return (p, undo(step), match answer {
            Answer::Done(_) => "undo done",
            Answer::Rejected { .. } => "undo rejected",
            Answer::Pending(_) => "undo pending",
            Answer::Retry { .. } => if late { "late undo retry" } else { "undo retry" },
            Answer::Expired => if late { "late undo expired" } else { "undo expired" },
            Answer::Dead { .. } => "undo dead",
            Answer::Fenced(_) => "fenced",
        });
    }
    let state = match (saga.phase, step.undo) {
        (_, Undo::Done | Undo::Resolved) => "undone",
        (Phase::Forward, Undo::None) if step.fence.is_some() => "fenced",
        (Phase::Forward, Undo::None) => effect(step),
        (Phase::Forward, _) => match step.status {
            Status::Done => "done, replaced",
            Status::Unknown => "unknown, replaced",
            _ => effect(step),
        },
        (Phase::Unwinding, _) if d.steps[at].on_unwinding && effect(step) != "done" => "way back",
        _ => effect(step),
    };
    if state == "fenced" || state == "way back" {
        return (p, state, match answer {
            Answer::Done(_) => "done",
            Answer::Rejected { .. } => "rejected",
            _ => "other",
        });
    }
    let late = late && matches!(step.status, Status::Sent(_));
    let live = matches!(effect(step), "held" | "sent" | "backoff" | "pending");
    (p, state, match answer {
        Answer::Done(_) => "done",
        Answer::Rejected { .. } => "rejected",
        Answer::Pending(o) if state.starts_with("pending") && step.pending && step.output == *o => "pending again",
        Answer::Pending(_) => "pending",
        Answer::Retry { .. } => if late { "late retry" } else { "retry" },
        Answer::Expired => if late { "late expired" } else { "expired" },
        Answer::Fenced(_) => "fenced",
        Answer::Dead { .. } if live && d.command(at).is_some_and(|c| c.no_return) => "dead, no return",
        Answer::Dead { .. } => "dead",
    })
}

fn given_up(saga: &Saga) -> bool {
    matches!(saga.phase, Phase::Abandoning | Phase::Abandoned)
}

fn fence(step: &StepState) -> &'static str {
    match step.fence.as_ref().map(|f| (&f.purpose, f.stands)) {
        None => "no fence",
        Some((Purpose::Skip(_), _)) => "skip",
        Some((Purpose::Resolve, _)) => "resolve",
        Some((Purpose::Compensate(_), _)) => "compensate",
        Some((Purpose::Abandon, false)) => "abandon",
        Some((Purpose::Abandon, true)) => "abandon, stands",
    }
}

fn fenced(p: &'static str, step: &StepState, answer: &Answer) -> Arm {
    let open = step.fence.as_ref();
    let name = match answer {
        Answer::Fenced(found) if found.id == step.fences => match found.effect {
            Recorded::Done(_) => "found done",
            Recorded::Rejected { .. } => "found rejected",
            Recorded::Closed => "found closed",
        },
        Answer::Fenced(found) if found.id > step.fences => "found too early",
        Answer::Fenced(_) => "found too late",
        Answer::Dead { .. } | Answer::Rejected { .. } if open.is_some_and(|f| f.due < NEVER) => "fence dead",
        _ => "no answer",
    };
    (p, fence(step), name)
}

fn publish(step: &StepState, half: Half) -> &'static str {
    match (half, step.status, step.undo) {
        (Half::Do, Status::Sent(_), Undo::None) if step.pending => "sent, pending",
        (Half::Do, Status::Sent(_), Undo::None) => "sent",
        (Half::Do, ..) => "other",
        (Half::Undo, _, Undo::Sent(_)) => "undo sent",
        (Half::Undo | Half::Fence, ..) => "other undo",
    }
}

/// The position of the pending step that the deadline asks once more, where one has passed; written anew, not taken
/// from the engine.
pub fn deadline(definition: &Definition, saga: &Saga, now: i64) -> Option<Option<usize>> {
    let over = saga.awaits_no_return(definition).is_some() || saga.past_no_return(definition);
    if saga.phase != Phase::Forward || over {
        return None;
    }
    let view = View { definition, saga };
    let in_flight = |s: &StepState| {
        matches!(s.status, Status::Sent(_) | Status::Backoff(_) | Status::Held)
            && s.attempts > 0
            && !s.unsent
            && (!s.pending || s.last_ask)
    };
    let holds = |name: &String| {
        let step = &saga.steps[definition.position(name).unwrap()];
        step.undo == Undo::None && (matches!(step.status, Status::Done | Status::Skipped) || in_flight(step))
    };
    let passed = definition.deadlines.iter().filter(|d| !d.unless.iter().any(holds));
    let passed = passed.filter_map(|d| Some(((d.at)(&view)?, d))).filter(|(at, _)| *at <= now);
    let (_, first) = passed.min_by_key(|(at, _)| *at)?;
    let asked = first.unless.iter().map(|n| definition.position(n).unwrap()).find(|&at| {
        let s = &saga.steps[at];
        let free = s.undo == Undo::None && s.fence.is_none();
        s.pending && !s.last_ask && free && matches!(s.status, Status::Pending(_) | Status::Sent(_))
    });
    Some(asked)
}

/// Whether a deadline has passed that no step that is done or skipped holds off.
pub fn unpaid_deadline(definition: &Definition, saga: &Saga, now: i64) -> bool {
    let view = View { definition, saga };
    let paid =
        |name: &String| matches!(saga.steps[definition.position(name).unwrap()].status, Status::Done | Status::Skipped);
    definition.deadlines.iter().any(|d| (d.at)(&view).is_some_and(|at| at <= now) && !d.unless.iter().any(paid))
}

fn timer(definition: &Definition, saga: &Saga, now: i64, p: &'static str, tell: &mut impl FnMut(Arm)) {
    let mut due = Vec::new();
    match deadline(definition, saga, now) {
        Some(Some(_)) => due.push("deadline, pending step"),
        Some(None) => due.push("deadline"),
        None => {}
    }
    for (at, step) in saga.steps.iter().enumerate() {
        if let Some(fence) = &step.fence {
            if fence.due <= now {
                due.push(if fence.stands { "fence, stands" } else { "fence" });
            }
            continue;
        }
        let goes =
            saga.phase == Phase::Forward || (saga.phase == Phase::Unwinding && definition.steps[at].on_unwinding);
        match step.status {
            _ if step.undo != Undo::None || !goes => {}
            Status::Sent(t) if t <= now => due.push(if step.pending { "sent, pending" } else { "sent" }),
            Status::Backoff(t) if t <= now => due.push(if step.unsent { "backoff, unsent" } else { "backoff" }),
            Status::Pending(t) if t <= now => due.push("pending"),
            Status::Waiting(Some(t)) if t <= now => due.push("waiting"),
            _ => {}
        }
        match step.undo {
            Undo::Sent(t) if t <= now => due.push("undo sent"),
            Undo::Backoff(t) if t <= now => due.push("undo backoff"),
            Undo::Pending(t) if t <= now => due.push("undo pending"),
            _ => {}
        }
    }
    if let Some(at) = saga.awaits_no_return(definition) {
        let marked = saga.attention.iter().any(|a| a.step == definition.steps[at].name);
        if !marked && saga.steps[at].sent_at + ATTENTION_AFTER <= now {
            due.push("no return unanswered");
        }
    }
    if due.is_empty() {
        due.push("nothing due");
    }
    due.into_iter().for_each(|state| tell((p, state, "timer")));
}

fn released(definition: &Definition, saga: &Saga, service: &str, p: &'static str, tell: &mut impl FnMut(Arm)) {
    let mut any = false;
    for (at, step) in saga.steps.iter().enumerate() {
        let Some(command) = definition.command(at) else { continue };
        if let Some(fence) = &step.fence {
            if fence.held && command.call.service == service {
                any = true;
                tell((p, "fence", "released"));
            }
            continue;
        }
        if given_up(saga) {
            continue;
        }
        if step.status == Status::Held && command.call.service == service {
            any = true;
            let state = match (step.attempts, saga.paused) {
                (0, true) => "held in a pause",
                (0, false) => "held",
                _ => "held after an attempt",
            };
            tell((p, state, "released"));
        }
        if step.undo == Undo::Held && command.undo.as_ref().is_some_and(|u| u.service == service) {
            any = true;
            tell((p, "undo held", "released"));
        }
    }
    if !any {
        tell((p, "nothing held", "released"));
    }
}

fn signal(definition: &Definition, saga: &Saga, name: &str, now: i64) -> &'static str {
    if deadline(definition, saga, now).is_some() {
        return "deadline";
    }
    let step = &saga.steps[saga.at];
    match (&definition.steps[saga.at].kind, step.status) {
        (Kind::Wait(w), Status::Waiting(_)) if w.signal != name => "another awaited",
        (Kind::Wait(_), Status::Waiting(Some(t))) if t <= now => "wait over",
        (Kind::Wait(_), Status::Waiting(_)) => "awaited",
        (Kind::Command(_), _) if step.fence.is_some() => "fenced",
        (Kind::Command(c), status) if c.replaced_by.as_deref() == Some(name) => match (step.undo, status) {
            (Undo::None, Status::Pending(_) | Status::Sent(_) | Status::Backoff(_)) if step.pending => {
                if step.last_ask { "asked for the last time" } else { "replaces" }
            }
            (Undo::None, _) => "not pending",
            _ => "replaced already",
        },
        _ => "other",
    }
}

fn acted(
    definition: &Definition,
    saga: &Saga,
    action: &OperatorAction,
    now: i64,
    p: &'static str,
    tell: &mut impl FnMut(Arm),
) {
    let unwinding = saga.phase != Phase::Forward;
    let end = deadline(definition, saga, now).is_some();
    let standing = match () {
        () if unwinding => "any",
        () if saga.awaits_no_return(definition).is_some() => "awaits no return",
        () if saga.past_no_return(definition) => "past no return",
        () => "before",
    };
    let paused = if saga.paused { "paused" } else { "not paused" };
    let arm = match action {
        OperatorAction::Cancel { .. } => (standing, "cancel"),
        OperatorAction::Compensate => match saga.awaits_no_return(definition).map(|at| &saga.steps[at]) {
            Some(step) if !unwinding && step.status == Status::Pending(NEVER) => {
                (if step.fence.is_some() { "dead, fenced" } else { "dead" }, "compensate")
            }
            _ => (standing, "compensate"),
        },
        OperatorAction::Abandon { force } => (standing, if *force { "forced abandon" } else { "abandon" }),
        OperatorAction::Replayed { .. } => ("any", "replayed"),
        OperatorAction::Pause => (paused, "pause"),
        OperatorAction::Resume => (paused, "resume"),
        OperatorAction::Resolve { step } => match definition.position(step) {
            Some(at) if saga.phase == Phase::Abandoned && saga.steps[at].fence.is_some() => ("fence", "resolve"),
            Some(at) if given_up(saga) && noted(saga, at, step) => ("marked", "resolve"),
            Some(_) if given_up(saga) => ("other", "resolve"),
            Some(at) if saga.steps[at].undo == Undo::GaveUp && saga.steps[at].fence.is_some() => ("fenced", "resolve"),
            Some(at) if saga.steps[at].undo == Undo::GaveUp => ("gave up", "resolve"),
            Some(at) if by_hand(definition, at) && matches!(saga.steps[at].status, Status::Waiting(_)) => {
                (if end { "by hand, deadline" } else { "by hand" }, "resolve")
            }
            Some(at) if noted(saga, at, step) => ("marked", "resolve"),
            Some(_) => ("other", "resolve"),
            None if saga.attention.iter().any(|a| a.step == *step) => ("no such step, marked", "resolve"),
            None => ("no such step", "resolve"),
        },
        OperatorAction::Skip { .. } => {
            let step = &saga.steps[saga.at];
            let state = match definition.command(saga.at) {
                _ if unwinding => "any",
                None => "wait",
                Some(c) if c.no_return => "no return",
                Some(_) if step.undo != Undo::None => "replaced",
                Some(_) if step.fence.is_some() => "fenced",
                Some(_) if end => "deadline",
                Some(_) if step.attempts == 0 => "never sent",
                Some(_) => effect(step),
            };
            (state, "skip")
        }
        OperatorAction::Retry if end => ("deadline", "retry now"),
        OperatorAction::Retry => {
            let mut any = false;
            for (at, step) in saga.steps.iter().enumerate() {
                let back = saga.phase == Phase::Unwinding && definition.steps[at].on_unwinding;
                let state = match (step.status, step.undo) {
                    _ if step.fence.is_some() => "fence",
                    _ if given_up(saga) => continue,
                    (Status::Backoff(_) | Status::Pending(_), Undo::None) if back => "way back",
                    (Status::Backoff(_), Undo::None) if !unwinding => "backoff",
                    (Status::Pending(NEVER), Undo::None) if !unwinding => "dead letter",
                    (Status::Pending(_), Undo::None) if !unwinding => "pending",
                    (_, Undo::GaveUp) => "undo gave up",
                    (_, Undo::Backoff(_)) => "undo backoff",
                    (_, Undo::Pending(_)) => "undo pending",
                    _ => continue,
                };
                any = true;
                tell((p, state, "retry now"));
            }
            if any {
                return;
            }
            ("nothing waits", "retry now")
        }
    };
    tell((p, arm.0, arm.1));
}

/// Whether the step is marked and nothing of it is open.
fn noted(saga: &Saga, at: usize, name: &str) -> bool {
    let step = &saga.steps[at];
    let closed = matches!(step.status, Status::Done | Status::Rejected | Status::Skipped | Status::Omitted)
        && matches!(step.undo, Undo::None | Undo::Done);
    closed && step.fence.is_none() && saga.attention.iter().any(|a| a.step == name)
}

fn by_hand(definition: &Definition, at: usize) -> bool {
    matches!(&definition.steps[at].kind, Kind::Wait(wait) if wait.by_hand.is_some())
}
