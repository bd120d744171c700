//! Customers who book through the REST API at a steady rate, whatever became of those before them, and repeat with the
//! same key what has no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eventicket_contracts::BookingId;
use eventicket_contracts::sagas::{BookingStatus, BookingView};
use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;
use crate::told::Told;

/// What an answer is waited for; the API itself waits up to ten seconds for a booking's end.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Before what was cut off is sent again.
const AGAIN: Duration = Duration::from_millis(200);
/// Before somebody pays or cancels.
const THINK: Duration = Duration::from_secs(1);
/// Between two looks at a booking that is under way.
const LOOK: Duration = Duration::from_secs(1);

/// What a customer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pays at once with a good card.
    Card,
    /// The same for three tickets.
    Several,
    /// The payment gateway charges, and its answer is lost.
    LostAnswer,
    /// The payment gateway fails twice before it charges.
    Flaky,
    /// The bank takes seconds.
    Processing,
    /// The payment gateway takes longer to answer than it is waited for.
    Slow,
    /// Is declined, then pays with a good card.
    DeclinedThenPays,
    /// Is declined, and leaves.
    Declined,
    /// Pays after a while.
    PaysLater,
    /// Cancels before paying.
    Cancels,
    /// Holds tickets, and leaves.
    Abandons,
}

/// Of forty bookings. Those whose end is not `confirmed` are spread, so that each second has as many of the others.
const MIX: [Kind; 40] = {
    use Kind::{
        Abandons, Cancels, Card, Declined, DeclinedThenPays, Flaky, LostAnswer, PaysLater, Processing, Several, Slow,
    };
    [
        Card,
        Card,
        Several,
        Card,
        Declined,
        Card,
        Card,
        LostAnswer,
        Card,
        Card,
        Card,
        PaysLater,
        Cancels,
        Card,
        Card,
        DeclinedThenPays,
        Card,
        Card,
        Processing,
        Card,
        Declined,
        Card,
        Several,
        Card,
        Card,
        Flaky,
        Card,
        PaysLater,
        Cancels,
        Card,
        Card,
        Slow,
        Card,
        Card,
        LostAnswer,
        Card,
        Abandons,
        Card,
        DeclinedThenPays,
        Card,
    ]
};

impl Kind {
    /// The way of the `number`th booking.
    pub const fn of(number: u64) -> Self {
        MIX[(number % MIX.len() as u64) as usize]
    }

    /// The share of bookings that are confirmed where nothing fails.
    pub fn confirmed() -> f64 {
        let ends_well = |kind: &&Self| kind.pays_at_once() || matches!(kind, Self::DeclinedThenPays | Self::PaysLater);
        MIX.iter().filter(ends_well).count() as f64 / MIX.len() as f64
    }

    /// The payment gateway's test token that the booking brings.
    const fn method(self) -> Option<&'static str> {
        match self {
            Self::Card | Self::Several => Some(GOOD),
            Self::LostAnswer => Some("pm_card_lost_answer"),
            Self::Flaky => Some("pm_card_flaky_2"),
            Self::Processing => Some("pm_card_processing"),
            Self::Slow => Some("pm_card_slow"),
            Self::DeclinedThenPays | Self::Declined => Some("pm_card_declined"),
            Self::PaysLater | Self::Cancels | Self::Abandons => None,
        }
    }

    /// Whether the booking brings a card that succeeds.
    pub const fn pays_at_once(self) -> bool {
        self.method().is_some() && !matches!(self, Self::DeclinedThenPays | Self::Declined)
    }

    /// Tickets.
    pub const fn quantity(self) -> u32 {
        if matches!(self, Self::Several) { 3 } else { 1 }
    }
}

/// Succeeds.
const GOOD: &str = "pm_card_visa";

/// Where customers book, and with which access tokens.
pub struct Shop {
    /// Keeps connections.
    pub http: reqwest::Client,
    /// The API, without a slash at its end.
    pub url: String,
    /// Of customers, who book in turn.
    pub tokens: Vec<String>,
    /// The event, and its one ticket type.
    pub event: (String, String),
    /// Counts what is confirmed.
    pub pace: Pace,
    /// Cancelled when no more bookings are made.
    pub over: CancellationToken,
}

/// What came back.
pub enum Answer {
    /// The booking.
    Booking(Box<BookingView>),
    /// 429 and 503, or no answer at all: to be sent again, so long after.
    NotNow(Duration),
    /// 409: not possible in its state.
    Conflict,
    /// 404.
    NotFound,
    /// Anything else, which nothing excuses.
    Strange(String),
}

impl Shop {
    /// Books at a rate until it is over; what each client was told, once all have stopped.
    pub async fn rush(self: Arc<Self>, rate: f64) -> Vec<Told> {
        let (begin, mut told, mut visits) = (Instant::now(), Vec::new(), JoinSet::new());
        for number in 0.. {
            let due = begin + Duration::from_secs_f64(number as f64 / rate);
            if self.over.run_until_cancelled(sleep_until(due)).await.is_none() {
                break;
            }
            visits.spawn(self.clone().visit(number));
            while let Some(visit) = visits.try_join_next() {
                told.extend(visit);
            }
        }
        told.extend(visits.join_all().await);
        told
    }

