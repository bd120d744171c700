//! `GET /v1/me/bookings`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{BookingView, LIST_BOOKINGS, ListBookings, Page};
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::Shared;
use crate::auth::Caller;
use crate::backend::ORCHESTRATOR;
use crate::extract::Query;
use crate::paging::{self, Before, Listed};
use crate::v1::bookings;

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The `next` of the page before.
    #[param(example = "eyJiZWZvcmUiOiIwMTkzNmYwZS04ZjRlLTdjYzItOWE1Ni0wMjQyYWMxMjAwMDIifQ")]
    cursor: Option<String>,
}

/// List one's own bookings
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/me/bookings", tag = "me", operation_id = "list_my_bookings",
    params(Paging),
    responses((status = 200, description = "A page of bookings", body = Listed<BookingView>,
        example = json!({"items": [bookings::example()], "next": null}))),
    security(("bearer" = ["customer"])),
)]
pub async fn bookings(
    State(app): State<Shared>,
    caller: Caller,
    Query(page): Query<Paging>,
) -> Result<Json<Listed<BookingView>>, Problem> {
    let limit = paging::limit(page.limit)?;
    let before = paging::cursor::<Before>(page.cursor.as_deref())?.map(|c| SagaId(c.before));
    let query = ListBookings { owner: caller.id, limit, before };
    let page: Page<BookingView> = app.backend.read(ORCHESTRATOR, LIST_BOOKINGS, &query).await?;
    Ok(Json(Listed::new(page.items, page.next.map(|before| Before { before }))))
}
