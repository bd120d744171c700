//! Each action of an operator, on one saga and in bulk: what it means for the booking, the money and the tickets, and that
//! the saga's history tells who acted and why.
//!
//! A function each; those that go together share a platform.

use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::payments::until;
use crate::platform::{Platform, text};

/// Tickets of an event.
const TICKETS: i64 = 10;
/// Length of a hold where it does not matter, in seconds.
const HOLD: u32 = 60;

/// Where operators work, and one customer books.
struct Desk {
    platform: Platform,
    ada: String,
}

/// Bookings of one event.
struct Group {
    event: (String, String),
    bookings: Vec<Value>,
}

impl Group {
    fn ids(&self) -> Vec<String> {
        self.bookings.iter().map(|booking| text(&booking["id"])).collect()
    }
}

impl Desk {
    async fn open(arguments: &[&str]) -> Self {
        let platform = Platform::start(arguments).await;
        let ada = platform.login("customer@demo.test").await;
        Self { platform, ada }
    }

    /// Bookings of an event of their own, as they are accepted.
    async fn group(&self, number: usize, method: Option<&str>, hold: u32) -> Group {
        let event = self.platform.event(u32::try_from(TICKETS).unwrap(), 2_000, Some(hold)).await;
        let book = |n: usize| {
            let event = &event;
            async move { self.platform.accept(&self.ada, &format!("{}-{n}", event.0), event, method).await }
        };
        let bookings = join_all((0..number).map(book)).await;
        Group { event, bookings }
    }

    /// Bookings that wait for a payment method.
    async fn awaiting(&self, number: usize, hold: u32) -> Group {
        let group = self.group(number, None, hold).await;
        self.all(&group, |booking| booking["status"] == "awaiting_payment").await;
        group
    }

    /// Bookings whose charge is under way, and will be for some seconds.
    async fn paying(&self, number: usize, method: &str) -> Group {
        self.platform.payment_gateway(json!({"latency_ms": 2_000})).await;
        let group = self.group(number, Some(method), HOLD).await;
        for id in group.ids() {
            self.at(&id, "PAY", "dispatched").await;
        }
        group
    }

    /// Bookings that are charged and paused before CONFIRM: their customer had to act, and did so meanwhile.
    async fn charged(&self, number: usize) -> Group {
        let group = self.group(number, Some("pm_card_action_required"), HOLD).await;
        for booking in &group.bookings {
            let asked = |b: &Value| b["next_action"]["url"].is_string();
            let booking = until(&self.platform, &self.ada, booking, "its customer is asked", asked).await;
            self.act(&booking, "pause", json!({})).await;
            let url = format!("{}/complete", text(&booking["next_action"]["url"]));
            self.platform.http.post(url).send().await.unwrap().error_for_status().unwrap();
            self.paid(&text(&booking["id"])).await;
        }
        assert_eq!(self.standing(&group), vec![1; number]);
        group
    }

    async fn paid(&self, id: &str) {
        self.at(id, "PAY", "done").await;
    }

    /// Waits until a saga's step is in this state.
    async fn at(&self, id: &str, step: &str, state: &str) {
        let what = format!("{step} of {id} is {state}");
        self.platform.until(&what, async || self.platform.step(id, step).await["state"] == state).await;
    }

    /// Waits until a saga is in this state.
    async fn is(&self, id: &str, state: &str) {
        self.platform.until(&format!("{id} is {state}"), async || self.platform.saga(id).await["state"] == state).await;
    }

    async fn all(&self, group: &Group, holds: impl Fn(&Value) -> bool) {
        for booking in &group.bookings {
            until(&self.platform, &self.ada, booking, "the booking is so", &holds).await;
        }
    }

    /// Pays, and does not wait for what becomes of it.
    async fn pay(&self, booking: &Value) {
        let url = format!("{}/v1/bookings/{}/payment", self.platform.url, text(&booking["id"]));
        let request =
            self.platform.http.post(url).bearer_auth(&self.ada).header("idempotency-key", text(&booking["id"]));
        let answer = request.json(&json!({"payment_method": "pm_card_visa"})).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }

    /// Acts on one saga by REST; the saga after it.
    async fn act(&self, booking: &Value, action: &str, fields: Value) -> Value {
        let (id, reason) = (text(&booking["id"]), format!("{action}, by REST"));
        let (status, saga) = self.ask(&id, action, &reason, fields).await;
        assert_eq!(status, 200, "{action}: {saga}");
        self.platform.acted(&id, entry(action), "operator:", &reason).await;
        saga
    }