    async fn visit(self: Arc<Self>, number: u64) -> Told {
        let mut told = Told::nothing(number, Kind::of(number));
        self.send(&mut told, || self.booking(number)).await;
        if let Some(id) = told.id {
            self.go_on(&mut told, id).await;
        }
        told
    }

    /// What the customer does with a booking that was accepted.
    async fn go_on(&self, told: &mut Told, id: BookingId) {
        let number = told.number;
        match told.kind {
            Kind::Abandons | Kind::Declined => return,
            Kind::DeclinedThenPays | Kind::PaysLater => {
                self.awaited(told, id).await;
                sleep(THINK).await;
                told.good_card = true;
                self.send(told, || self.payment(number, id)).await;
            }
            Kind::Cancels => {
                sleep(THINK).await;
                self.send(told, || self.cancel(number, id)).await;
            }
            _ => {}
        }
        self.awaited(told, id).await;
    }

    /// Looks at the booking until it has ended or waits for its customer, or all is over.
    async fn awaited(&self, told: &mut Told, id: BookingId) {
        while told.end().is_none() && !self.over.is_cancelled() {
            if let Answer::Booking(booking) = self.ask(self.look(told.number, id)).await {
                let waits = booking.status == BookingStatus::AwaitingPayment && !told.good_card;
                self.note(told, &booking);
                if waits {
                    return;
                }
            }
            self.over.run_until_cancelled(sleep(LOOK)).await;
        }
    }

    /// Sends a request, again and again until it is answered for good, or all is over.
    async fn send(&self, told: &mut Told, request: impl Fn() -> RequestBuilder) {
        loop {
            match self.ask(request()).await {
                Answer::Booking(booking) => return self.note(told, &booking),
                Answer::Conflict => return,
                Answer::NotFound => return told.strange("accepted, and not found".to_owned()),
                Answer::Strange(what) => return told.strange(what),
                Answer::NotNow(after) => {
                    if self.over.run_until_cancelled(sleep(after)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn note(&self, told: &mut Told, booking: &BookingView) {
        let before = told.end();
        told.hear(booking);
        if before.is_none() && told.end() == Some(BookingStatus::Confirmed) {
            self.pace.confirmed();
        }
    }

    /// Sends a request and tells the answers apart.
    pub async fn ask(&self, request: RequestBuilder) -> Answer {
        let Ok(response) = request.timeout(PATIENCE).send().await else { return Answer::NotNow(AGAIN) };
        let status = response.status();
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        // Cut off within the body: nothing was told.
        let Ok(body) = response.bytes().await else { return Answer::NotNow(AGAIN) };
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => match serde_json::from_slice(&body) {
                Ok(booking) => Answer::Booking(Box::new(booking)),
                Err(error) => Answer::Strange(format!("{status} with a body that is no booking: {error}")),
            },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => match after {
                Some(seconds) => Answer::NotNow(Duration::from_secs(seconds)),
                None => Answer::Strange(format!("{status} without Retry-After")),
            },
            StatusCode::CONFLICT => Answer::Conflict,
            StatusCode::NOT_FOUND => Answer::NotFound,
            _ => Answer::Strange(format!("{status}: {}", String::from_utf8_lossy(&body))),
        }
    }

    /// Books; the same request each time.
    pub fn booking(&self, number: u64) -> RequestBuilder {
        let (kind, (event, ticket_type)) = (Kind::of(number), &self.event);
        let items = json!([{"ticket_type_id": ticket_type, "quantity": kind.quantity()}]);
        let mut body = json!({"event_id": event, "items": items});
        if let Some(method) = kind.method() {
            body["payment_method"] = method.into();
        }
        self.post(number, "/v1/bookings", "book", &body)
    }

    fn payment(&self, number: u64, id: BookingId) -> RequestBuilder {
        self.post(number, &format!("/v1/bookings/{id}/payment"), "pay", &json!({"payment_method": GOOD}))
    }

    fn cancel(&self, number: u64, id: BookingId) -> RequestBuilder {
        self.http.post(format!("{}/v1/bookings/{id}/cancel", self.url)).bearer_auth(self.token(number))
    }

    /// Reads a booking.
    pub fn look(&self, number: u64, id: BookingId) -> RequestBuilder {
        self.http.get(format!("{}/v1/bookings/{id}", self.url)).bearer_auth(self.token(number))
    }

    fn post(&self, number: u64, path: &str, what: &str, body: &Value) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(self.token(number));
        request.header("idempotency-key", format!("{what}-{number}")).header("prefer", "wait=10").json(body)
    }

    fn token(&self, number: u64) -> &str {
        &self.tokens[(number % self.tokens.len() as u64) as usize]
    }
}

/// How bookings ended, by what their customers did.
pub fn ends(told: &[Told]) -> BTreeMap<(Kind, &'static str), usize> {
    let mut ends = BTreeMap::new();
    for told in told {
        *ends.entry((told.kind, told.end().map_or("unknown", BookingStatus::name))).or_default() += 1;
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_of_eight_are_confirmed_in_every_stretch_of_the_mix() {
        assert!((Kind::confirmed() - 0.875).abs() < 0.001, "{}", Kind::confirmed());
        let ends_badly = |kind: &Kind| matches!(kind, Kind::Declined | Kind::Cancels | Kind::Abandons);
        for stretch in MIX.windows(8) {
            assert!(stretch.iter().filter(|kind| ends_badly(kind)).count() <= 2, "{stretch:?}");
        }
    }
}
