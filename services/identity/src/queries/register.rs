//! Query `register`: makes an account of a customer.

use std::sync::Arc;

use eventicket_contracts::identity::{Idempotency, Register, Role, User};
use eventicket_contracts::{CustomerId, codes};
use eventicket_nats::QueryError;

use super::{invalid, password_error, unavailable};
use crate::Identity;
use crate::account::{check_name, check_password};
use crate::store::{NewUser, Registered, Registration};

pub(super) async fn answer(identity: Arc<Identity>, register: Register) -> Result<User, QueryError> {
    let Register { email, password, name, idempotency } = register;
    let errors: Vec<_> = check_name(&name).into_iter().chain(check_password(&password)).collect();
    if !errors.is_empty() {
        return Err(invalid(&errors));
    }
    if let Some(key) = &idempotency
        && let Some(known) = known(&identity, key).await?
    {
        return repeat(known, key);
    }
    let password_hash = identity.passwords.hash(password).await.map_err(password_error)?;
    let now = identity.clock.now();
    let roles = vec![Role::Customer];
    let user = User { id: CustomerId::fresh(), email, name, roles, version: 1, created_at: now };
    let new = NewUser { user, password_hash };
    match (identity.store.register(&new, idempotency.as_ref(), now).await.map_err(unavailable)?, &idempotency) {
        (Registered::New, _) => {
            identity.wake_relay.notify_one();
            Ok(new.user)
        }
        (Registered::KeyKnown, Some(key)) => match known(&identity, key).await? {
            Some(known) => repeat(known, key),
            None => Err(unavailable(anyhow::anyhow!("an idempotency key without its account"))),
        },
        (Registered::EmailTaken | Registered::KeyKnown, _) => {
            Err(QueryError::new(codes::EMAIL_TAKEN, "this address has an account"))
        }
    }
}

async fn known(identity: &Identity, key: &Idempotency) -> Result<Option<Registration>, QueryError> {
    identity.store.registration(&key.key, identity.clock.now()).await.map_err(unavailable)
}

fn repeat(known: Registration, key: &Idempotency) -> Result<User, QueryError> {
    if known.fingerprint == key.fingerprint {
        Ok(known.user)
    } else {
        Err(QueryError::new(codes::KEY_REUSED, "this idempotency key came before, with another body"))
    }
}
