//! From the command to the mailbox, over a real broker, database and mail server; identity and bookings are played.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventicket_contracts::bookings::{Line, TICKETS, Ticket, TicketsQuery};
use eventicket_contracts::envelope::{Answer, Envelope, Fence, Fenced, Half, Item, Key, Recorded, Reply};
use eventicket_contracts::identity::{Role, USERS, User};
use eventicket_contracts::notifications::{
    BOOKING_CONFIRMED, BOOKING_REFUNDED, BookingMail, DELIVERIES, DeliveriesQuery, Delivery, RefundMail, Send,
};
use eventicket_contracts::subjects::{self, FENCE, Service};
use eventicket_contracts::text::Email;
use eventicket_contracts::{Currency, CustomerId, EventId, Json, Money, SagaId, TicketTypeId, Timestamp, codes};
use eventicket_kit::Context;
use eventicket_kit::http::{ANY_PORT, Reserved};
use eventicket_nats::{Outgoing, QueryError, QueryServer, command_headers};
use eventicket_notifications::mailbox::{self, Mailbox};
use eventicket_notifications::{DATABASE, MIGRATOR};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the played services know.
#[derive(Clone, Default)]
struct Known {
    users: Arc<Mutex<HashMap<CustomerId, User>>>,
    tickets: Arc<Mutex<HashMap<SagaId, Vec<Ticket>>>>,
}

struct Stage {
    ctx: Context,
    known: Known,
    mails: tempfile::TempDir,
    /// Kept for the mail server, which comes to listen later and more than once.
    port: Reserved,
    running: JoinSet<()>,
}

impl Stage {
    /// The service with its neighbours; the mail server's port is free until [`Stage::mail_server`].
    async fn set() -> Self {
        let world = eventicket_testkit::world().await;
        world.database(DATABASE, &MIGRATOR).await;
        let port = Reserved::new(ANY_PORT).unwrap();
        let address = port.address().unwrap();
        let ctx = Context::for_tests(&world.database_url, &world.nats_url).await.unwrap().with_settings(|s| {
            s.database_prefix = world.prefix.clone();
            s.smtp_url = format!("smtp://{address}");
        });
        let (mut running, known) = (JoinSet::new(), Known::default());
        for server in known.servers(&ctx).await {
            let shutdown = ctx.shutdown.clone();
            running.spawn(server.run(shutdown));
        }
        let service = ctx.clone();
        running.spawn(async move { eventicket_notifications::run(service).await.unwrap() });
        Self { ctx, known, mails: tempfile::tempdir().unwrap(), port, running }
    }

    async fn mail_server(&mut self) -> CancellationToken {
        let down = CancellationToken::new();
        let server = Mailbox::bind(self.port.address().unwrap(), self.mails.path()).unwrap();
        self.running.spawn(server.run(down.clone()));
        down
    }

    /// Asks for a confirmation.
    async fn command(&self, key: &Key, customer: CustomerId) {
        let answer = self.send("send", key, Half::Do, confirmation(key, customer)).await;
        assert_eq!(answer, Answer::Done(Json::NULL));
    }

    /// Sends one command; its answer.
    async fn send(&self, action: &str, key: &Key, half: Half, body: Value) -> Answer {
        // One of its own: a uuid ends at random.
        let [.., a, b, c, d] = *SagaId::fresh().0.as_bytes();
        let reply_to = subjects::reply(u32::from_be_bytes([a, b, c, d]));
        let mut replies = self.ctx.nats.subscriber().subscribe(reply_to.clone()).await.unwrap();
        self.ctx.nats.subscriber().flush().await.unwrap();
        let body = Json::of(&body).unwrap();
        let item = Item { key: key.clone(), half, attempt: 1, deadline: None, trace: None, body };
        let message = Outgoing {
            subject: subjects::command(Service::NOTIFICATIONS, action, 0),
            id: SagaId::fresh().to_string(),
            headers: command_headers(&reply_to, None),
            payload: serde_json::to_vec(&Envelope::new(vec![item])).unwrap().into(),
        };
        for stored in self.ctx.nats.publish_all(vec![message]).await {
            stored.unwrap();
        }
        let message = tokio::time::timeout(PATIENCE, replies.next()).await.expect("an answer").unwrap();
        let mut envelope: Envelope<Reply> = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((envelope.items.len(), &envelope.items[0].key, envelope.items[0].half), (1, key, half));
        envelope.items.remove(0).answer
    }

    async fn fence(&self, key: &Key, id: u32, undo: bool) -> Fenced {
        let body = Fence { id, action: "send".into(), undo, body: Json::NULL };
        let answer = self.send(FENCE, key, Half::Fence, json!(body)).await;
        let Answer::Done(fenced) = answer else { panic!("{answer:?}") };
        fenced.read().unwrap()
    }

