//! `GET /oauth2/jwks`.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use eventicket_kit::Problem;

use crate::app::Shared;

/// Public keys of the access tokens
///
/// A JSON Web Key Set (RFC 7517). A token names its key in the header `kid`.
#[utoipa::path(
    get, path = "/oauth2/jwks", tag = "auth", operation_id = "jwks",
    responses((status = 200, description = "The keys", body = serde_json::Value, example = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "2027-01",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }]}))),
    security(()),
)]
pub async fn jwks(State(app): State<Shared>) -> Result<impl IntoResponse, Problem> {
    let document = app.auth.document(&app.backend).await?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=60")], Json(document)))
}
