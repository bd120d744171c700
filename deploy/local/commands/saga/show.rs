//! Sagas as text: a table of many, one with its steps and its whole history.

use eventicket_contracts::Timestamp;
use eventicket_contracts::sagas::{Attention, HistoryEntry, SagaDetail, SagaStep, SagaSummary};

use super::clip;

/// Columns of a line.
const WIDTH: usize = 100;

/// A line each.
pub fn table(sagas: &[SagaSummary]) -> String {
    if sagas.is_empty() {
        return "no saga".to_owned();
    }
    let mut lines = vec![format!("{:<36}  {:<13}  {:<12}  {:<11}  STATUS", "ID", "KIND", "STATE", "STEP")];
    for saga in sagas {
        let step = saga.step.as_deref().unwrap_or("-");
        let mark = if saga.attention.is_empty() { "" } else { " !" };
        let line = format!("{:<36}  {:<13}  {:<12}  {step:<11}  {}{mark}", saga.id, saga.kind, saga.state, saga.status);
        lines.push(clip(&line, WIDTH));
        lines.extend(attention(&saga.attention));
    }
    lines.join("\n")
}

/// Why somebody should look at it, below its line.
fn attention(marks: &[Attention]) -> Option<String> {
    let (first, others) = marks.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!("  (and {} more)", others.len()) };
    let line = clip(&format!("  ! {}: {}", first.step, first.reason), WIDTH - more.len());
    Some(line + &more)
}

/// One saga.
pub fn shown(saga: &SagaDetail, history: &[HistoryEntry]) -> String {
    let about = &saga.summary;
    let took = about.updated_at.since(about.started_at).as_millis();
    let mut lines = vec![
        format!("saga     {}  ({} v{})", about.id, about.kind, about.definition_version),
        format!("state    {}  ({})", about.state, about.status),
        format!("started  {}, last change {took} ms later", about.started_at),
    ];
    let optional = [
        ("step", about.step.clone()),
        ("event", about.event_id.map(|id| id.to_string())),
        ("user", about.user_id.map(|id| id.to_string())),
        ("trace", about.trace_id.clone()),
    ];
    lines.extend(optional.into_iter().filter_map(|(name, value)| Some(format!("{name:<8} {}", value?))));
    lines.extend(about.attention.iter().map(|mark| format!("ATTENTION {}: {}", mark.step, mark.reason)));
    // A booking's stands in its fields and its steps.
    if about.event_id.is_none() {
        lines.push("input".to_owned());
        let input = serde_json::to_string_pretty(&saga.input).unwrap_or_default();
        lines.extend(input.lines().map(|line| format!("  {line}")));
    }
    lines.push(format!("\n{:<11} {:<13} {:>5} {:>8}  ERROR", "STEP", "STATE", "ROUND", "ATTEMPTS"));
    lines.extend(saga.steps.iter().map(step));
    lines.push(format!("\n{:>10}  {:<11} {:<20} {:>9}", "MS", "STEP", "WHAT", "TOOK"));
    lines.extend(history.iter().flat_map(|entry| timeline(entry, about.started_at)));
    lines.join("\n")
}

fn step(step: &SagaStep) -> String {
    let error = step.error.as_deref().unwrap_or("");
    format!("{:<11} {:<13} {:>5} {:>8}  {error}", step.name, step.state, step.round, step.attempts)
        .trim_end()
        .to_owned()
}

