//! The API that is loaded: its address, the events that are booked, and the customers that book.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use eventicket_contracts::bookings::DEFAULT_HOLD;
use eventicket_contracts::events::{Event, EventState, TicketType};
use eventicket_contracts::sagas::HistoryEntry;
use eventicket_contracts::{Clock, Timestamp};
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::wire::Target;

/// Tickets of a load's event: as many as a type can have.
const QUANTITY: u32 = 10_000_000;
/// By which the load's events are found again.
const CATEGORY: &str = "load";
/// How long the load's events take place in the future, at least.
const AHEAD: Duration = Duration::from_secs(90 * 86_400);
const LENGTH: Duration = Duration::from_secs(2 * 3_600);
/// Requests at once while things are prepared.
const AT_ONCE: usize = 8;
/// Tries of a request that is refused for its rate, or that finds nobody.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);

/// A login.
#[derive(Clone, Debug)]
pub struct Login {
    /// Its address.
    pub email: String,
    /// Its password.
    pub password: String,
}

impl std::str::FromStr for Login {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (email, password) = text.split_once(':').ok_or("a login is EMAIL:PASSWORD")?;
        Ok(Self { email: email.to_owned(), password: password.to_owned() })
    }
}

/// What the load's events are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How many events.
    pub events: u32,
    /// Price of a ticket in cents.
    pub price: i64,
    /// How long tickets are held.
    pub hold: Duration,
    /// By how much the hold of each event is shorter than that of the one before it.
    pub stagger: Duration,
}

/// What is booked.
#[derive(Clone, Debug)]
pub struct Programme {
    /// Taken in turn.
    pub targets: Vec<Target>,
    /// Whether it costs something.
    pub paid: bool,
    /// The longest hold.
    pub hold: Duration,
}

/// The API.
pub struct Site {
    /// Without a slash at its end.
    pub url: String,
    /// As the header `Host` names it.
    pub host: String,
    /// Where connections go.
    pub address: SocketAddr,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl Site {
    /// Looks the address up.
    ///
    /// # Errors
    /// It is no address of plain HTTP, or has no such host.
    pub async fn new(url: &str) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).with_context(|| format!("{url} is no address"))?;
        ensure!(parsed.scheme() == "http", "{url}: only plain HTTP is spoken, as behind a proxy that ends TLS");
        let name = parsed.host_str().with_context(|| format!("{url} has no host"))?;
        let port = parsed.port_or_known_default().unwrap_or(80);
        let mut addresses = tokio::net::lookup_host((name.trim_matches(['[', ']']), port)).await?;
        let address = addresses.next().with_context(|| format!("{name} has no address"))?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host: format!("{name}:{port}"), address, http })
    }

    /// An access token.
    ///
    /// # Errors
    /// The login is refused.
    pub async fn login(&self, login: &Login) -> anyhow::Result<String> {
        let body = json!({"email": login.email, "password": login.password});
        let answer: Value = self.ask(|| self.http.post(format!("{}/v1/auth/login", self.url)).json(&body)).await?;
        let token = answer["access_token"].as_str().with_context(|| format!("{} cannot log in", login.email))?;
        Ok(token.to_owned())
    }

    /// Accounts that are registered anew, with a token each.
    ///
    /// # Errors
    /// An account is refused.
    pub async fn register(&self, number: u32) -> anyhow::Result<Vec<String>> {
        let run = uuid::Uuid::new_v4().simple();
        let one = async |n: u32| {
            let login = Login { email: format!("load-{run}-{n}@load.test"), password: format!("{run}-{n}") };
            let body = json!({"email": login.email, "password": login.password, "name": "Load"});
            let _: Value = self.ask(|| self.http.post(format!("{}/v1/auth/register", self.url)).json(&body)).await?;
            self.login(&login).await
        };
        futures::stream::iter((0..number).map(one)).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// An event that is there.
    ///
    /// # Errors
    /// There is none with this id, or it is not on sale.
    pub async fn event(&self, id: &str) -> anyhow::Result<Programme> {
        let event: Event = self.ask(|| self.http.get(format!("{}/v1/events/{id}", self.url))).await?;
        ensure!(event.state == EventState::Published, "the event {id} is not on sale");
        let hold = event.details.hold_seconds.map_or(DEFAULT_HOLD, |seconds| Duration::from_secs(seconds.into()));
        let paid = kind(&event)?.price.amount > 0;
        Ok(Programme { targets: vec![target(&event)?], paid, hold })
    }

    /// The load's own events: found by their titles, or made by the organizer.
    ///
    /// # Errors
    /// They cannot be listed, made or published.
    pub async fn events(&self, organizer: &Login, offer: Offer) -> anyhow::Result<Programme> {
        let token = self.login(organizer).await?;
        let mut there = self.own_events(&token).await?;
        let one = |number: u32| {
            let hold = offer.hold.saturating_sub(offer.stagger * number).max(Duration::from_secs(1));
            let title = title(number, offer.price, hold);
            let found = there.iter().position(|event| event.details.title == title).map(|at| there.swap_remove(at));
            (title, hold, found)
        };
        let wanted: Vec<_> = (0..offer.events).map(one).collect();
        let made = wanted.into_iter().map(async |(title, hold, found)| match found {
            Some(event) => target(&event),
            None => self.make(&token, &title, offer.price, hold).await,
        });
        let targets = futures::stream::iter(made).buffered(AT_ONCE).try_collect().await?;
        Ok(Programme { targets, paid: offer.price > 0, hold: offer.hold })
    }

    async fn own_events(&self, token: &str) -> anyhow::Result<Vec<Event>> {
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let at = format!("{}/v1/events?category={CATEGORY}&mine=true&limit=100{cursor}", self.url);
            let page: Page<Event> = self.ask(|| self.http.get(&at).bearer_auth(token)).await?;
            events.extend(page.items.into_iter().filter(|event| event.state == EventState::Published));
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(events),
            }
        }
    }

    async fn make(&self, token: &str, title: &str, price: i64, hold: Duration) -> anyhow::Result<Target> {
        let starts = Clock::system().now().plus(AHEAD);
        let body = details(title, price, hold, starts);
        let event: Event =
            self.ask(|| self.http.post(format!("{}/v1/events", self.url)).bearer_auth(token).json(&body)).await?;
        let at = format!("{}/v1/events/{}", self.url, event.id);
        let mut published: Event = self.ask(|| self.http.post(format!("{at}/publish")).bearer_auth(token)).await?;
        for _ in 0..TRIES {
            if published.state == EventState::Published {
                return target(&published);
            }
            tokio::time::sleep(PAUSE).await;
            published = self.ask(|| self.http.get(&at).bearer_auth(token)).await?;
        }
        bail!("the event {title:?} is not published in time")
    }

    /// What happened to a saga; nothing where it is not known.
    ///
    /// # Errors
    /// The token is not an operator's.
    pub async fn history(&self, operator: &str, saga: &str) -> anyhow::Result<Vec<HistoryEntry>> {
        let at = format!("{}/v1/sagas/{saga}/history", self.url);
        let page: Page<HistoryEntry> = self.ask(|| self.http.get(&at).bearer_auth(operator)).await?;
        Ok(page.items)
    }

    /// Asks until it is answered, waiting where there were too many requests or nobody was there.
    async fn ask<T: DeserializeOwned>(&self, request: impl Fn() -> RequestBuilder) -> anyhow::Result<T> {
        let mut tries = 0;
        loop {
            let response = request().send().await.context("the API cannot be reached")?;
            let status = response.status();
            if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) && tries < TRIES {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if !status.is_success() {
                let path = response.url().path().to_owned();
                bail!("{path} answers {status}: {}", response.text().await.unwrap_or_default());
            }
            return Ok(response.json().await?);
        }
    }
}

