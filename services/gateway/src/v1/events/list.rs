//! `GET /v1/events`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::events::{Event, EventCursor, EventPage, LIST, ListEvents, Viewer};
use eventicket_kit::{FieldError, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::Shared;
use crate::auth::Visitor;
use crate::backend::EVENTS;
use crate::extract::Query;
use crate::paging::{self, Listed};

/// Longest category.
const MAX_CATEGORY: usize = 50;

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only of this category.
    #[param(max_length = 50, example = "concert")]
    category: Option<String>,
    /// Only one's own, drafts included; for organizers.
    #[param(default = false, example = false)]
    mine: Option<bool>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The `next` of the page before.
    #[param(
        example = "eyJzdGFydHNfYXQiOjE4MTI4MjI0MDAwMDAsImlkIjoiMDE5MzZmMGUtOGY0ZS03Y2MyLTlhNTYtMDI0MmFjMTIwMDAyIn0"
    )]
    cursor: Option<String>,
}

/// List events
///
/// What is published, earliest first. Organizers see their own drafts, too, administrators everything. Labels of seats are
/// left out, `GET /v1/events/{id}` has them. A page may have fewer items than `limit` where they are long: `next` tells
/// whether more follow.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "list_events",
    params(Filter),
    responses((status = 200, description = "A page of events", body = Listed<Event>,
        example = json!({"items": [super::example("published")], "next": null}))),
    security((), ("bearer" = [])),
)]
pub async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(filter): Query<Filter>,
) -> Result<Json<Listed<Event>>, Problem> {
    let limit = paging::limit(filter.limit)?;
    let cursor = paging::cursor::<EventCursor>(filter.cursor.as_deref())?;
    if filter.category.as_ref().is_some_and(|c| c.chars().count() > MAX_CATEGORY) {
        let error = FieldError::new("category", "out_of_range", format!("at most {MAX_CATEGORY} characters"));
        return Err(Problem::validation(vec![error]));
    }
    let mine = filter.mine.unwrap_or(false);
    let viewer = match (mine, visitor.0) {
        (true, None) => return Err(Problem::unauthorized()),
        // Administrators see everything, and their own as any organizer does.
        (true, Some(caller)) if caller.viewer() == Viewer::Public => return Err(Problem::forbidden()),
        (true, Some(caller)) => Viewer::Organizer(caller.id),
        (false, _) => visitor.viewer(),
    };
    let query = ListEvents { viewer, mine, category: filter.category, limit, cursor };
    let page: EventPage = app.backend.read(EVENTS, LIST, &query).await?;
    Ok(Json(Listed::new(page.items, page.next)))
}
