//! The configuration of all processes, read from the environment. [`VARIABLES`] is the one table of names.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::seal::SealKeys;

/// The configuration; each field is described at its variable in [`VARIABLES`].
#[derive(Clone, PartialEq)]
#[allow(missing_docs)] // said once, in the table
pub struct Settings {
    pub database_url: String,
    pub database_prefix: String,
    pub database_connections: u32,
    pub nats_url: String,
    pub gateway_listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    pub public_url: String,
    pub rates: Rates,
    pub access_token_seconds: u32,
    pub idempotency_key: String,
    pub seal_keys: String,
    pub payment_gateway_url: String,
    pub payment_gateway_key: String,
    pub payment_webhook_secret: String,
    pub payment_webhook_listen: Option<SocketAddr>,
    pub payment_call_seconds: u32,
    pub smtp_url: String,
    pub mail_from: String,
    pub mail_give_up_hours: u32,
    pub mail_per_second: u32,
}

/// Limits of requests at the gateway.
#[derive(Clone, Debug, PartialEq, Default)]
#[allow(missing_docs)] // said once, in the table
pub struct Rates {
    pub signed_in_per_second: u32,
    pub signed_in_burst: u32,
    pub address_per_second: u32,
    pub address_burst: u32,
}

/// An environment variable and the setting that it fills.
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The value where it is not set; `None` where it must be.
    pub default: Option<&'static str>,
    /// Whether its value must not be shown.
    pub secret: bool,
    /// What it means: unit, form.
    pub doc: &'static str,
    read: fn(&mut Settings, &str) -> anyhow::Result<()>,
    write: fn(&Settings) -> String,
}

macro_rules! variable {
    ($name:literal, $default:expr, $kind:ident, $($field:ident).+, $doc:literal) => {
        Variable {
            name: $name,
            default: $default,
            secret: variable!(@ $kind),
            doc: $doc,
            read: |settings, text| { settings.$($field).+ = Form::read(text)?; Ok(()) },
            write: |settings| Form::write(&settings.$($field).+),
        }
    };
    (@ open) => { false };
    (@ secret) => { true };
}

