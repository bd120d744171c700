//! Traces, as a receiver of OTLP gets them from the real platform.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use eventicket_kit::server::{Answers, Whole, serve, status};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Told;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::payments::charged_and_cancelled;
use crate::platform::{Platform, figure, text};

/// Most bytes of one export.
const MOST: usize = 16 << 20;

/// A span, with the process that told of it.
#[derive(Clone, Debug)]
struct Seen {
    process: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    failed: bool,
    links: Vec<(String, String)>,
}

/// Takes spans as long as it lives.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<Seen>>>);

impl Answers for Receiver {
    const MOST_BYTES: usize = MOST;

    async fn answer(&self, head: &Parts, body: Bytes) -> Option<Whole> {
        assert_eq!(head.uri.path(), "/v1/traces");
        let request = ExportTraceServiceRequest::decode(body).expect("spans by OTLP's protobuf");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(request));
        Some(status(StatusCode::OK))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut seen = Vec::new();
    for of_process in request.resource_spans {
        let attributes = of_process.resource.unwrap_or_default().attributes;
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let Some(Told::StringValue(process)) = name.and_then(|name| name.value?.value) else { panic!("no service") };
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(Seen {
                process: process.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                failed: span.status.is_some_and(|status| status.code == 2),
                links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            });
        }
    }
    seen
}

impl Receiver {
    /// Listens; the environment of a platform that exports to it, and what ends it.
    async fn start(&self, sampler: &[(&'static str, &str)]) -> (Vec<(&'static str, String)>, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, self.clone(), shutdown.clone()));
        let mut environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
            ("EVENTICKET_MAIL_PER_SECOND", "1000".to_owned()),
        ];
        environment.extend(sampler.iter().map(|(name, value)| (*name, (*value).to_owned())));
        (environment, shutdown.drop_guard())
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of a trace.
    fn of(&self, trace: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|span| span.trace == trace).collect()
    }
}

/// Spans whose parent is neither among them nor one of these.
fn orphans<'a>(spans: &'a [Seen], above: &[&str]) -> Vec<&'a Seen> {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).chain(above.iter().copied()).collect();
    spans.iter().filter(|span| !ids.contains(span.parent.as_str())).collect()
}

