//! Accounts for a platform that has none: demo users, the first administrator.

use anyhow::{Context as _, bail};
use eventicket_contracts::identity::{Role, User};
use eventicket_contracts::text::Email;
use eventicket_contracts::{Clock, CustomerId};
use eventicket_kit::{FieldError, Settings, database};

use crate::account::{check_name, check_password};
use crate::passwords::Passwords;
use crate::store::{NewUser, Store};
use crate::{DATABASE, MIGRATOR};

/// An account to begin with.
#[derive(Clone)]
pub struct SeedUser {
    /// The login name.
    pub email: String,
    /// 8 to 128 characters.
    pub password: String,
    /// As others see it.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
}

/// Makes these accounts, all or none, where there is no account yet; tells whether it did.
///
/// # Errors
/// The database cannot be reached, or an account is not acceptable.
pub async fn seed(settings: &Settings, users: &[SeedUser]) -> anyhow::Result<bool> {
    let store = Store::new(database(settings, DATABASE, &MIGRATOR).await?);
    if store.has_users().await? {
        return Ok(false);
    }
    let (passwords, now) = (Passwords::new()?, Clock::system().now());
    let mut new = Vec::with_capacity(users.len());
    for SeedUser { email, password, name, roles } in users.iter().cloned() {
        if let Some(FieldError { detail, .. }) = check_name(&name).or_else(|| check_password(&password)) {
            bail!("an account is not acceptable: {detail}");
        }
        let email = Email::parse(&email).context("an account's address is not valid")?;
        let password_hash = passwords.hash(password).await?;
        let user = User { id: CustomerId::fresh(), email, name, roles, version: 1, created_at: now };
        new.push(NewUser { user, password_hash });
    }
    Ok(store.seed(&new, now).await?)
}

/// The id of the account with this address, for tools that run beside the database.
///
/// # Errors
/// The database cannot be reached.
pub async fn account_id(settings: &Settings, email: &str) -> anyhow::Result<Option<CustomerId>> {
    let Some(email) = Email::parse(email) else { return Ok(None) };
    let store = Store::new(database(settings, DATABASE, &MIGRATOR).await?);
    Ok(store.ids_of(&[email]).await?.pop())
}