/// Every variable that EvenTicket reads, beside `RUST_LOG`, `EVENTICKET_LOG`
/// (`json` or `text`) and OpenTelemetry's own `OTEL_*`.
pub const VARIABLES: &[Variable] = &[
    variable!(
        "DATABASE_URL",
        None,
        secret,
        database_url,
        "PostgreSQL server, as postgres://user:password@host:5432; each service has a database of its own name there"
    ),
    variable!(
        "EVENTICKET_DATABASE_PREFIX",
        Some(""),
        open,
        database_prefix,
        "put before the name of each service's database, where several installations share a server"
    ),
    variable!(
        "EVENTICKET_DATABASE_CONNECTIONS",
        Some("8"),
        open,
        database_connections,
        "most connections of one service's replica to its database"
    ),
    variable!(
        "NATS_URL",
        None,
        secret,
        nats_url,
        "NATS servers with JetStream, as nats://host:4222, several separated by commas"
    ),
    variable!(
        "EVENTICKET_GATEWAY_LISTEN",
        Some("127.0.0.1:8080"),
        open,
        gateway_listen,
        "address and port of the REST API"
    ),
    variable!(
        "EVENTICKET_METRICS_LISTEN",
        Some(""),
        open,
        metrics_listen,
        "address and port of /healthz, /readyz and /metrics of a process that runs single services; none where empty"
    ),
    variable!(
        "EVENTICKET_PUBLIC_URL",
        Some("http://127.0.0.1:8080"),
        open,
        public_url,
        "address under which customers reach the gateway, without a slash at its end; in links and in mails"
    ),
    variable!(
        "EVENTICKET_RATE_SIGNED_IN",
        Some("50"),
        open,
        rates.signed_in_per_second,
        "requests a second of one signed-in customer"
    ),
    variable!(
        "EVENTICKET_RATE_SIGNED_IN_BURST",
        Some("100"),
        open,
        rates.signed_in_burst,
        "requests at once of one signed-in customer"
    ),
    variable!(
        "EVENTICKET_RATE_ADDRESS",
        Some("200"),
        open,
        rates.address_per_second,
        "requests a second of one address that is not signed in"
    ),
    variable!(
        "EVENTICKET_RATE_ADDRESS_BURST",
        Some("400"),
        open,
        rates.address_burst,
        "requests at once of one address that is not signed in"
    ),
    variable!("EVENTICKET_ACCESS_TOKEN_SECONDS", Some("900"), open, access_token_seconds, "life of an access token"),
    variable!(
        "EVENTICKET_IDEMPOTENCY_KEY",
        None,
        secret,
        idempotency_key,
        "key of the hash of request bodies that is kept with an Idempotency-Key: base64, 32 bytes or more"
    ),
    variable!(
        "EVENTICKET_SEAL_KEYS",
        None,
        secret,
        seal_keys,
        "keys that seal payment methods, as <id>:<base64 of 32 bytes>, separated by commas: the first seals, all open"
    ),
    variable!(
        "EVENTICKET_PAYMENT_GATEWAY_URL",
        None,
        open,
        payment_gateway_url,
        "base address of the payment gateway, which speaks Stripe's PaymentIntents and Refunds"
    ),
    variable!(
        "EVENTICKET_PAYMENT_GATEWAY_KEY",
        None,
        secret,
        payment_gateway_key,
        "secret key for the payment gateway"
    ),
    variable!(
        "EVENTICKET_PAYMENT_WEBHOOK_SECRET",
        None,
        secret,
        payment_webhook_secret,
        "secret that signs the payment gateway's webhooks"
    ),
    variable!(
        "EVENTICKET_PAYMENT_WEBHOOK_LISTEN",
        Some(""),
        open,
        payment_webhook_listen,
        "address and port where payments takes the payment gateway's webhooks, at /webhooks/payments; none where empty"
    ),
    variable!(
        "EVENTICKET_PAYMENT_CALL_SECONDS",
        Some("10"),
        open,
        payment_call_seconds,
        "seconds after which a call to the payment gateway without an answer is made again, with the same key"
    ),
    variable!(
        "EVENTICKET_SMTP_URL",
        Some("smtp://127.0.0.1:2525"),
        secret,
        smtp_url,
        "mail server, as smtps://user:password@host:465, smtp://host:587?tls=required, or smtp://127.0.0.1:2525 in plain text"
    ),
    variable!(
        "EVENTICKET_MAIL_FROM",
        Some("EvenTicket <tickets@eventicket.test>"),
        open,
        mail_from,
        "sender of all mail"
    ),
    variable!(
        "EVENTICKET_MAIL_GIVE_UP_HOURS",
        Some("96"),
        open,
        mail_give_up_hours,
        "hours after which a mail that cannot be delivered is given up"
    ),
    variable!(
        "EVENTICKET_MAIL_PER_SECOND",
        Some("100"),
        open,
        mail_per_second,
        "most mails a second of one replica, so that mail never slows bookings"
    ),
];

impl Settings {
    /// Reads the environment; the error names every variable that is missing, or the first that cannot be read.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The same from anywhere: `get` tells a variable's value by its name.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let mut settings = Self::blank();
        let mut missing = Vec::new();
        for variable in VARIABLES {
            let given = get(variable.name);
            let Some(text) = given.as_deref().or(variable.default) else {
                missing.push(variable.name);
                continue;
            };
            (variable.read)(&mut settings, text.trim()).with_context(|| format!("{} cannot be read", variable.name))?;
        }
        if !missing.is_empty() {
            bail!("these environment variables must be set: {}", missing.join(", "));
        }
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        SealKeys::parse(&self.seal_keys).context("EVENTICKET_SEAL_KEYS cannot be read")?;
        let key = STANDARD.decode(&self.idempotency_key).context("EVENTICKET_IDEMPOTENCY_KEY is not base64")?;
        if key.len() < 32 {
            bail!("EVENTICKET_IDEMPOTENCY_KEY has {} bytes, less than 32", key.len());
        }
        let Rates { signed_in_per_second, signed_in_burst, address_per_second, address_burst } = self.rates;
        if [signed_in_per_second, signed_in_burst, address_per_second, address_burst].contains(&0) {
            bail!("EVENTICKET_RATE_* must be above zero: rate limits cannot be switched off");
        }
        if self.payment_call_seconds == 0 {
            bail!("EVENTICKET_PAYMENT_CALL_SECONDS must be above zero");
        }
        if self.mail_per_second == 0 {
            bail!("EVENTICKET_MAIL_PER_SECOND must be above zero");
        }
        if self.database_connections < 2 {
            bail!("EVENTICKET_DATABASE_CONNECTIONS must be 2 or more");
        }
        Ok(())
    }

    /// As the environment of a child process, which reads the same settings from it.
    pub fn to_env(&self) -> Vec<(&'static str, String)> {
        VARIABLES.iter().map(|variable| (variable.name, (variable.write)(self))).collect()
    }

    /// Settings for one machine: defaults, with fresh secrets.
    pub fn development(database_url: &str, nats_url: &str) -> Self {
        let mut settings = Self::blank();
        for variable in VARIABLES {
            if let Some(text) = variable.default {
                // The test below reads every default.
                let _ = (variable.read)(&mut settings, text);
            }
        }
        database_url.clone_into(&mut settings.database_url);
        nats_url.clone_into(&mut settings.nats_url);
        settings.idempotency_key = STANDARD.encode(rand::random::<[u8; 32]>());
        settings.seal_keys = SealKeys::generate();
        "http://127.0.0.1:8081".clone_into(&mut settings.payment_gateway_url);
        settings.payment_gateway_key = format!("sk_test_{:032x}", rand::random::<u128>());
        settings.payment_webhook_secret = format!("whsec_{:032x}", rand::random::<u128>());
        settings
    }

    fn blank() -> Self {
        Self {
            database_url: String::new(),
            database_prefix: String::new(),
            database_connections: 0,
            nats_url: String::new(),
            gateway_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics_listen: None,
            public_url: String::new(),
            rates: Rates::default(),
            access_token_seconds: 0,
            idempotency_key: String::new(),
            seal_keys: String::new(),
            payment_gateway_url: String::new(),
            payment_gateway_key: String::new(),
            payment_webhook_secret: String::new(),
            payment_webhook_listen: None,
            payment_call_seconds: 0,
            smtp_url: String::new(),
            mail_from: String::new(),
            mail_give_up_hours: 0,
            mail_per_second: 0,
        }
    }
}

