//! `GET /v1/sagas`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::sagas::{LIST_SAGAS, ListSagas, Page, SagaSummary};
use eventicket_contracts::{CustomerId, EventId, SagaId, Timestamp};
use eventicket_kit::{FieldError, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::Query;
use crate::paging::{self, Before, Listed};

/// Longest name of a kind or step.
const MAX_NAME: usize = 64;
/// What `state` may be.
const STATES: [&str; 9] =
    ["running", "waiting", "held", "paused", "compensating", "completed", "compensated", "abandoned", "attention"];

/// Which sagas.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// `running`, `waiting`, `held`, `paused`, `compensating`, `completed`, `compensated`, `abandoned`, or `attention`
    /// for those that somebody should look at.
    #[param(example = "running")]
    state: Option<String>,
    /// Name of the definition.
    #[param(max_length = 64, example = "booking")]
    kind: Option<String>,
    /// The step they are at.
    #[param(max_length = 64, example = "PAY")]
    step: Option<String>,
    /// About this event.
    event: Option<EventId>,
    /// Of this user.
    user: Option<CustomerId>,
    /// Started at or after.
    from: Option<Timestamp>,
    /// Started before.
    to: Option<Timestamp>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The `next` of the page before.
    #[param(example = "eyJiZWZvcmUiOiIwMTkzNmYwZS04ZjRlLTdjYzItOWE1Ni0wMjQyYWMxMjAwMDIifQ")]
    cursor: Option<String>,
}

impl Filter {
    fn check(&self) -> Result<(), Problem> {
        let mut errors = Vec::new();
        if self.state.as_deref().is_some_and(|s| !STATES.contains(&s)) {
            errors.push(FieldError::new("state", "invalid", format!("one of {}", STATES.join(", "))));
        }
        for (name, value) in [("kind", &self.kind), ("step", &self.step)] {
            if value.as_ref().is_some_and(|v| v.len() > MAX_NAME) {
                errors.push(FieldError::new(name, "out_of_range", format!("at most {MAX_NAME} characters")));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
    }
}

/// List sagas
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/sagas", tag = "sagas", operation_id = "list_sagas",
    params(Filter),
    responses((status = 200, description = "A page of sagas", body = Listed<SagaSummary>,
        example = json!({"items": [super::example()], "next": null}))),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn list(
    State(app): State<Shared>,
    _: Operator,
    Query(filter): Query<Filter>,
) -> Result<Json<Listed<SagaSummary>>, Problem> {
    filter.check()?;
    let query = ListSagas {
        limit: paging::limit(filter.limit)?,
        before: paging::cursor::<Before>(filter.cursor.as_deref())?.map(|c| SagaId(c.before)),
        state: filter.state,
        kind: filter.kind,
        step: filter.step,
        event: filter.event,
        user: filter.user,
        from: filter.from,
        to: filter.to,
    };
    let page: Page<SagaSummary> = app.backend.read(ORCHESTRATOR, LIST_SAGAS, &query).await?;
    Ok(Json(Listed::new(page.items, page.next.map(|before| Before { before }))))
}
