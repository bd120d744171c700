//! Customers for load tests, without the cost of a sign-in each.

use std::time::Duration;

use eventicket_contracts::identity::{Role, User};
use eventicket_contracts::text::Email;
use eventicket_contracts::{Clock, CustomerId};
use eventicket_kit::{Settings, database};

use crate::keys::KeyRing;
use crate::passwords::Passwords;
use crate::store::{NewUser, Store};
use crate::{DATABASE, MIGRATOR, claims};

/// Life of their tokens: longer than a run.
const LIFE: Duration = Duration::from_secs(3600);
/// Accounts of one transaction.
const CHUNK: usize = 500;

/// Access tokens of the customers `load-<n>@load.test`, who are made where they are not there. Nobody knows their
/// password: whoever can call this has the database and the keys anyway.
///
/// # Errors
/// The database cannot be reached.
pub async fn load_customers(settings: &Settings, count: u32) -> anyhow::Result<Vec<String>> {
    let store = Store::new(database(settings, DATABASE, &MIGRATOR).await?);
    let clock = Clock::system();
    let keys = KeyRing::new(store.clone(), settings, clock.clone())?;
    keys.rotate().await?;
    let password = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let password_hash = Passwords::new()?.hash(password).await?;
    let emails: Vec<Email> = (1..=count).filter_map(|n| Email::parse(&format!("load-{n}@load.test"))).collect();
    let (now, roles) = (clock.now(), vec![Role::Customer]);
    let new = |email: &Email| {
        let (id, name, roles) = (CustomerId::fresh(), "Load".to_owned(), roles.clone());
        let user = User { id, email: email.clone(), name, roles, version: 1, created_at: now };
        NewUser { user, password_hash: password_hash.clone() }
    };
    let mut tokens = Vec::with_capacity(emails.len());
    let signer = keys.signer().await?;
    for chunk in emails.chunks(CHUNK) {
        store.insert_users(&chunk.iter().map(new).collect::<Vec<_>>(), now).await?;
        for user in store.ids_of(chunk).await? {
            tokens.push(signer.sign(&claims(user, roles.clone(), now, LIFE))?);
        }
    }
    Ok(tokens)
}