/// Tokens of a file, one a line.
///
/// # Errors
/// It cannot be read, or has none.
pub fn tokens_of(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let tokens: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(!tokens.is_empty(), "{} has no tokens", file.display());
    Ok(tokens)
}

/// What is booked of an event: the first ticket type without seats.
fn kind(event: &Event) -> anyhow::Result<&TicketType> {
    let kind = event.details.ticket_types.iter().find(|kind| kind.seats.is_empty());
    kind.with_context(|| format!("the event {} has no ticket type without seats", event.id))
}

fn target(event: &Event) -> anyhow::Result<Target> {
    Ok(Target { event: event.id.to_string(), ticket_type: kind(event)?.id.to_string() })
}

fn title(number: u32, price: i64, hold: Duration) -> String {
    format!("Load {number}: {price} cents, held {} s", hold.as_secs())
}

fn details(title: &str, price: i64, hold: Duration, starts: Timestamp) -> Value {
    json!({
        "title": title, "description": "", "category": CATEGORY,
        "starts_at": starts, "ends_at": starts.plus(LENGTH), "timezone": "UTC",
        "venue": {"name": "Everywhere", "city": "Vienna", "country": "AT"},
        "ticket_types": [{"name": "Any", "price": {"amount": price, "currency": "EUR"}, "quantity": QUANTITY}],
        "hold_seconds": hold.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_split_at_the_first_colon() {
        let login: Login = "a@b.test:pass:word".parse().unwrap();
        assert_eq!((login.email.as_str(), login.password.as_str()), ("a@b.test", "pass:word"));
        assert!("nobody".parse::<Login>().is_err());
    }

    #[test]
    fn titles_tell_events_of_other_prices_and_holds_apart() {
        let hold = Duration::from_secs(600);
        assert_ne!(title(1, 4_200, hold), title(1, 0, hold));
        assert_ne!(title(1, 0, hold), title(1, 0, Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn an_address_is_looked_up_and_must_be_plain_http() {
        eventicket_kit::tls::install();
        let site = Site::new("http://127.0.0.1:8080/").await.unwrap();
        assert_eq!((site.url.as_str(), site.host.as_str()), ("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert_eq!(site.address, "127.0.0.1:8080".parse().unwrap());
        assert!(Site::new("https://example.test").await.is_err());
        assert!(Site::new("nothing").await.is_err());
    }
}
