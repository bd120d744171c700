//! `POST /v1/sagas/bulk`.

use axum::Json;
use axum::extract::State;
use eventicket_contracts::SagaId;
use eventicket_contracts::sagas::{Action, BULK, BulkAct, BulkAnswer, BulkItem};
use eventicket_kit::{FieldError, Problem};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::filter::{Filter, named};
use crate::app::Shared;
use crate::auth::Operator;
use crate::backend::ORCHESTRATOR;
use crate::extract::{JsonBody, Reason};
use crate::paging::{self, Before, Listed};

/// Sagas of a page where the client names no number, and the most.
const LIMITS: (u32, u32) = (100, 500);

/// An action on many sagas.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBulk {
    /// Which sagas.
    #[serde(default)]
    filter: Filter,
    /// All sagas are meant, where the filter is empty.
    #[serde(default)]
    all: bool,
    /// What to do.
    action: ActionName,
    /// For `skip`: what the step is taken to have brought.
    #[serde(default)]
    output: Option<Value>,
    /// For `resolve`: the step.
    #[serde(default)]
    #[schema(example = "PAY")]
    step: Option<String>,
    /// For `abandon`: without waiting for the services.
    #[serde(default)]
    force: Option<bool>,
    /// Stands in each saga's history, with who acted.
    reason: Reason,
    /// Only tells what would become of each.
    #[serde(default)]
    dry_run: bool,
    /// Sagas of the page.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 512, pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String", rename_all = "snake_case")]
pub enum ActionName {
    /// As `POST /v1/sagas/{id}/retry`.
    Retry,
    /// As `POST /v1/sagas/{id}/skip`.
    Skip,
    /// As `POST /v1/sagas/{id}/cancel`.
    Cancel,
    /// As `POST /v1/sagas/{id}/compensate`.
    Compensate,
    /// As `POST /v1/sagas/{id}/pause`.
    Pause,
    /// As `POST /v1/sagas/{id}/resume`.
    Resume,
    /// As `POST /v1/sagas/{id}/resolve`.
    Resolve,
    /// As `POST /v1/sagas/{id}/abandon`.
    Abandon,
}

impl ActionName {
    const ALL: [Self; 8] = [
        Self::Retry,
        Self::Skip,
        Self::Cancel,
        Self::Compensate,
        Self::Pause,
        Self::Resume,
        Self::Resolve,
        Self::Abandon,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Cancel => "cancel",
            Self::Compensate => "compensate",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Resolve => "resolve",
            Self::Abandon => "abandon",
        }
    }
}

impl TryFrom<String> for ActionName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        named(&Self::ALL, Self::name, &text)
    }
}

impl NewBulk {
    fn act(self, actor: String) -> Result<BulkAct, Problem> {
        let limit = self.limit.unwrap_or(LIMITS.0);
        let mut errors = self.filter.errors("filter.");
        errors.extend(self.misplaced());
        if self.filter == Filter::default() && !self.all {
            errors.push(FieldError::new("filter", "required", "names some sagas, or `all` says that all are meant"));
        }
        if self.action == ActionName::Resolve && self.step.is_none() {
            errors.push(FieldError::new("step", "required", "`resolve` needs a step"));
        }
        if !(1..=LIMITS.1).contains(&limit) {
            errors.push(FieldError::new("limit", "out_of_range", format!("1 to {}", LIMITS.1)));
        }
        if !errors.is_empty() {
            return Err(Problem::validation(errors));
        }
        let action = match self.action {
            ActionName::Retry => Action::Retry,
            ActionName::Skip => Action::Skip { output: self.output.unwrap_or_default().into() },
            ActionName::Cancel => Action::Cancel,
            ActionName::Compensate => Action::Compensate,
            ActionName::Pause => Action::Pause,
            ActionName::Resume => Action::Resume,
            ActionName::Resolve => Action::Resolve { step: self.step.unwrap_or_default() },
            ActionName::Abandon => Action::Abandon { force: self.force.unwrap_or_default() },
        };
        let before = paging::cursor::<Before>(self.cursor.as_deref())?.map(|c| SagaId(c.before));
        let (filter, reason, dry_run) = (self.filter.page(limit, before), self.reason.into(), self.dry_run);
        Ok(BulkAct { filter, action, actor, reason, dry_run })
    }

    /// Fields that are given and belong to another action.
    fn misplaced(&self) -> Vec<FieldError> {
        let fields = [
            ("output", self.output.is_some(), ActionName::Skip),
            ("step", self.step.is_some(), ActionName::Resolve),
            ("force", self.force.is_some(), ActionName::Abandon),
        ];
        let misplaced = fields.into_iter().filter(|(_, given, action)| *given && *action != self.action);
        misplaced.map(|(name, ..)| FieldError::new(name, "invalid", "belongs to another action")).collect()
    }
}

/// Act on many sagas
///
/// On a page of those that the filter finds, newest first; each gets the action by itself, and what became of it is told.
/// `dry_run` tells what would become of each and does nothing. Call it again with `next` as `cursor` for the next page.
#[utoipa::path(
    post, path = "/v1/sagas/bulk", tag = "sagas", operation_id = "act_on_sagas",
    request_body(content = NewBulk, example = json!({
        "filter": {"state": "attention", "kind": "booking"}, "action": "retry",
        "reason": "the payment gateway is back", "dry_run": true,
    })),
    responses(
        (status = 200, description = "What became, or would become, of each saga of the page", body = Listed<BulkItem>, example = json!({
            "items": [
                {"id": "01936f0e-8f4e-7cc2-9a56-0242ac120002", "kind": "booking", "state": "compensating", "outcome": "done"},
                {"id": "01936f0e-8f4e-7cc2-9a56-0242ac120001", "kind": "booking", "state": "running", "outcome": "past_no_return"},
            ],
            "next": null,
        })),
        (status = 503, description = "`outcome-unknown`: no answer came in time, look at the sagas; or `unavailable`"),
    ),
    security(("bearer" = ["operator", "admin"])),
)]
pub async fn bulk(
    State(app): State<Shared>,
    operator: Operator,
    body: JsonBody<NewBulk>,
) -> Result<Json<Listed<BulkItem>>, Problem> {
    let act = body.value.act(operator.actor())?;
    let answer: BulkAnswer = app.backend.write(ORCHESTRATOR, BULK, &act).await?;
    Ok(Json(Listed::new(answer.items, answer.next.map(|before| Before { before: before.0 }))))
}
