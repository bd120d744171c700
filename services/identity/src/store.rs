//! The service's tables: the only file with SQL.

use std::time::Duration;

use eventicket_contracts::envelope::DomainEvent;
use eventicket_contracts::identity::{Idempotency, Role, UpdateUser, User};
use eventicket_contracts::text::Email;
use eventicket_contracts::{CustomerId, Timestamp};
use eventicket_nats::outbox::{self, NewEvent};
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Postgres, Row, Transaction};
use uuid::Uuid;

use crate::sessions::{REFRESH_LIFE, StoredToken, TokenHash};

/// The service's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(86_400);
/// Most rows that one sweep deletes.
const SWEEP: i64 = 1000;
/// Advisory locks of the whole database.
const LOCK_KEYS: i64 = 1;
const LOCK_SEED: i64 = 2;

#[derive(Clone)]
pub(crate) struct Store(PgPool);

/// An account to be made.
pub(crate) struct NewUser {
    pub user: User,
    pub password_hash: String,
}

/// What is stored of a key that came before.
pub(crate) struct Registration {
    pub fingerprint: String,
    pub user: User,
}

/// What became of a registration.
pub(crate) enum Registered {
    New,
    EmailTaken,
    /// The idempotency key was faster.
    KeyKnown,
}

/// What a sign-in is checked against.
pub(crate) struct Credentials {
    pub user: CustomerId,
    pub roles: Vec<Role>,
    pub password_hash: String,
}