/// Hides what is secret, so that settings can be logged.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for variable in VARIABLES {
            map.entry(&variable.name, &if variable.secret { "(secret)".to_owned() } else { (variable.write)(self) });
        }
        map.finish()
    }
}

/// How a setting stands in the environment.
trait Form: Sized {
    fn read(text: &str) -> anyhow::Result<Self>;
    fn write(&self) -> String;
}

impl Form for String {
    fn read(text: &str) -> anyhow::Result<Self> {
        Ok(text.to_owned())
    }
    fn write(&self) -> String {
        self.clone()
    }
}

impl Form for u32 {
    fn read(text: &str) -> anyhow::Result<Self> {
        text.parse().context("not a whole number")
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Form for SocketAddr {
    fn read(text: &str) -> anyhow::Result<Self> {
        text.parse().context("not an address with a port, as 127.0.0.1:8080")
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl<T: Form> Form for Option<T> {
    fn read(text: &str) -> anyhow::Result<Self> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }
    fn write(&self) -> String {
        self.as_ref().map(T::write).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn environment() -> HashMap<&'static str, String> {
        Settings::development("postgres://u:p@h:5432", "nats://h:4222").to_env().into_iter().collect()
    }

    #[test]
    fn a_child_reads_what_its_parent_writes() {
        let mut settings = Settings::development("postgres://u:p@h:5432", "nats://h:4222");
        settings.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 5050)));
        settings.rates.address_burst = 7;
        let env: HashMap<_, _> = settings.to_env().into_iter().collect();
        assert_eq!(Settings::read(|name| env.get(name).cloned()).unwrap(), settings);
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let error = Settings::read(|_| None).unwrap_err().to_string();
        for variable in VARIABLES {
            assert_eq!(error.contains(variable.name), variable.default.is_none(), "{}", variable.name);
        }
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (name, bad) in [
            ("EVENTICKET_GATEWAY_LISTEN", "8080"),
            ("EVENTICKET_SEAL_KEYS", "k:short"),
            ("EVENTICKET_IDEMPOTENCY_KEY", "c2hvcnQ="),
            ("EVENTICKET_RATE_ADDRESS", "0"),
            ("EVENTICKET_ACCESS_TOKEN_SECONDS", "soon"),
        ] {
            let mut env = environment();
            env.insert(name, bad.to_owned());
            let error = Settings::read(|name| env.get(name).cloned()).unwrap_err().to_string();
            assert!(error.contains(&name[..15]), "{name}: {error}");
        }
    }

    #[test]
    fn names_are_unique_and_secrets_stay_hidden() {
        assert_eq!(VARIABLES.iter().map(|v| v.name).collect::<HashSet<_>>().len(), VARIABLES.len());
        let settings = Settings::development("postgres://u:hunter2@h", "nats://h:4222");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && !shown.contains(&settings.seal_keys), "{shown}");
        assert!(shown.contains("tickets@eventicket.test"));
    }
}