    /// The action does not fit the saga's state.
    async fn refused(&self, booking: &Value, action: &str, fields: Value, code: &str) {
        let (status, problem) = self.ask(&text(&booking["id"]), action, "refused", fields).await;
        assert_eq!((status, text(&problem["code"])), (409, code.to_owned()), "{action}: {problem}");
    }

    async fn ask(&self, id: &str, action: &str, reason: &str, mut fields: Value) -> (u16, Value) {
        fields["reason"] = reason.into();
        self.platform.post(&self.platform.operator().await, &format!("/v1/sagas/{id}/{action}"), fields).await
    }

    /// Acts on one saga by the command line.
    async fn act_by_command(&self, booking: &Value, action: &str, flags: &[&str]) -> Value {
        let (id, reason) = (text(&booking["id"]), format!("{action}, by command"));
        let (exit, told) = self.platform.json(&[&["saga", action, &id, "--reason", &reason], flags].concat()).await;
        assert_eq!((exit, text(&told["outcome"])), (0, "done".to_owned()), "{told}");
        self.platform.acted(&id, entry(action), "cli:", &reason).await;
        told["saga"].clone()
    }

    /// Acts by REST on what the filter finds of the group; the outcomes are those of its bookings in their order, empty for
    /// those that it does not find.
    async fn in_bulk(&self, group: &Group, filter: Value, action: &str, fields: Value, outcomes: &[&str]) {
        let reason = format!("{action}, in bulk");
        let ask = async |dry_run: bool| {
            let mut body = fields.clone();
            body["filter"] = filter.clone();
            body["filter"]["event"] = group.event.0.clone().into();
            body["filter"]["kind"] = "booking".into();
            (body["action"], body["reason"], body["dry_run"]) = (action.into(), reason.clone().into(), dry_run.into());
            let (status, told) = self.platform.post(&self.platform.operator().await, "/v1/sagas/bulk", body).await;
            assert_eq!(status, 200, "{told}");
            told["items"].clone()
        };
        self.rehearsed_and_done(group, ask, outcomes, action, ("operator:", &reason)).await;
    }

    /// The same by the command line, on all of the group that have not ended.
    async fn in_bulk_by_command(&self, group: &Group, action: &str, outcomes: &[&str]) {
        let reason = format!("{action}, in bulk, by command");
        let flags = ["saga", action, "--event", &group.event.0, "--kind", "booking", "--reason", &reason];
        let ask = async |dry_run: bool| {
            let yes: &[&str] = if dry_run { &[] } else { &["--yes"] };
            let (exit, told) = self.platform.json(&[&flags, yes].concat()).await;
            let all_done = outcomes.iter().all(|outcome| ["done", ""].contains(outcome));
            assert_eq!((exit, &told["dry_run"]), (i32::from(!all_done), &json!(dry_run)), "{told}");
            told["items"].clone()
        };
        self.rehearsed_and_done(group, ask, outcomes, action, ("cli:", &reason)).await;
    }

    /// A dry run tells what would become of each and changes nothing; then it is done, and stands in each history.
    async fn rehearsed_and_done(
        &self,
        group: &Group,
        ask: impl AsyncFn(bool) -> Value,
        outcomes: &[&str],
        action: &str,
        (actor, reason): (&str, &str),
    ) {
        let ids = group.ids();
        let told = |items: Value| -> Vec<String> {
            let items = items.as_array().unwrap().clone();
            let of = |id: &String| items.iter().find(|item| item["id"] == *id).map(|item| text(&item["outcome"]));
            ids.iter().map(|id| of(id).unwrap_or_default()).collect()
        };
        let before = self.looks(&ids).await;
        assert_eq!(told(ask(true).await), outcomes, "{action}, as it would be");
        assert_eq!(self.looks(&ids).await, before, "a dry run changes nothing");
        assert_eq!(told(ask(false).await), outcomes, "{action}");
        for (id, _) in ids.iter().zip(outcomes).filter(|(_, outcome)| **outcome == "done") {
            self.platform.acted(id, entry(action), actor, reason).await;
        }
    }

    async fn looks(&self, ids: &[String]) -> Vec<(Value, Vec<String>)> {
        join_all(ids.iter().map(async |id| (self.platform.saga(id).await, self.platform.history(id).await))).await
    }

    /// One more booking of the group's event, which completes.
    async fn sold(&self, group: &Group) -> Value {
        let key = format!("{}-sold", group.event.0);
        let booking = self.platform.book(&self.ada, &key, &group.event, Some("pm_card_visa")).await;
        self.is(&text(&booking["id"]), "completed").await;
        booking
    }