/// A signing key as it is stored.
pub(crate) struct KeyRow {
    pub id: Uuid,
    /// JWK.
    pub public: String,
    /// Sealed.
    pub private: String,
    pub active_from: Timestamp,
    pub created_at: Timestamp,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// The registration that came with this idempotency key.
    pub async fn registration(&self, key: &str, now: Timestamp) -> Result<Option<Registration>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT r.fingerprint, u.id, u.email, u.name, u.roles, u.version, u.created_at
             FROM registrations r JOIN users u ON u.id = r.user_id WHERE r.key = $1 AND r.created_at > $2",
        )
        .bind(key)
        .bind(before(now, KEY_LIFE))
        .fetch_optional(&self.0)
        .await?;
        row.map(|row| Ok(Registration { fingerprint: row.try_get("fingerprint")?, user: user(&row)? })).transpose()
    }

    /// Makes the account, its idempotency key and its event in one transaction.
    pub async fn register(
        &self,
        new: &NewUser,
        key: Option<&Idempotency>,
        now: Timestamp,
    ) -> Result<Registered, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        if let Some(key) = key
            && !claim(&mut tx, key, new.user.id, now).await?
        {
            return Ok(Registered::KeyKnown);
        }
        if insert_users(&mut tx, std::slice::from_ref(new), now).await? == 0 {
            return Ok(Registered::EmailTaken);
        }
        tx.commit().await?;
        Ok(Registered::New)
    }

    /// Whether there is any account.
    pub async fn has_users(&self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM users)").fetch_one(&self.0).await
    }

    /// Makes these accounts where there is none at all.
    pub async fn seed(&self, new: &[NewUser], now: Timestamp) -> Result<bool, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK_SEED).execute(&mut *tx).await?;
        if sqlx::query_scalar("SELECT EXISTS (SELECT FROM users)").fetch_one(&mut *tx).await? {
            return Ok(false);
        }
        insert_users(&mut tx, new, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    pub async fn credentials(&self, email: &Email) -> Result<Option<Credentials>, sqlx::Error> {
        let row = sqlx::query("SELECT id, roles, password_hash FROM users WHERE email = $1")
            .bind(email.as_str())
            .fetch_optional(&self.0)
            .await?;
        let credentials = |row: PgRow| {
            Ok(Credentials {
                user: CustomerId(row.try_get("id")?),
                roles: roles(&row)?,
                password_hash: row.try_get("password_hash")?,
            })
        };
        row.map(credentials).transpose()
    }

    /// Opens a session with its first refresh token.
    pub async fn open_session(&self, user: CustomerId, token: TokenHash, now: Timestamp) -> Result<(), sqlx::Error> {
        let mut tx = self.0.begin().await?;
        let session = Uuid::now_v7();
        sqlx::query("INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(session)
            .bind(user.0)
            .bind(now.millis())
            .bind(now.plus(REFRESH_LIFE).millis())
            .execute(&mut *tx)
            .await?;
        insert_token(&mut tx, session, token, now).await?;
        tx.commit().await
    }

    /// Opens the use of a refresh token; none where it is unknown.
    pub async fn begin_refresh(&self, token: TokenHash) -> Result<Option<RefreshTx>, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        // All uses of a session's tokens come one after the other; the token itself is read only then.
        let session: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE id = (SELECT session FROM refresh_tokens WHERE hash = $1) FOR UPDATE",
        )
        .bind(&token.0[..])
        .fetch_optional(&mut *tx)
        .await?;
        let Some(session) = session else { return Ok(None) };
        let row = sqlx::query(
            "SELECT t.used_at IS NOT NULL AS used, t.expires_at, s.ended_at IS NOT NULL AS ended, u.id, u.roles
             FROM refresh_tokens t JOIN sessions s ON s.id = t.session JOIN users u ON u.id = s.user_id
             WHERE t.hash = $1",
        )
        .bind(&token.0[..])
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let stored = StoredToken {
            used: row.try_get("used")?,
            expires_at: Timestamp(row.try_get("expires_at")?),
            session_ended: row.try_get("ended")?,
        };
        Ok(Some(RefreshTx { tx, session, token, stored, user: CustomerId(row.try_get("id")?), roles: roles(&row)? }))
    }

    /// Those of the accounts that exist.
    pub async fn users(&self, ids: &[CustomerId]) -> Result<Vec<User>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT id, email, name, roles, version, created_at FROM users WHERE id = ANY($1::uuid[]) ORDER BY id",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(&self.0)
        .await?;
        rows.iter().map(user).collect()
    }

    /// Edits an account of the version that was read; none where there is no such account of this version.
    pub async fn update_user(&self, edit: &UpdateUser, now: Timestamp) -> Result<Option<User>, sqlx::Error> {
        let row = sqlx::query(
            "UPDATE users SET name = $3, version = version + 1, updated_at = $4 WHERE id = $1 AND version = $2
             RETURNING id, email, name, roles, version, created_at",
        )
        .bind(edit.id.0)
        .bind(edit.version)
        .bind(&edit.name)
        .bind(now.millis())
        .fetch_optional(&self.0)
        .await?;
        row.as_ref().map(user).transpose()
    }

    /// Makes those accounts whose address has none.
    pub async fn insert_users(&self, new: &[NewUser], now: Timestamp) -> Result<(), sqlx::Error> {
        let mut tx = self.0.begin().await?;
        insert_users(&mut tx, new, now).await?;
        tx.commit().await
    }

    /// The ids of the accounts with these addresses.
    pub async fn ids_of(&self, emails: &[Email]) -> Result<Vec<CustomerId>, sqlx::Error> {
        let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM users WHERE email = ANY($1::text[]) ORDER BY id")
            .bind(emails.iter().map(Email::as_str).collect::<Vec<_>>())
            .fetch_all(&self.0)
            .await?;
        Ok(ids.into_iter().map(CustomerId).collect())
    }

    /// All signing keys, the latest to sign last.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, sqlx::Error> {
        key_rows(&mut *self.0.acquire().await?).await
    }

    /// Opens a change of the signing keys; only one is open at a time.
    pub async fn lock_keys(&self) -> Result<KeysTx, sqlx::Error> {
        let mut tx = self.0.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK_KEYS).execute(&mut *tx).await?;
        Ok(KeysTx(tx))
    }

    /// Deletes some of what has had its time.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query(
            "DELETE FROM registrations WHERE key IN (
                 SELECT key FROM registrations WHERE created_at <= $1 ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(before(now, KEY_LIFE))
        .bind(SWEEP)
        .execute(&self.0)
        .await?;
        sqlx::query(
            "DELETE FROM sessions WHERE id IN (
                 SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(now.millis())
        .bind(SWEEP)
        .execute(&self.0)
        .await?;
        Ok(())
    }
}

/// One use of a refresh token, with the lock of its session.
pub(crate) struct RefreshTx {
    tx: Transaction<'static, Postgres>,
    session: Uuid,
    token: TokenHash,
    pub stored: StoredToken,
    pub user: CustomerId,
    /// As they are now.
    pub roles: Vec<Role>,
}

impl RefreshTx {
    /// Uses the token up for its successor.
    pub async fn replace(mut self, next: TokenHash, now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1")
            .bind(&self.token.0[..])
            .bind(now.millis())
            .execute(&mut *self.tx)
            .await?;
        sqlx::query("UPDATE sessions SET expires_at = $2 WHERE id = $1")
            .bind(self.session)
            .bind(now.plus(REFRESH_LIFE).millis())
            .execute(&mut *self.tx)
            .await?;
        insert_token(&mut self.tx, self.session, next, now).await?;
        self.tx.commit().await
    }

