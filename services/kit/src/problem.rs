//! Errors of the REST API: RFC 9457, `application/problem+json`.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

tokio::task_local! {
    static REQUEST_ID: String;
}

/// Runs `work` so that every problem answered in it carries this request id.
pub async fn with_request_id<F: Future>(id: String, work: F) -> F::Output {
    REQUEST_ID.scope(id, work).await
}

/// An error as clients see it. `code` is stable; `title` and `detail` are for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:eventicket:problem:<code>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:eventicket:problem:sold_out")]
    pub kind: String,
    /// What went wrong, the same words for the same code.
    pub title: String,
    /// The HTTP status.
    #[schema(example = 409)]
    pub status: u16,
    /// What went wrong this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Stable, for programs.
    #[schema(example = "sold_out")]
    pub code: String,
    /// The fields at fault, where the request is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// As in the header `X-Request-Id`; quote it to support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Header `Retry-After`, in whole seconds rounded up.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// A field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Its path, as `ticket_types[0].price.amount`.
    #[schema(example = "items[0].quantity")]
    pub field: String,
    /// Stable, for programs.
    #[schema(example = "out_of_range")]
    pub code: String,
    /// For people.
    pub detail: String,
}

impl FieldError {
    /// A field at fault.
    pub fn new(field: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.to_owned(), detail: detail.into() }
    }
}

impl Problem {
    /// A problem without details.
    pub fn new(status: StatusCode, code: &str, title: &str) -> Self {
        Self {
            kind: format!("urn:eventicket:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: None,
            code: code.to_owned(),
            errors: Vec::new(),
            request_id: None,
            retry_after: None,
        }
    }

    /// 422: the body was understood, its fields are not acceptable.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation", "Some fields are not valid") }
    }

    /// 404: it does not exist, or not for the asker.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is no such thing here")
    }

    /// 401: no token, or one that does not hold.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Sign in first")
    }

    /// 403: signed in, without the right.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This needs another role")
    }

    /// 503: a part of the platform does not answer.
    pub fn unavailable(retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available at the moment")
            .with_retry_after(retry_after)
    }

    /// 500: our fault; what happened is in the log under the request id.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side")
    }

    /// What went wrong this time.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// When it is worth another try.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        if self.request_id.is_none() {
            self.request_id = REQUEST_ID.try_with(Clone::clone).ok();
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))], body)
                .into_response();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1).to_string();
            response.headers_mut().extend(HeaderValue::try_from(seconds).ok().map(|v| (header::RETRY_AFTER, v)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    async fn body(response: Response) -> Value {
        let bytes = axum::body::to_bytes(response.into_body(), 65_536).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn the_json_is_that_of_rfc_9457() {
        let problem = Problem::validation(vec![FieldError::new("items[0].quantity", "out_of_range", "at least 1")])
            .with_detail("1 field");
        let response = with_request_id("r-1".into(), async { problem.into_response() }).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let expected = json!({
            "type": "urn:eventicket:problem:validation",
            "title": "Some fields are not valid",
            "status": 422,
            "detail": "1 field",
            "code": "validation",
            "errors": [{"field": "items[0].quantity", "code": "out_of_range", "detail": "at least 1"}],
            "request_id": "r-1",
        });
        assert_eq!(body(response).await, expected);
    }

    #[tokio::test]
    async fn a_wait_is_a_header_in_whole_seconds() {
        let response = Problem::unavailable(Duration::from_millis(1200)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let json = body(response).await;
        assert_eq!(json["code"], "unavailable");
        assert!(json.get("errors").is_none() && json.get("request_id").is_none(), "{json}");
    }
}
