//! One's own account and bookings.

pub mod bookings;
pub mod edit;
pub mod show;

use eventicket_contracts::CustomerId;
use eventicket_contracts::identity::{USERS, User};
use eventicket_kit::Problem;
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::IDENTITY;

/// The account; a token may outlive it.
async fn read(app: &App, id: CustomerId) -> Result<User, Problem> {
    let users: Vec<User> = app.backend.read(IDENTITY, USERS, &[id]).await?;
    users.into_iter().next().ok_or_else(Problem::not_found)
}

/// For the documentation.
pub fn example() -> Value {
    json!({
        "id": "01936f0e-8f4e-7cc2-9a56-0242ac120002",
        "email": "ada@example.org",
        "name": "Ada Lovelace",
        "roles": ["customer"],
        "version": 1,
        "created_at": "2027-01-12T09:30:00.000Z",
    })
}
