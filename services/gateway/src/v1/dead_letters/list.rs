//! `GET /v1/dead-letters`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{DEAD_LETTERS, DeadLetter, DeadLetterPage, ListDeadLetters};
use eventicket_kit::Problem;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Query;
use crate::paging::{self, Listed};

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// Of this service; `orchestrator` for replies.
    #[param(example = "bookings")]
    service: Option<String>,
    /// Of this action.
    #[param(example = "confirm")]
    action: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The `next` of the page before.
    #[param(example = "eyJhZnRlciI6MTc5OTc0NjIwMDAwMDAwMX0")]
    cursor: Option<String>,
}

/// A cursor of dead letters.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    /// The last number of the page.
    after: u64,
}

/// List dead letters
///
/// Messages that a service, or the orchestrator, could not handle; oldest first. One that is replayed or discarded is taken off the list.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead-letters", operation_id = "list_dead_letters",
    params(Params),
    responses((status = 200, description = "A page of dead letters", body = Listed<DeadLetter>,
        example = json!({"items": [super::example()], "next": null}))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn list(
    State(app): State<Shared>,
    _: Operator,
    Query(params): Query<Params>,
) -> Result<Json<Listed<DeadLetter>>, Problem> {
    let query = ListDeadLetters {
        limit: paging::limit(params.limit)?,
        after: paging::cursor::<After>(params.cursor.as_deref())?.map(|c| c.after),
        service: params.service,
        action: params.action,
    };
    let page: DeadLetterPage = app.backend.read(ORCHESTRATOR, DEAD_LETTERS, &query).await?;
    Ok(Json(Listed::new(page.items, page.next.map(|after| After { after }))))
}
