//! What is ordered of a run, and how it is prepared.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use eventicket_identity::load_customers;

use super::mix::Mix;
use super::site::{self, Login, Offer, Programme, Site};
use super::trial::{Local, Sending, Trial};
use crate::platform::Platform;

/// A customer may send 50 requests a second: with a customer for each ten, nobody comes near it.
const RATE_OF_A_CUSTOMER: f64 = 10.0;
/// Customers at least.
const FEW: f64 = 1_000.0;
/// Accounts that are registered over REST at most: each costs the platform the hashing of a password, twice.
const REGISTERED: u32 = 200;

/// What is ordered.
#[derive(Clone, Debug)]
pub struct Order {
    /// The API; the platform that runs here where none is given.
    pub url: Option<String>,
    /// File with access tokens of customers.
    pub tokens: Option<PathBuf>,
    /// Customers; enough for the rate where it is not given.
    pub customers: Option<u32>,
    /// The highest rate.
    pub rate: f64,
    /// An event that is there.
    pub event: Option<String>,
    /// Events that are made where they are missing.
    pub offer: Offer,
    /// Who makes them.
    pub organizer: Login,
    /// Who reads histories.
    pub operator: Login,
    /// What customers do.
    pub mix: Mix,
    /// Bookings of one event before the next one's turn.
    pub block: u64,
    /// Most connections.
    pub connections: usize,
}

impl Order {
    /// Finds the platform, its events and customers.
    ///
    /// # Errors
    /// No platform runs, or its events or customers cannot be made.
    pub async fn prepare(&self, home: &Path) -> anyhow::Result<Trial> {
        let local = self.local(home)?;
        let url = self.url.clone().or_else(|| local.as_ref().map(|local| local.platform.gateway_url.clone()));
        let site = Site::new(&url.context("no address")?).await?;
        let tokens = self.customers(&site, local.as_ref()).await?;
        let programme = self.programme(&site).await?;
        let sending = Sending { mix: self.mix, block: self.block, connections: self.connections };
        Trial::new(site, local, programme, self.operator.clone(), &tokens, sending).await
    }

    /// The platform that runs here, unless another one's address is given.
    fn local(&self, home: &Path) -> anyhow::Result<Option<Local>> {
        let platform = match (&self.url, Platform::read(home)) {
            (None, platform) => platform?,
            (Some(url), Ok(platform)) if platform.gateway_url == url.trim_end_matches('/') => platform,
            (Some(_), _) => return Ok(None),
        };
        let settings = platform.settings(home)?;
        Ok(Some(Local { home: home.to_owned(), platform, settings }))
    }

    async fn customers(&self, site: &Site, local: Option<&Local>) -> anyhow::Result<Vec<String>> {
        if let Some(file) = &self.tokens {
            return site::tokens_of(file);
        }
        let number = self.customers.unwrap_or((self.rate / RATE_OF_A_CUSTOMER).max(FEW) as u32);
        match local {
            Some(local) => load_customers(&local.settings, number).await,
            None => site.register(number.min(REGISTERED)).await,
        }
    }

    async fn programme(&self, site: &Site) -> anyhow::Result<Programme> {
        match &self.event {
            Some(id) => site.event(id).await,
            None => site.events(&self.organizer, self.offer).await,
        }
    }

    /// The same with another rate, for which there are customers enough.
    pub fn at(&self, rate: f64) -> Self {
        Self { rate, ..self.clone() }
    }

    /// The same with so many events.
    pub fn on(&self, events: u32) -> Self {
        Self { offer: Offer { events, ..self.offer }, ..self.clone() }
    }

    /// The same for free.
    pub fn free(&self) -> Self {
        Self { offer: Offer { price: 0, ..self.offer }, ..self.clone() }
    }

    /// The same whose bookings wait for a payment method and all expire in one second, `hold` after the first of them.
    pub fn waiting(&self, seconds: u32, hold: Duration) -> Self {
        let offer = Offer { events: seconds, hold, stagger: Duration::from_secs(1), ..self.offer };
        // One event a second, each with a hold that is a second shorter than that of the one before it.
        Self { offer, mix: Mix::Waiting, block: self.rate as u64, ..self.clone() }
    }
}
