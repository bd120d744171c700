//! Accounts and tokens.

pub mod login;
pub mod refresh;
pub mod register;

use axum::Json;
use eventicket_contracts::identity::Tokens;
use serde_json::{Value, json};

fn example() -> Value {
    json!({
        "access_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6IjIwMjctMDEifQ.eyJpc3MiOiJldmVudGlja2V0In0.c2lnbmF0dXJl",
        "refresh_token": "rt_4f9Qd1nXk0Zr7s2yVb8mTw",
        "expires_in": 900,
        "token_type": "Bearer",
    })
}

type Answer = Json<Tokens>;
