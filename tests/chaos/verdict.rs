//! What must hold when the faults and the load are over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use eventicket_contracts::sagas::BOOKING;
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::customers::{Answer, Shop};
use crate::site::{Site, TICKETS};
use crate::told::{Told, has_ended};

/// Every booking has ended within this, once no new ones come: a hold, a slow card, and what retries wait.
const END: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);
/// Bookings that are looked at side by side.
const SIDE_BY_SIDE: usize = 64;
/// States of a saga that has not ended, and of one that needs somebody.
const UNENDED: [&str; 6] = ["running", "waiting", "held", "paused", "compensating", "attention"];

/// Sees whether everything has ended, and well; what is wrong. `letters` are dead letters that were seen before.
pub async fn reach(
    site: &Site,
    shop: &Arc<Shop>,
    told: &mut Vec<Told>,
    letters: Vec<Value>,
) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + END;
    let looks = stream::iter(std::mem::take(told)).map(|one| at_last(shop, one, deadline));
    *told = looks.buffer_unordered(SIDE_BY_SIDE).collect().await;
    let mut wrong: Vec<String> = told.iter().flat_map(contradictions).collect();
    wrong.extend(sagas(site, deadline).await?);
    wrong.extend(journal(site, told).await?);
    wrong.extend(capacity(site, shop, told).await?);
    wrong.extend(letters.iter().chain(&letters_of(site).await?).map(|letter| format!("a dead letter: {letter}")));
    wrong.extend(audit(site).await?);
    Ok(wrong)
}

/// Looks at a booking until it has ended; one that was never answered is asked for again, with its key.
async fn at_last(shop: &Shop, mut told: Told, deadline: Instant) -> Told {
    loop {
        let request = told.id.map_or_else(|| shop.booking(told.number), |id| shop.look(told.number, id));
        match shop.ask(request).await {
            Answer::Booking(booking) if has_ended(&booking) || Instant::now() > deadline => {
                told.at_last(Some(&booking));
                return told;
            }
            Answer::Booking(booking) => told.hear(&booking),
            Answer::NotFound => {
                told.at_last(None);
                return told;
            }
            Answer::Strange(what) => {
                told.strange(what);
                return told;
            }
            Answer::NotNow(_) | Answer::Conflict if Instant::now() > deadline => {
                told.strange("no answer until the end".to_owned());
                return told;
            }
            Answer::NotNow(_) | Answer::Conflict => {}
        }
        sleep(LOOK).await;
    }
}

fn contradictions(told: &Told) -> impl Iterator<Item = String> {
    let about = match told.id {
        Some(id) => format!("booking {id} ({:?}, number {})", told.kind, told.number),
        None => format!("booking number {} ({:?})", told.number, told.kind),
    };
    told.wrong.iter().map(move |what| format!("{about}: {what}"))
}

/// No saga runs, and none is marked for an operator.
async fn sagas(site: &Site, deadline: Instant) -> anyhow::Result<Vec<String>> {
    let operator = site.login("operator@demo.test").await?;
    loop {
        let mut left = Vec::new();
        for state in UNENDED {
            let page = site.get(&operator, &format!("/v1/sagas?state={state}")).await?;
            left.extend(
                page["items"]
                    .as_array()
                    .context("a list of sagas")?
                    .iter()
                    .map(|saga| format!("a saga is left: {saga}")),
            );
        }
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        sleep(LOOK).await;
    }
}

/// Each booking that the journal knows was asked for by somebody, and by one.
async fn journal(site: &Site, told: &[Told]) -> anyhow::Result<Option<String>> {
    let mut journal = site.database(eventicket_orchestrator::DATABASE).await?;
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sagas WHERE definition = $1").bind(BOOKING);
    let (known, count) = (told.iter().filter(|told| told.id.is_some()).count(), count.fetch_one(&mut journal).await?);
    let agree = i64::try_from(known)? == count;
    Ok((!agree).then(|| format!("the journal has {count} bookings, and clients know of {known}")))
}

/// What is left of the event is what clients were not told that they have.
async fn capacity(site: &Site, shop: &Shop, told: &[Told]) -> anyhow::Result<Option<String>> {
    use eventicket_contracts::sagas::BookingStatus::Confirmed;
    let sold: u32 = told.iter().filter(|one| one.end() == Some(Confirmed)).map(|one| one.kind.quantity()).sum();
    let availability = site.get("", &format!("/v1/events/{}/availability", shop.event.0)).await?;
    let available = availability["ticket_types"][0]["available"].as_i64().context("what is available")?;
    let agree = available == i64::from(TICKETS - sold);
    Ok((!agree).then(|| format!("{available} of {TICKETS} tickets are left, and clients have {sold}")))
}

/// The dead letters that are listed now.
pub async fn letters_of(site: &Site) -> anyhow::Result<Vec<Value>> {
    let (_, letters) = site.json(&["dead", "ls", "--limit", "10000"]).await?;
    Ok(letters.as_array().context("a list of dead letters")?.clone())
}

/// Whatever the audit finds, warnings too: the faults explain none of them.
async fn audit(site: &Site) -> anyhow::Result<Vec<String>> {
    let (exit, audit) = site.json(&["audit"]).await?;
    let mut wrong: Vec<String> =
        audit["findings"].as_array().into_iter().flatten().map(|f| format!("the audit: {f}")).collect();
    if exit != 0 && wrong.is_empty() {
        wrong.push(format!("the audit ended with {exit}: {audit}"));
    }
    Ok(wrong)
}