    /// Ends the session: none of its tokens is good any more.
    pub async fn end_session(mut self, now: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE sessions SET ended_at = $2 WHERE id = $1")
            .bind(self.session)
            .bind(now.millis())
            .execute(&mut *self.tx)
            .await?;
        self.tx.commit().await
    }
}

/// A change of the signing keys.
pub(crate) struct KeysTx(Transaction<'static, Postgres>);

impl KeysTx {
    pub async fn rows(&mut self) -> Result<Vec<KeyRow>, sqlx::Error> {
        key_rows(&mut self.0).await
    }

    pub async fn insert(&mut self, key: &KeyRow) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO signing_keys (id, public, private, active_from, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(key.id)
        .bind(&key.public)
        .bind(&key.private)
        .bind(key.active_from.millis())
        .bind(key.created_at.millis())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    pub async fn delete(&mut self, ids: &[Uuid]) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM signing_keys WHERE id = ANY($1)").bind(ids).execute(&mut *self.0).await?;
        Ok(())
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

/// Takes an idempotency key for a new account; false where it is taken.
async fn claim(
    tx: &mut PgConnection,
    key: &Idempotency,
    user: CustomerId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO registrations AS r (key, fingerprint, user_id, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (key) DO UPDATE
         SET fingerprint = excluded.fingerprint, user_id = excluded.user_id, created_at = excluded.created_at
         WHERE r.created_at <= $5",
    )
    .bind(&key.key)
    .bind(&key.fingerprint)
    .bind(user.0)
    .bind(now.millis())
    .bind(before(now, KEY_LIFE))
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes those accounts whose address has none, and tells of them by their ids alone; returns how many.
async fn insert_users(tx: &mut PgConnection, new: &[NewUser], now: Timestamp) -> Result<usize, sqlx::Error> {
    let roles = |new: &NewUser| new.user.roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(",");
    let made: Vec<(Uuid, i64)> = sqlx::query_as(
        "INSERT INTO users (id, email, name, password_hash, roles, version, created_at, updated_at)
         SELECT id, email, name, hash, string_to_array(roles, ','), version, created_at, created_at
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
              AS n (id, email, name, hash, roles, version, created_at)
         ORDER BY email ON CONFLICT (email) DO NOTHING RETURNING id, version",
    )
    .bind(new.iter().map(|n| n.user.id.0).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.user.email.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.user.name.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.password_hash.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(roles).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.user.version).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.user.created_at.millis()).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await?;
    let event = |&(user, version): &(Uuid, i64)| NewEvent {
        aggregate: "user",
        what: "registered",
        event: DomainEvent {
            id: Uuid::now_v7(),
            aggregate: user,
            version,
            at: now,
            trace: None,
            data: json!({ "id": user }),
        },
    };
    outbox::write(tx, made.iter().map(event).collect(), now).await?;
    Ok(made.len())
}

async fn insert_token(
    tx: &mut PgConnection,
    session: Uuid,
    token: TokenHash,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO refresh_tokens (hash, session, created_at, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(&token.0[..])
        .bind(session)
        .bind(now.millis())
        .bind(now.plus(REFRESH_LIFE).millis())
        .execute(tx)
        .await?;
    Ok(())
}

async fn key_rows(connection: &mut PgConnection) -> Result<Vec<KeyRow>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, public, private, active_from, created_at FROM signing_keys ORDER BY active_from, id")
            .fetch_all(connection)
            .await?;
    let key = |row: &PgRow| {
        Ok(KeyRow {
            id: row.try_get("id")?,
            public: row.try_get("public")?,
            private: row.try_get("private")?,
            active_from: Timestamp(row.try_get("active_from")?),
            created_at: Timestamp(row.try_get("created_at")?),
        })
    };
    rows.iter().map(key).collect()
}

fn user(row: &PgRow) -> Result<User, sqlx::Error> {
    let email: String = row.try_get("email")?;
    Ok(User {
        id: CustomerId(row.try_get("id")?),
        email: Email::parse(&email).ok_or_else(|| sqlx::Error::Decode("a stored address is not valid".into()))?,
        name: row.try_get("name")?,
        roles: roles(row)?,
        version: row.try_get("version")?,
        created_at: Timestamp(row.try_get("created_at")?),
    })
}

fn roles(row: &PgRow) -> Result<Vec<Role>, sqlx::Error> {
    let names: Vec<String> = row.try_get("roles")?;
    Ok(names.iter().filter_map(|name| Role::named(name)).collect())
}

fn before(now: Timestamp, by: Duration) -> i64 {
    now.millis().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