/// One entry: a line, with its error or its actor and reason in lines below where they do not fit behind it.
fn timeline(entry: &HistoryEntry, start: Timestamp) -> Vec<String> {
    let after = format!("+{}", entry.at.millis() - start.millis());
    let mut what = entry.what.clone();
    if let Some(round) = entry.round.filter(|round| *round > 1) {
        what += &format!(" round {round}");
    }
    if let Some(attempt) = entry.attempt.filter(|attempt| *attempt > 1) {
        what += &format!(" try {attempt}");
    }
    let took = entry.duration_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
    let line = format!("{after:>10}  {:<11} {what:<20} {took:>9}", entry.step.as_deref().unwrap_or(""));
    let by = entry.actor.as_ref().map(|actor| format!("by {actor}"));
    let notes = [by, entry.reason.clone(), entry.error.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    if notes.is_empty() {
        return vec![line.trim_end().to_owned()];
    }
    let beside = format!("{line}  {notes}");
    if beside.chars().count() <= WIDTH {
        return vec![beside];
    }
    let mut lines = vec![line.trim_end().to_owned()];
    lines.extend(wrapped(&notes, WIDTH - 12).into_iter().map(|part| format!("{:12}{part}", "")));
    lines
}

/// The words in lines of at most `width` characters; a word that is longer stands alone.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::{EventId, SagaId};

    fn entry(what: &str, error: Option<&str>) -> HistoryEntry {
        HistoryEntry {
            seq: 1,
            at: Timestamp(1_025),
            what: what.into(),
            step: Some("PAY".into()),
            round: Some(2),
            attempt: Some(3),
            error: error.map(str::to_owned),
            duration_ms: Some(17),
            actor: None,
            reason: None,
            trace_id: None,
        }
    }

    fn saga(input: serde_json::Value, event: Option<EventId>, marks: &[(&str, &str)]) -> SagaDetail {
        let mark = |(step, reason): &(&str, &str)| Attention { step: (*step).into(), reason: (*reason).into() };
        let summary = SagaSummary {
            id: SagaId::fresh(),
            kind: "failed_refund".into(),
            definition_version: 1,
            state: "waiting".into(),
            step: Some("BY_HAND".into()),
            status: "pending".into(),
            attention: marks.iter().map(mark).collect(),
            event_id: event,
            user_id: None,
            started_at: Timestamp(1_000),
            updated_at: Timestamp(1_025),
            trace_id: None,
            version: 1,
        };
        SagaDetail { summary, input, steps: vec![] }
    }

    #[test]
    fn a_saga_about_no_event_shows_its_input() {
        let input = serde_json::json!({"booking": "b", "amount": {"minor": 5}, "intent": "pi_1"});
        let text = shown(&saga(input.clone(), None, &[]), &[]);
        assert!(text.contains("\ninput\n  {\n") && text.contains("\n    \"intent\": \"pi_1\""), "{text}");
        assert!(text.contains("\n      \"minor\": 5\n"), "{text}");
        assert!(!shown(&saga(input, Some(EventId::fresh()), &[]), &[]).contains("input"));
    }

    #[test]
    fn a_list_tells_why_somebody_should_look() {
        let of = |marks: &[(&str, &str)]| saga(serde_json::Value::Null, None, marks).summary;
        let long = "word ".repeat(60);
        let two = of(&[("PAY", &long), ("MAIL", "no")]);
        let text = table(&[of(&[]), of(&[("PAY", "its fence was refused")]), two]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[3]), (6, "  ! PAY: its fence was refused"), "{text}");
        assert!(lines[5].starts_with("  ! PAY: word word") && lines[5].ends_with("…  (and 1 more)"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn a_timeline_fits_the_terminal_and_loses_nothing() {
        let lines = timeline(&entry("done", None), Timestamp(1_000));
        assert_eq!(lines, ["       +25  PAY         done round 2 try 3       17 ms"]);
        let short = timeline(&entry("rejected", Some("payment_declined: no")), Timestamp(1_000));
        assert!(short.len() == 1 && short[0].ends_with("payment_declined: no"), "{short:?}");
        let words = "word ".repeat(60);
        let long = timeline(&entry("rejected", Some(&words)), Timestamp(1_000));
        assert!(long.len() > 3 && long.iter().all(|line| line.chars().count() <= WIDTH), "{long:?}");
        assert_eq!(long.join(" ").matches("word").count(), 60);
    }
}