    /// The booking's only delivery once it looks so.
    async fn delivery(&self, booking: SagaId, wanted: impl Fn(&Delivery) -> bool) -> Delivery {
        let query = DeliveriesQuery { booking };
        let look = async {
            loop {
                let found = self.ctx.nats.query::<Vec<Delivery>>("notifications", DELIVERIES, &query).await;
                if let Some(delivery) = found.ok().and_then(|mut all| all.pop()).filter(&wanted) {
                    return delivery;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("the delivery does not get there")
    }

    async fn end(mut self) {
        self.ctx.shutdown.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
    }
}

impl Known {
    async fn servers(&self, ctx: &Context) -> [QueryServer; 2] {
        let mut identity = QueryServer::start(&ctx.nats, "identity", "played").await.unwrap();
        let users = self.users.clone();
        let answer = move |ids: Vec<CustomerId>| {
            let users = users.lock().unwrap();
            let found: Vec<User> = ids.iter().filter_map(|id| users.get(id).cloned()).collect();
            async move { Ok::<_, QueryError>(found) }
        };
        identity.endpoint(USERS, answer).await.unwrap();
        let mut bookings = QueryServer::start(&ctx.nats, "bookings", "played").await.unwrap();
        let tickets = self.tickets.clone();
        let answer = move |query: TicketsQuery| {
            let found = tickets.lock().unwrap().get(&query.booking).cloned().unwrap_or_default();
            async move { Ok::<_, QueryError>(found) }
        };
        bookings.endpoint(TICKETS, answer).await.unwrap();
        [identity, bookings]
    }

    fn user(&self) -> CustomerId {
        let user = User {
            id: CustomerId::fresh(),
            email: Email::parse("ada@example.org").unwrap(),
            name: "Ada Lovelace".into(),
            roles: vec![Role::Customer],
            version: 1,
            created_at: Timestamp(0),
        };
        let id = user.id;
        self.users.lock().unwrap().insert(id, user);
        id
    }

    fn ticket(&self, booking: SagaId, code: &str, seat: &str) {
        let ticket = Ticket {
            code: code.into(),
            event_id: EventId::fresh(),
            ticket_type_id: TicketTypeId::fresh(),
            name: "Floor".into(),
            seat: Some(seat.into()),
            issued_at: Timestamp(0),
        };
        self.tickets.lock().unwrap().entry(booking).or_default().push(ticket);
    }
}

fn confirmation(key: &Key, customer: CustomerId) -> Value {
    let mail = BookingMail { booking: key.saga, title: "Gala".into(), lines: vec![line()], total: euros(8400) };
    json!(Send { template: BOOKING_CONFIRMED.into(), customer, data: json!(mail).into() })
}

fn euros(amount: i64) -> Money {
    Money { amount, currency: Currency::EUR }
}

fn seats() -> Vec<String> {
    vec!["B-12".into(), "B-13".into()]
}

fn line() -> Line {
    Line {
        ticket_type_id: TicketTypeId::fresh(),
        name: "Floor".into(),
        quantity: 2,
        unit_price: euros(4200),
        seats: seats(),
    }
}

fn key() -> Key {
    Key { saga: SagaId::fresh(), step: "NOTIFY".into(), round: 1 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_comes_twice_becomes_one_mail_with_the_tickets() {
    let mut stage = Stage::set().await;
    let mail_server = stage.mail_server().await;
    let (key, customer) = (key(), stage.known.user());
    stage.known.ticket(key.saga, "7ZK3Q9M2T5V8X1B4C6D0E7F9GH", "B-12");
    stage.known.ticket(key.saga, "8ZK3Q9M2T5V8X1B4C6D0E7F9GH", "B-13");
    stage.command(&key, customer).await;
    stage.command(&key, customer).await;
    let sent = stage.delivery(key.saga, |d| d.state == "sent").await;
    assert_eq!((sent.tries, sent.last_error), (1, None));
    let all = mailbox::list(stage.mails.path()).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].to.as_str(), all[0].subject.as_str()), ("ada@example.org", "Your tickets for Gala"));
    let letter = mailbox::read(stage.mails.path(), &all[0].id).unwrap().unwrap();
    let seats = ["seats B-12, B-13", "Floor, seat B-12", "Floor, seat B-13"];
    for part in ["Ada Lovelace", "7ZK3Q9M2T5V8X1B4C6D0E7F9GH", "84.00 EUR"].into_iter().chain(seats) {
        assert!(letter.text.contains(part) && letter.html.contains(part), "{part}: {letter:?}");
    }
    mail_server.cancel();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_waits_for_its_tickets_and_for_the_mail_server() {
    let mut stage = Stage::set().await;
    let (key, customer) = (key(), stage.known.user());
    stage.command(&key, customer).await;
    let waiting = stage.delivery(key.saga, |d| d.last_error.is_some()).await;
    assert_eq!(waiting.last_error.as_deref(), Some("the booking has no tickets yet"));
    stage.known.ticket(key.saga, "7ZK3Q9M2T5V8X1B4C6D0E7F9GH", "B-12");
    let refused = |d: &Delivery| d.last_error.as_deref() == Some("the mail server cannot be reached");
    assert_eq!(stage.delivery(key.saga, refused).await.state, "due");
    let mail_server = stage.mail_server().await;
    let sent = stage.delivery(key.saga, |d| d.state == "sent").await;
    assert!(sent.tries >= 3, "{sent:?}");
    assert_eq!(mailbox::list(stage.mails.path()).unwrap().len(), 1);
    mail_server.cancel();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_to_nobody_is_given_up() {
    let mut stage = Stage::set().await;
    let mail_server = stage.mail_server().await;
    let key = key();
    stage.command(&key, CustomerId::fresh()).await;
    let failed = stage.delivery(key.saga, |d| d.state == "failed").await;
    assert_eq!((failed.tries, failed.last_error.as_deref()), (1, Some("there is no such user")));
    assert!(failed.ended_at.is_some());
    assert!(mailbox::list(stage.mails.path()).unwrap().is_empty());
    mail_server.cancel();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charged_booking_without_tickets_gets_a_mail_about_the_money() {
    let mut stage = Stage::set().await;
    let mail_server = stage.mail_server().await;
    let (key, customer) = (key(), stage.known.user());
    let mail =
        RefundMail { booking: key.saga, title: "Gala".into(), reason: codes::HOLD_EXPIRED.into(), amount: euros(8400) };
    let body = json!(Send { template: BOOKING_REFUNDED.into(), customer, data: json!(mail).into() });
    for _ in 0..2 {
        assert_eq!(stage.send("send", &key, Half::Do, body.clone()).await, Answer::Done(Json::NULL));
    }
    // It has no tickets, and waits for none.
    let sent = stage.delivery(key.saga, |d| d.state == "sent").await;
    assert_eq!((sent.tries, sent.template.as_str()), (1, BOOKING_REFUNDED));
    let all = mailbox::list(stage.mails.path()).unwrap();
    assert_eq!((all.len(), all[0].subject.as_str()), (1, "No tickets for Gala: your payment is given back"));
    let letter = mailbox::read(stage.mails.path(), &all[0].id).unwrap().unwrap();
    for part in ["Ada Lovelace", "no tickets were issued", "84.00 EUR", &key.saga.to_string()] {
        assert!(letter.text.contains(part) && letter.html.contains(part), "{part}: {letter:?}");
    }
    mail_server.cancel();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_a_fence_closes_a_delivery_that_was_not_asked_for() {
    let mut stage = Stage::set().await;
    let mail_server = stage.mail_server().await;
    let (key, customer) = (key(), stage.known.user());
    stage.known.ticket(key.saga, "7ZK3Q9M2T5V8X1B4C6D0E7F9GH", "B-12");
    let closed = Fenced { id: 1, effect: Recorded::Closed, undo: None };
    assert_eq!(stage.fence(&key, 1, false).await, closed);
    assert_eq!(stage.fence(&key, 1, false).await, closed, "a repeat gets the same answer");
    let later = Fenced { id: 2, effect: Recorded::Closed, undo: Some(Recorded::Closed) };
    assert_eq!(stage.fence(&key, 2, true).await, later);
    for _ in 0..2 {
        let answer = stage.send("send", &key, Half::Do, confirmation(&key, customer)).await;
        assert!(matches!(&answer, Answer::Rejected(no) if no.code == codes::CLOSED), "{answer:?}");
    }
    let delivery = stage.delivery(key.saga, |_| true).await;
    assert_eq!((delivery.state.as_str(), delivery.tries), ("refused", 0));
    // Another round of the step leaves, and is the only mail.
    let second = Key { round: 2, ..key.clone() };
    stage.command(&second, customer).await;
    stage.delivery(key.saga, |d| d.round == 2 && d.state == "sent").await;
    assert_eq!(mailbox::list(stage.mails.path()).unwrap().len(), 1);
    mail_server.cancel();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_a_fence_tells_what_is_recorded_and_lets_it_leave() {
    let mut stage = Stage::set().await;
    let (due, refused, customer) = (key(), key(), stage.known.user());
    stage.known.ticket(due.saga, "7ZK3Q9M2T5V8X1B4C6D0E7F9GH", "B-12");
    stage.command(&due, customer).await;
    let unknown = json!(Send { template: "nonsense".into(), customer, data: json!({}).into() });
    let Answer::Rejected(rejection) = stage.send("send", &refused, Half::Do, unknown).await else {
        panic!("an unknown template")
    };
    let told = |effect| Fenced { id: 1, effect, undo: None };
    assert_eq!(stage.fence(&due, 1, false).await, told(Recorded::Done(Json::NULL)));
    assert_eq!(stage.fence(&refused, 1, false).await, told(Recorded::Rejected(rejection)));
    let mail_server = stage.mail_server().await;
    stage.delivery(due.saga, |d| d.state == "sent").await;
    assert_eq!(mailbox::list(stage.mails.path()).unwrap().len(), 1);
    mail_server.cancel();
    stage.end().await;
}