    async fn available(&self, group: &Group) -> i64 {
        self.platform.available(&group.event.0).await
    }

    fn standing(&self, group: &Group) -> Vec<usize> {
        group.bookings.iter().map(|booking| self.platform.standing(booking)).collect()
    }
}

/// How the history names the action.
fn entry(action: &str) -> &str {
    match action {
        "pause" => "paused",
        "resume" => "resumed",
        "retry" => "retried_by_hand",
        "skip" => "skipped",
        "cancel" => "cancelled",
        "compensate" => "compensated_by_hand",
        "resolve" => "resolved",
        "abandon" => "abandoning",
        other => panic!("{other} is no action"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_and_skip() {
    let desk = Desk::open(&[]).await;
    pause_begins_no_further_step_and_deadlines_go_on(&desk).await;
    resume_goes_on_from_where_it_was_paused(&desk).await;
    skip_goes_on_without_the_step_and_keeps_none_of_its_money(&desk).await;
    desk.platform.audit().await;
}

async fn pause_begins_no_further_step_and_deadlines_go_on(desk: &Desk) {
    let group = desk.awaiting(1, HOLD).await;
    let booking = &group.bookings[0];
    assert_eq!(desk.act(booking, "pause", json!({})).await["state"], "paused");
    desk.refused(booking, "pause", json!({}), "conflict").await;
    desk.pay(booking).await;
    let pay = desk.platform.step(&group.ids()[0], "PAY").await;
    assert_eq!((&pay["attempts"], desk.standing(&group)), (&json!(0), vec![0]), "nothing is charged: {pay}");

    let late = desk.awaiting(2, 5).await;
    desk.in_bulk(&late, json!({"state": "waiting"}), "pause", json!({}), &["done", "done"]).await;
    desk.all(&late, |b| b["status"] == "expired").await;
    desk.platform.until("their tickets are back", async || desk.available(&late).await == TICKETS).await;
    desk.act(booking, "cancel", json!({})).await;
}

async fn resume_goes_on_from_where_it_was_paused(desk: &Desk) {
    let one = desk.awaiting(1, HOLD).await;
    desk.refused(&one.bookings[0], "resume", json!({}), "conflict").await;
    desk.act_by_command(&one.bookings[0], "pause", &[]).await;
    desk.pay(&one.bookings[0]).await;
    desk.act(&one.bookings[0], "resume", json!({})).await;
    desk.all(&one, |b| b["status"] == "confirmed").await;

    let group = desk.awaiting(3, HOLD).await;
    for booking in &group.bookings[..2] {
        desk.act(booking, "pause", json!({})).await;
        desk.pay(booking).await;
    }
    desk.in_bulk_by_command(&group, "resume", &["done", "done", "conflict"]).await;
    let paid = Group { event: group.event.clone(), bookings: group.bookings[..2].to_vec() };
    desk.all(&paid, |b| b["status"] == "confirmed").await;
    assert_eq!((desk.standing(&one), desk.standing(&group)), (vec![1], vec![1, 1, 0]), "each is charged once");
    desk.act(&group.bookings[2], "cancel", json!({})).await;
}

/// Before the intent is made, while it is confirmed, and while its bank settles it.
async fn skip_goes_on_without_the_step_and_keeps_none_of_its_money(desk: &Desk) {
    let paid_otherwise = || json!({"output": {"intent": "by bank transfer"}});
    let waits = desk.awaiting(1, HOLD).await;
    desk.refused(&waits.bookings[0], "skip", paid_otherwise(), "conflict").await;
    desk.act(&waits.bookings[0], "cancel", json!({})).await;
    desk.platform.payment_gateway(json!({"slow_ms": 3_000, "settle_ms": 3_000})).await;
    let settling = desk.group(1, Some("pm_card_processing"), HOLD).await;
    desk.all(&settling, |b| b["status"] == "awaiting_payment").await;
    desk.act(&settling.bookings[0], "skip", paid_otherwise()).await;
    let slow = desk.group(1, Some("pm_card_slow"), HOLD).await;
    desk.platform.until("it is being confirmed", async || !desk.platform.intents(&slow.bookings[0]).is_empty()).await;
    desk.act_by_command(&slow.bookings[0], "skip", &["--output", r#"{"intent": "cash"}"#]).await;
    let early = desk.paying(2, "pm_card_visa").await;
    desk.in_bulk(&early, json!({"step": "PAY"}), "skip", paid_otherwise(), &["done", "done"]).await;
    desk.platform.payment_gateway(json!({"latency_ms": 0})).await;

    for skipped in [&early, &slow, &settling] {
        desk.all(skipped, |b| b["status"] == "confirmed").await;
        let number = i64::try_from(skipped.bookings.len()).unwrap();
        assert_eq!(desk.available(skipped).await, TICKETS - number, "they have their tickets");
        for id in skipped.ids() {
            assert_eq!(desk.platform.step(&id, "PAY").await["state"], "skipped");
        }
    }
    desk.platform.settled().await;
    assert_eq!([&early, &slow, &settling].map(|g| desk.standing(g)), [vec![0, 0], vec![0], vec![0]], "none is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_compensate_retry_and_resolve() {
    let desk = Desk::open(&[]).await;
    cancel_gives_back_tickets_and_money(&desk).await;
    compensate_undoes_from_where_it_stands(&desk).await;
    desk.platform.audit().await;
    let group = retry_tries_again_what_gave_up(&desk).await;
    resolve_says_that_the_money_was_given_back_by_hand(&desk, group).await;
}

async fn cancel_gives_back_tickets_and_money(desk: &Desk) {
    let charged = desk.charged(1).await;
    desk.act(&charged.bookings[0], "cancel", json!({})).await;
    desk.all(&charged, |b| b["status"] == "cancelled" && b["refund"] == "done").await;
    desk.platform.until("its ticket is back", async || desk.available(&charged).await == TICKETS).await;
    assert_eq!(desk.standing(&charged), [0]);

    let mut group = desk.awaiting(2, HOLD).await;
    group.bookings.push(desk.sold(&group).await);
    desk.in_bulk_by_command(&group, "cancel", &["done", "done", ""]).await;
    desk.platform.until("their tickets are back", async || desk.available(&group).await == TICKETS - 1).await;
    assert_eq!(desk.standing(&group), [0, 0, 1], "what is sold stays so");
    desk.refused(&group.bookings[0], "cancel", json!({}), "ended").await;
}

async fn compensate_undoes_from_where_it_stands(desk: &Desk) {
    let charged = desk.charged(3).await;
    desk.act(&charged.bookings[0], "compensate", json!({})).await;
    let failed = |b: &Value| b["status"] == "failed" && b["reason"] == "operator" && b["refund"] == "done";
    desk.is(&charged.ids()[0], "compensated").await;
    desk.in_bulk(&charged, json!({"state": "paused"}), "compensate", json!({}), &["", "done", "done"]).await;
    desk.all(&charged, failed).await;
    desk.platform.until("their tickets are back", async || desk.available(&charged).await == TICKETS).await;
    assert_eq!(desk.standing(&charged), [0, 0, 0]);
    desk.refused(&charged.bookings[0], "compensate", json!({}), "ended").await;
}

/// The gateway refuses each time: that a retry also succeeds once its cause is mended is seen in `dead_letters`.
async fn retry_tries_again_what_gave_up(desk: &Desk) -> Group {
    let group = desk.paying(3, "pm_card_refund_refused").await;
    desk.in_bulk(&group, json!({}), "pause", json!({}), &["done"; 3]).await;
    for id in group.ids() {
        desk.paid(&id).await;
    }
    desk.platform.payment_gateway(json!({"latency_ms": 0})).await;
    desk.refused(&group.bookings[0], "retry", json!({}), "conflict").await;
    desk.in_bulk(&group, json!({}), "cancel", json!({}), &["done"; 3]).await;
    let tried = async |times: [usize; 3]| {
        for id in group.ids() {
            desk.platform.marked(&id, "PAY").await;
            desk.at(&id, "RESERVE", "undone").await;
            desk.at(&id, "REFUND_MAIL", "done").await;
        }
        let refunds = |id: String| desk.platform.calls(&format!("{id}:PAY:1:refund")).len();
        let refunds: Vec<usize> = group.ids().into_iter().map(refunds).collect();
        assert_eq!(refunds, times, "so often the gateway was asked to give the money back");
    };
    tried([1, 1, 1]).await;
    desk.act(&group.bookings[0], "retry", json!({})).await;
    tried([2, 1, 1]).await;
    desk.in_bulk(&group, json!({"state": "attention"}), "retry", json!({}), &["done"; 3]).await;
    tried([3, 2, 2]).await;
    group
}

async fn resolve_says_that_the_money_was_given_back_by_hand(desk: &Desk, group: Group) {
    desk.all(&group, |b| b["status"] == "cancelled" && b["refund"] == "attention").await;
    desk.refused(&group.bookings[0], "resolve", json!({"step": "RESERVE"}), "conflict").await;
    desk.act_by_command(&group.bookings[0], "resolve", &["--step", "PAY"]).await;
    desk.is(&group.ids()[0], "compensated").await;
    let marked = json!({"state": "attention"});
    desk.in_bulk(&group, marked, "resolve", json!({"step": "PAY"}), &["", "done", "done"]).await;
    desk.all(&group, |b| b["status"] == "cancelled" && b["refund"] == "done").await;
    desk.platform.audit().await;
    let by_hand = group.ids().into_iter().map(|id| format!("warning refund_by_hand {id}"));
    let (mut expected, mut findings): (Vec<_>, _) = (by_hand.collect(), desk.platform.findings().await);
    expected.sort();
    findings.sort();
    assert_eq!(findings, expected, "what stands in the ledger is told, with who looked after it");
    assert_eq!(desk.available(&group).await, TICKETS);
}

#[tokio::test(flavor = "multi_thread")]
async fn abandon_with_and_without_force() {
    let desk = Desk::open(&["--processes"]).await;
    let mut left = abandon_closes_what_is_under_way_and_lists_what_stands(&desk).await;
    left.extend(abandon_by_force_does_not_wait_for_a_service_that_is_silent(&desk).await);
    desk.platform.audit().await;
    let (mut expected, mut findings): (Vec<_>, _) = (Vec::new(), desk.platform.findings().await);
    expected.extend(left.into_iter().map(|id| format!("warning attention {id}")));
    expected.sort();
    findings.sort();
    assert_eq!(findings, expected, "their holds are listed until bookings frees them, and nothing else is found");
}

/// Tells which sagas are listed for their holds.
async fn abandon_closes_what_is_under_way_and_lists_what_stands(desk: &Desk) -> Vec<String> {
    let paying = desk.paying(1, "pm_card_visa").await;
    desk.act(&paying.bookings[0], "abandon", json!({})).await;
    desk.platform.payment_gateway(json!({"latency_ms": 0})).await;
    desk.all(&paying, |b| b["status"] == "failed").await;
    let mut group = desk.awaiting(2, HOLD).await;
    group.bookings.push(desk.sold(&group).await);
    desk.in_bulk(&group, json!({}), "abandon", json!({}), &["done", "done", "ended"]).await;

    let left = [&paying.ids()[..], &group.ids()[..2]].concat();
    for id in &left {
        desk.is(id, "abandoned").await;
        desk.platform.marked(id, "RESERVE").await;
    }
    desk.refused(&paying.bookings[0], "abandon", json!({}), "ended").await;
    assert_eq!((desk.available(&paying).await, desk.available(&group).await), (TICKETS - 1, TICKETS - 3));
    desk.platform.settled().await;
    assert_eq!((desk.standing(&paying), desk.standing(&group)), (vec![0], vec![0, 0, 1]));
    left
}

async fn abandon_by_force_does_not_wait_for_a_service_that_is_silent(desk: &Desk) -> Vec<String> {
    let group = desk.paying(3, "pm_card_visa").await;
    let payments = desk.platform.about()["processes"]["payments"].as_i64().unwrap();
    let signal = |signal| kill(Pid::from_raw(i32::try_from(payments).unwrap()), signal).unwrap();
    signal(Signal::SIGSTOP);
    let waits = desk.act(&group.bookings[0], "abandon", json!({})).await;
    assert_eq!(waits["state"], "compensating", "what payments knows of the charge is awaited");
    desk.refused(&group.bookings[0], "abandon", json!({}), "conflict").await;
    let given_up = desk.act_by_command(&group.bookings[0], "abandon", &["--force"]).await;
    assert_eq!(given_up["state"], "abandoned");
    desk.platform.marked(&group.ids()[0], "RESERVE").await;
    desk.in_bulk(&group, json!({}), "abandon", json!({"force": true}), &["ended", "done", "done"]).await;
    desk.all(&group, |b| b["status"] == "failed").await;

    // Its fences are sent until payments is back; then each charge is closed, and only the holds are left.
    signal(Signal::SIGCONT);
    desk.platform.payment_gateway(json!({"latency_ms": 0})).await;
    for id in group.ids() {
        let closed = async || desk.platform.step(&id, "PAY").await["error"] == "closed";
        desk.platform.until("its charge is closed", closed).await;
        desk.platform.marked(&id, "RESERVE").await;
    }
    desk.platform.settled().await;
    assert_eq!(desk.standing(&group), [0, 0, 0]);
    group.ids()
}
