use super::*;
use eventicket_nats::trace::{Past, SpanId, TraceId};

fn entry(seq: u32, at: i64, what: What, step: &str) -> Entry {
    let step = (!step.is_empty()).then(|| step.to_owned());
    let error = (what == What::Rejected).then(|| "payment_declined".to_owned());
    Entry { seq, at, what, step, round: None, attempt: None, error, duration: None, actor: None, reason: None }
}

/// A booking that is declined, comes back with another card, and is undone before that is known.
fn history() -> Vec<Entry> {
    use What::{
        Compensated, Dispatched, Done, Rejected, Signalled, Started, UndoDispatched, Undone, Unwinding, Waiting,
    };
    let told = [
        (10, Started, ""),
        (10, Dispatched, "RESERVE"),
        (15, Done, "RESERVE"),
        (15, Dispatched, "PAY"),
        (40, Rejected, "PAY"),
        (40, Waiting, "AWAIT"),
        (90, Signalled, "AWAIT"),
        (90, Dispatched, "PAY"),
        (95, Unwinding, ""),
        (95, UndoDispatched, "PAY"),
        (99, Undone, "PAY"),
        (99, Compensated, ""),
    ];
    let mut entries: Vec<Entry> =
        told.into_iter().zip(1..).map(|((at, what, step), seq)| entry(seq, at, what, step)).collect();
    entries[7..].iter_mut().filter(|e| e.step.as_deref() == Some("PAY")).for_each(|e| e.round = Some(2));
    entries
}

fn failed(sampled: bool, news: (u32, u32)) -> Failed {
    let trace = Traceparent { trace: TraceId::from(7), span: SpanId::from(8), sampled };
    Failed { saga: SagaId::fresh(), definition: "booking".into(), trace, news }
}

/// Names with the ms from the beginning to the end.
fn shown(spans: &[Past]) -> Vec<(&str, u128)> {
    let took = |span: &Past| span.time.1.duration_since(span.time.0).unwrap().as_millis();
    spans.iter().map(|span| (span.name.as_str(), took(span))).collect()
}

#[test]
fn of_a_saga_outside_of_the_sample_all_is_kept_from_its_first_failure_on() {
    let first = failed(false, (5, 6)).spans(&history());
    assert_eq!(shown(&first), [("booking started", 0), ("booking RESERVE", 5), ("booking PAY", 25)]);
    assert_eq!((first[0].parent, first[2].error.as_deref()), (None, Some("payment_declined")));
    let later = failed(false, (9, 12)).spans(&history());
    assert_eq!(shown(&later), [("booking PAY", 5), ("booking PAY undo", 4)], "nothing is told twice");
}

#[test]
fn of_a_sampled_saga_a_failure_tells_only_its_news() {
    let spans = failed(true, (5, 6)).spans(&history());
    assert_eq!(shown(&spans), [("booking PAY", 25)]);
}

#[test]
fn a_wait_ends_with_its_signal_or_where_the_saga_turns_back() {
    let mut signalled = entry(7, 90, What::Signalled, "AWAIT");
    signalled.duration = Some(50);
    let (saga, trace) = (SagaId::fresh(), failed(true, (1, 1)).trace);
    let story = |entries: &[Entry]| Story { saga, definition: "booking", trace, entries }.spans(0);
    assert_eq!(shown(&story(&[signalled])), [("booking AWAIT", 50)], "also where its beginning is not at hand");
    let mut expired = entry(9, 70, What::Unwinding, "");
    expired.error = Some("hold_expired".into());
    let spans = story(&[entry(6, 40, What::Waiting, "AWAIT"), expired, entry(10, 80, What::Compensated, "")]);
    assert_eq!(shown(&spans), [("booking AWAIT", 30)]);
    assert_eq!(spans[0].error.as_deref(), Some("hold_expired"));
}

#[test]
fn every_span_has_an_id_of_its_own_that_services_can_name_before() {
    let failed = failed(true, (1, 12));
    let spans = failed.spans(&history());
    let start = start_id(failed.saga);
    assert_eq!((spans[0].place.span, spans[0].parent), (start, Some(failed.trace.span)));
    assert!(spans[1..].iter().all(|span| span.parent == Some(start)), "{spans:#?}");
    let ids: std::collections::HashSet<_> = spans.iter().map(|span| span.place.span.to_bytes()).collect();
    assert_eq!(ids.len(), spans.len());
    let undo = spans.iter().find(|span| span.name.ends_with("undo")).unwrap();
    assert_eq!(undo.place.span, half_id(failed.saga, "PAY", 2, true));
}
