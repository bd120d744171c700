//! Queries of the identity service.

use serde::{Deserialize, Serialize};

use crate::text::Email;
use crate::{CustomerId, Timestamp};

/// What a user may do. Each further role includes what customers may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Books.
    Customer,
    /// Makes and sells events.
    Organizer,
    /// Runs the platform's sagas.
    Operator,
    /// Manages users and everything else.
    Admin,
}

impl Role {
    /// As it stands in tokens and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Organizer => "organizer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Customer, Self::Organizer, Self::Operator, Self::Admin].into_iter().find(|r| r.name() == name)
    }
}

/// The claims of an access token: a JWT signed with ES256, its `kid` one of the JWKS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Always [`ISSUER`].
    pub iss: String,
    /// Always [`AUDIENCE`].
    pub aud: String,
    /// The user.
    pub sub: CustomerId,
    /// Seconds since 1970.
    pub iat: i64,
    /// Seconds since 1970.
    pub exp: i64,
    /// The roles.
    pub roles: Vec<Role>,
}

/// `iss` of every token.
pub const ISSUER: &str = "eventicket";
/// `aud` of every access token.
pub const AUDIENCE: &str = "eventicket-api";

/// Name of the service, which answers queries only.
pub const SERVICE: &str = "identity";

/// Query: [`Register`] to [`User`]; error `email_taken`.
pub const REGISTER: &str = "register";
/// Query: [`Login`] to [`Tokens`]; errors `invalid_credentials`, `busy` with a time to wait.
pub const LOGIN: &str = "login";
/// Query: [`Refresh`] to [`Tokens`]; error `invalid_token`. The old refresh token is used up; using it again ends the session.
pub const REFRESH: &str = "refresh";
/// Query: null to a JWKS document.
pub const JWKS: &str = "jwks";
/// Query: `Vec<CustomerId>` to `Vec<User>`, those that exist.
pub const USERS: &str = "users";
/// Query: [`UpdateUser`] to `Option<User>`; error `version_conflict`.
pub const UPDATE_USER: &str = "update_user";

/// A new account.
#[derive(Clone, Serialize, Deserialize)]
pub struct Register {
    /// The login name.
    pub email: Email,
    /// 8 to 128 characters.
    pub password: String,
    /// As others see it.
    pub name: String,
    /// Repeats of the request find the first account.
    pub idempotency: Option<Idempotency>,
}

/// An idempotency key with the fingerprint of the body that it came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// As the client sent it.
    pub key: String,
    /// Keyed hash of the body.
    pub fingerprint: String,
}

/// Credentials.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// The login name.
    pub email: Email,
    /// In clear, over the private network only.
    pub password: String,
}

/// A refresh token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Refresh {
    /// As [`Tokens`] gave it.
    pub refresh_token: String,
}

/// A session's tokens.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tokens {
    /// JWT for `Authorization: Bearer`.
    pub access_token: String,
    /// Good for one refresh.
    pub refresh_token: String,
    /// Seconds until the access token ends.
    pub expires_in: u32,
    /// Always `Bearer`.
    pub token_type: String,
}

/// A user.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct User {
    /// Its id.
    pub id: CustomerId,
    /// Login name.
    #[schema(value_type = String, format = "email")]
    pub email: Email,
    /// As others see it.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Rises with each edit; the ETag.
    pub version: i64,
    /// When it registered.
    pub created_at: Timestamp,
}

/// An edit of one's own account.
#[derive(Clone, Serialize, Deserialize)]
pub struct UpdateUser {
    /// Who.
    pub id: CustomerId,
    /// The version that was read; `version_conflict` where it differs.
    pub version: i64,
    /// The new name.
    pub name: Option<String>,
}