/// The tree as lines, for people.
fn shown(spans: &[Seen]) -> String {
    let names: BTreeMap<&str, &str> = spans.iter().map(|span| (span.id.as_str(), span.name.as_str())).collect();
    let line = |span: &Seen| {
        let above = names.get(span.parent.as_str()).copied().unwrap_or(&span.parent);
        format!("{}: {} < {above}", span.process, span.name)
    };
    spans.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_is_one_connected_trace_through_every_service_to_its_mail() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CLIENT: &str = "00f067aa0ba902b7";
    const READER: &str = "a2fb4a1d1a96d312";
    let receiver = Receiver::default();
    // Only what the client asks for is kept.
    let sampler = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let (environment, _listening) = receiver.start(&sampler).await;
    let mut platform = Platform::start_with(environment, &["--processes"]).await;
    let customer = platform.login("customer@demo.test").await;
    let event = platform.event(10, 4_200, None).await;
    let request = platform.booking(&customer, "traced", &event, Some("pm_card_visa"));
    let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT}-01"));
    let booking: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(booking["status"], "confirmed", "{booking}");
    let look = platform.http.get(format!("{}/v1/bookings/{}", platform.url, text(&booking["id"])));
    let look = look.bearer_auth(&customer).header("traceparent", format!("00-{TRACE}-{READER}-01"));
    look.send().await.unwrap().error_for_status().unwrap();

    let mailed = async || receiver.of(TRACE).iter().any(|span| span.name == "mail booking_confirmed");
    platform.until("the mail is traced", mailed).await;
    platform.stop().await; // which sends what is left
    let spans = receiver.of(TRACE);
    figure(&shown(&spans));
    let processes: BTreeSet<&str> = spans.iter().map(|span| span.process.as_str()).collect();
    let all = ["bookings", "gateway", "mock-gateway", "notifications", "orchestrator", "payments"];
    assert_eq!(processes, BTreeSet::from(all), "{}", shown(&spans));
    let above = [CLIENT, READER];
    assert!(orphans(&spans, &above).is_empty(), "{:#?}", orphans(&spans, &above));
    for asker in above {
        assert_eq!(spans.iter().filter(|span| span.parent == asker).count(), 1, "one root: {}", shown(&spans));
    }
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "no span is told twice");
    for step in ["RESERVE", "PAY", "CONFIRM", "NOTIFY"] {
        assert!(spans.iter().any(|span| span.name == format!("booking {step}")), "{step}: {}", shown(&spans));
    }
    for asked in ["notifications", "bookings"] {
        let about = |span: &Seen| span.process == asked && span.name == "qry.bookings.tickets";
        assert!(spans.iter().any(about), "the mail asks for tickets: {}", shown(&spans));
    }
    assert!(spans.iter().all(|span| !span.failed), "{}", shown(&spans));

    let linked = |name: &str| {
        receiver.all().into_iter().filter(|span| span.name == name).flat_map(|span| span.links).collect::<Vec<_>>()
    };
    for batch in ["batch of commands", "orchestrator turn", "look at bookings"] {
        let serves = |(trace, id): &(String, String)| trace == TRACE && ids.contains(id.as_str());
        assert!(linked(batch).iter().any(serves), "a {batch} is linked to the spans that it serves");
    }
    let batches: BTreeSet<String> =
        receiver.all().into_iter().filter(|span| !span.links.is_empty()).map(|span| span.trace).collect();
    let is_other = |span: &Seen| span.trace != TRACE && !batches.contains(&span.trace);
    let others: Vec<Seen> = receiver.all().into_iter().filter(is_other).collect();
    assert!(others.is_empty(), "nothing else is in the sample: {}", shown(&others));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_is_sold_is_one_trace_from_its_request_through_its_saga() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const CLIENT: &str = "b7ad6b7169203331";
    let receiver = Receiver::default();
    let (environment, _listening) = receiver.start(&[("OTEL_TRACES_SAMPLER_ARG", "0")]).await;
    let mut platform = Platform::start_with(environment, &["--processes"]).await;
    let (event, _) = platform.event(10, 4_200, None).await;
    let organizer = platform.login("organizer@demo.test").await;
    let cancel = platform.http.post(format!("{}/v1/events/{event}/cancel", platform.url)).bearer_auth(&organizer);
    let cancel = cancel.header("traceparent", format!("00-{TRACE}-{CLIENT}-01"));
    cancel.send().await.unwrap().error_for_status().unwrap();
    let ended = |span: &Seen| span.process == "events" && span.name == "events.settle";
    platform.until("the saga is traced to its end", async || receiver.of(TRACE).iter().any(ended)).await;
    platform.stop().await;

    let spans = receiver.of(TRACE);
    figure(&shown(&spans));
    assert!(orphans(&spans, &[CLIENT]).is_empty(), "{:#?}", orphans(&spans, &[CLIENT]));
    for (process, name) in [
        ("gateway", "POST /v1/events/{id}/cancel"),
        ("gateway", "qry.events.cancel"),
        ("events", "qry.events.cancel"),
        ("orchestrator", "publish_event started"),
        ("bookings", "bookings.offer"),
    ] {
        let known = |span: &Seen| span.process == process && span.name == name;
        assert!(spans.iter().any(known), "{process}: {name} in {}", shown(&spans));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_saga_of_a_refund_that_failed_is_in_its_bookings_trace() {
    let receiver = Receiver::default();
    let (environment, _listening) = receiver.start(&[("OTEL_TRACES_SAMPLER_ARG", "1")]).await;
    let mut platform = Platform::start_with(environment, &["--processes"]).await;
    let customer = platform.login("customer@demo.test").await;
    let operator = platform.login("operator@demo.test").await;
    let event = platform.event(10, 2_000, Some(60)).await;
    let booking = charged_and_cancelled(&platform, &customer, &event, "pm_card_refund_fails_later").await;
    let opened = async || {
        let found = platform.get(&operator, "/v1/sagas?kind=failed_refund&state=attention").await;
        found["items"].as_array().is_some_and(|items| items.len() == 1).then(|| text(&found["items"][0]["id"]))
    };
    platform.until("the failure has a saga", async || opened().await.is_some()).await;
    let saga = opened().await.unwrap();
    let trace = async |id: &str| text(&platform.saga(id).await["trace_id"]);
    let of_booking = trace(&text(&booking["id"])).await;
    assert_eq!(trace(&saga).await, of_booking);
    let started = async || receiver.of(&of_booking).iter().any(|span| span.name == "failed_refund started");
    platform.until("its start is traced", started).await;
    platform.stop().await;
    let spans = receiver.of(&of_booking);
    figure(&shown(&spans));
    assert!(orphans(&spans, &[""]).is_empty(), "{:#?}", orphans(&spans, &[""]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_traced_also_outside_of_the_sample() {
    let receiver = Receiver::default();
    let (environment, _listening) = receiver.start(&[("OTEL_TRACES_SAMPLER_ARG", "0")]).await;
    let mut platform = Platform::start_with(environment, &["--processes"]).await;
    let customer = platform.login("customer@demo.test").await;
    let event = platform.event(10, 4_200, None).await;
    let good = platform.book(&customer, "good", &event, Some("pm_card_visa")).await;
    assert_eq!(good["status"], "confirmed", "{good}");
    let declined = platform.book(&customer, "declined", &event, Some("pm_card_declined")).await;
    assert_eq!(declined["last_decline"], "payment_declined", "{declined}");
    let trace = async |booking: &serde_json::Value| text(&platform.saga(&text(&booking["id"])).await["trace_id"]);
    let (of_good, of_declined) = (trace(&good).await, trace(&declined).await);

    let told = async |name: &str| receiver.of(&of_declined).iter().any(|span| span.name == name && span.failed);
    platform.until("the decline is traced", async || told("booking PAY").await).await;
    let (code, _) =
        platform.post(&customer, &format!("/v1/bookings/{}/cancel", text(&declined["id"])), json!({})).await;
    assert!((200..300).contains(&code), "{code}");
    assert_eq!(platform.ended(&customer, &declined).await["status"], "cancelled");
    let undone = async || receiver.of(&of_declined).iter().any(|span| span.name == "booking RESERVE undo");
    platform.until("the way back is traced", undone).await;
    platform.stop().await;

    let spans = receiver.of(&of_declined);
    figure(&shown(&spans));
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    for name in ["booking started", "booking RESERVE", "booking PAY", "booking RESERVE undo", "bookings.release"] {
        assert!(names.contains(name), "{name}: {}", shown(&spans));
    }
    assert!(orphans(&spans, &[""]).is_empty(), "{:#?}", orphans(&spans, &[""]));
    assert_eq!(spans.iter().filter(|span| span.parent.is_empty()).count(), 1, "one root: {}", shown(&spans));
    assert!(receiver.of(&of_good).is_empty(), "what went well is not in the sample");
}
