//! One try to deliver one mail: asks for what it says and to whom, composes it, hands it to the mail server.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use eventicket_contracts::bookings::{TICKETS, Ticket, TicketsQuery};
use eventicket_contracts::envelope::Key;
use eventicket_contracts::identity::{USERS, User};
use eventicket_contracts::notifications::BookingMail;
use eventicket_contracts::subjects::Service;
use eventicket_contracts::{CustomerId, Timestamp};
use eventicket_kit::Settings;
use eventicket_nats::{Nats, QueryFailure};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::{Error as SmtpError, PoolConfig};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use sha2::{Digest, Sha256};

use crate::mailer::CONCURRENT;
use crate::store::Claim;
use crate::templates::{self, Rendered, Template};

/// The service that knows addresses and names.
const IDENTITY: &str = "identity";
/// The whole of a try's talk with the mail server.
pub(crate) const SMTP: Duration = Duration::from_secs(20);
/// Connections to the mail server are kept so long for the next mail.
const KEEP_CONNECTION: Duration = Duration::from_secs(30);
/// Refusals of the sender, by RFC 4954, and not of the mail: authentication is required, fails, or is too weak.
const OURS: [u16; 4] = [530, 534, 535, 538];

/// Why a mail did not leave; the reasons hold no address and no name.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    /// Another try may succeed.
    #[error("{0}")]
    Later(String),
    /// None will.
    #[error("{0}")]
    Never(String),
}

/// Sends mails.
pub(crate) struct Outgoing {
    nats: Nats,
    smtp: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Outgoing {
    pub fn new(nats: &Nats, settings: &Settings) -> anyhow::Result<Self> {
        let pool = PoolConfig::new().max_size(CONCURRENT as u32).idle_timeout(KEEP_CONNECTION);
        let smtp = AsyncSmtpTransport::<Tokio1Executor>::from_url(&settings.smtp_url)
            .context("EVENTICKET_SMTP_URL cannot be read")?
            .timeout(Some(SMTP))
            .pool_config(pool)
            .build();
        let from = settings.mail_from.parse().context("EVENTICKET_MAIL_FROM cannot be read")?;
        Ok(Self { nats: nats.clone(), smtp, from })
    }

    /// The users of these claims, by id, as far as they exist.
    pub async fn users(&self, claims: &[Claim]) -> Result<HashMap<CustomerId, User>, Failure> {
        let ids: HashSet<CustomerId> = claims.iter().map(|claim| claim.customer).collect();
        let ids: Vec<CustomerId> = ids.into_iter().collect();
        let users: Vec<User> =
            self.nats.query(IDENTITY, USERS, &ids).await.map_err(|failure| unanswered(IDENTITY, &failure))?;
        Ok(users.into_iter().map(|user| (user.id, user)).collect())
    }

    /// Sends a mail to its customer, or says why not.
    pub async fn send(&self, claim: &Claim, user: Option<&User>) -> Result<(), Failure> {
        let user = user.ok_or_else(|| Failure::Never("there is no such user".to_owned()))?;
        let rendered = match templates::parse(&claim.template, &claim.data).map_err(never)? {
            Template::BookingConfirmed(mail) => {
                let tickets = self.tickets(claim, &mail).await?;
                templates::booking_confirmed(&user.name, &mail, &tickets)
            }
            Template::BookingRefunded(mail) => templates::booking_refunded(&user.name, &mail),
        };
        let message = self.compose(claim, user, rendered)?;
        match tokio::time::timeout(SMTP, self.smtp.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(Failure::Later("the mail server did not answer in time".to_owned())),
        }
    }

    /// Ends the connections that are kept.
    pub async fn close(&self) {
        self.smtp.shutdown().await;
    }

    async fn tickets(&self, claim: &Claim, mail: &BookingMail) -> Result<Vec<Ticket>, Failure> {
        let bookings = Service::BOOKINGS.name();
        let query = TicketsQuery { booking: mail.booking, customer: Some(claim.customer) };
        let tickets: Vec<Ticket> =
            self.nats.query(bookings, TICKETS, &query).await.map_err(|failure| unanswered(bookings, &failure))?;
        if tickets.is_empty() {
            return Err(Failure::Later("the booking has no tickets yet".to_owned()));
        }
        Ok(tickets)
    }

    fn compose(&self, claim: &Claim, user: &User, rendered: Rendered) -> Result<Message, Failure> {
        let address: Address = user.email.as_str().parse().map_err(|_| never("the address cannot be used"))?;
        let name: String = user.name.chars().filter(|c| !c.is_control()).collect();
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(Some(name), address))
            .subject(rendered.subject)
            .date(time(claim.created_at))
            .message_id(Some(message_id(&claim.key, self.from.email.domain())))
            .multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html))
            .map_err(|_| never("the message cannot be composed"))
    }
}

/// The same on every try of a delivery, so that mailboxes keep one.
fn message_id(key: &Key, domain: &str) -> String {
    let mut id = "<".to_owned();
    for byte in Sha256::digest(key.to_string().as_bytes()) {
        let _ = write!(id, "{byte:02x}");
    }
    let _ = write!(id, "@{domain}>");
    id
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.millis()).unwrap_or(0))
}

fn never(reason: impl ToString) -> Failure {
    Failure::Never(reason.to_string())
}

/// Of what the service said only its code is kept: its text may hold anything.
fn unanswered(service: &str, failure: &QueryFailure) -> Failure {
    let why = match failure {
        QueryFailure::Refused(error) => error.code.as_str(),
        QueryFailure::TimedOut => "no answer in time",
        QueryFailure::NobodyAnswers => "it does not run",
        QueryFailure::Disconnected => "no connection",
        QueryFailure::Malformed(_) => "its answer cannot be read",
    };
    Failure::Later(format!("{service} cannot be asked: {why}"))
}

/// Of what the mail server said only its code is kept: its text often holds the address.
fn refused(error: &SmtpError) -> Failure {
    match error.status().map(u16::from) {
        Some(code) if error.is_permanent() && !OURS.contains(&code) => {
            Failure::Never(format!("the mail server refused it with {code}"))
        }
        Some(code) => Failure::Later(format!("the mail server answered {code}")),
        None if error.is_timeout() => Failure::Later("the mail server did not answer in time".to_owned()),
        None if error.is_tls() => Failure::Later("the connection to the mail server cannot be secured".to_owned()),
        None => Failure::Later("the mail server cannot be reached".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_the_deliverys_own_and_stays() {
        let key: Key = "01936f0e-8f4e-7cc2-9a56-0242ac120002:NOTIFY:1".parse().unwrap();
        let id = message_id(&key, "eventicket.test");
        assert_eq!(id, message_id(&key, "eventicket.test"));
        assert_eq!(id.len(), 64 + "<@eventicket.test>".len());
        assert_ne!(id, message_id(&Key { round: 2, ..key }, "eventicket.test"));
    }
}
