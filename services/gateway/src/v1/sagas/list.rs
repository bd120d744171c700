//! `GET /v1/sagas`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{LIST_SAGAS, Page, SagaSummary};
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_kit::Problem;
use serde::Deserialize;
use utoipa::IntoParams;

use super::filter::{Filter, StateFilter};
use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Query;
use crate::paging::{self, Before, Listed};

/// Which sagas.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// A state, or `attention` for those that somebody should look at, or `unfinished` for those that have not ended.
    #[param(inline, example = "running")]
    state: Option<StateFilter>,
    /// Name of the definition.
    #[param(max_length = 64, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", example = "booking")]
    kind: Option<String>,
    /// The step they are at.
    #[param(max_length = 64, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", example = "PAY")]
    step: Option<String>,
    /// About this event.
    event: Option<EventId>,
    /// Of this user.
    user: Option<CustomerId>,
    /// Started at or after.
    from: Option<Timestamp>,
    /// Started before.
    to: Option<Timestamp>,
    /// A whole idempotency key, or else how an id begins.
    #[param(min_length = 1, max_length = 255, pattern = "^[!-~]*$", example = "01936f0e")]
    q: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The `next` of the page before.
    #[param(example = "eyJiZWZvcmUiOiIwMTkzNmYwZS04ZjRlLTdjYzItOWE1Ni0wMjQyYWMxMjAwMDIifQ")]
    cursor: Option<String>,
}

/// List sagas
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/sagas", tag = "sagas", operation_id = "list_sagas",
    params(Params),
    responses((status = 200, description = "A page of sagas", body = Listed<SagaSummary>,
        example = json!({"items": [super::example()], "next": null}))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn list(
    State(app): State<Shared>,
    _: Operator,
    Query(params): Query<Params>,
) -> Result<Json<Listed<SagaSummary>>, Problem> {
    let Params { state, kind, step, event, user, from, to, q, limit, cursor } = params;
    let filter = Filter { state, kind, step, event, user, from, to, q };
    let errors = filter.errors("");
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let before = paging::cursor::<Before>(cursor.as_deref())?.map(|c| SagaId(c.before));
    let query = filter.page(paging::limit(limit)?, before);
    let page: Page<SagaSummary> = app.backend.read(ORCHESTRATOR, LIST_SAGAS, &query).await?;
    Ok(Json(Listed::new(page.items, page.next.map(|before| Before { before }))))
}
