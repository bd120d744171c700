//! The OpenAPI document: what the endpoints say of themselves, completed with what holds for all of them.

use eventicket_kit::{FieldError, Problem};
use serde_json::{Value, json};
use utoipa::ToSchema as _;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Header, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, Ref,
    RefOr, Response, Server,
};
use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;
use crate::router;

const PROBLEM_JSON: &str = "application/problem+json";

/// What holds for all operations, in Markdown.
const DESCRIPTION: &str = "\
Sells tickets for events: a ticket is never sold twice, and money is never taken without a ticket or a refund.\n\n\
* **Money** is an amount in minor units with a currency: `{\"amount\": 4200, \"currency\": \"EUR\"}` is 42.00 euros.\n\
* **Times** are RFC 3339 in UTC.\n\
* **Errors** are RFC 9457 problems; `code` is stable. `errors` names the fields at fault.\n\
* **Unknown fields** and query parameters are refused.\n\
* **Lists** answer `{items, next}`; `next` is the `cursor` of the next page, null on the last one.\n\
* **Rates** are limited by customer, or by address where nobody is signed in; `RateLimit-Limit`, `RateLimit-Remaining` \
and `RateLimit-Reset` (seconds) say where one stands, `Retry-After` when to come again.\n\
* **`X-Request-Id`** is taken from the request or made, and comes with every answer; `traceparent` (W3C) is taken too.\n\
* **Bodies** have at most 64 KiB, those of events 512 KiB.";

/// The document of the whole API, as `/openapi.json` serves it.
pub fn openapi() -> OpenApi {
    let endpoints: OpenApiRouter<Shared> = router::api().merge(router::operations());
    let mut document = endpoints.into_openapi();
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            complete(path, operation);
        }
    }
    document
}

/// What is there before any endpoint.
pub fn base() -> OpenApi {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "An access token of `POST /v1/auth/login`. The listed roles are those of which one is needed.",
    ));
    let mut schemas = vec![(Problem::name().into_owned(), <Problem as utoipa::PartialSchema>::schema())];
    Problem::schemas(&mut schemas);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("bearer", SecurityScheme::Http(scheme.build()))
        .build();
    let tag = |name: &str, text: &str| TagBuilder::new().name(name).description(Some(text)).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("EvenTicket")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(
                    LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build(),
                ))
                .build(),
        )
        .servers(Some([Server::new("/")]))
        .components(Some(components))
        .tags(Some([
            tag("auth", "Accounts and tokens"),
            tag("me", "One's own account and bookings"),
            tag("events", "What is sold"),
            tag("bookings", "Buying tickets"),
            tag("sagas", "How bookings are driven, for operators"),
            tag("breakers", "Services whose commands are held, for operators"),
            tag("dead-letters", "Messages that could not be handled, for operators"),
            tag("operations", "Health and metrics"),
        ]))
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Adds the errors that follow from what an operation takes, and gives every error its body.
fn complete(path: &str, operation: &mut Operation) {
    let has = |place: ParameterIn| {
        operation.parameters.iter().flatten().any(|p| matches!(p, RefOr::T(p) if p.parameter_in == place))
    };
    let signed_in = operation.security.iter().flatten().any(|s| serde_json::to_value(s).is_ok_and(|v| v != json!({})));
    let open = path == "/healthz" || path == "/metrics" || path == "/readyz";
    let (body, in_path, in_query) = (operation.request_body.is_some(), has(ParameterIn::Path), has(ParameterIn::Query));
    let common = [
        (body, 400, "`malformed_json`: the body is not JSON"),
        (signed_in, 401, "`unauthorized`: no token, or one that does not hold"),
        (signed_in, 403, "`forbidden`: this needs another role"),
        (in_path, 404, "`not_found`: there is no such thing, or not for the asker"),
        (body, 413, "`body_too_large`: the body is too large"),
        (body, 415, "`unsupported_media_type`: the body must be JSON"),
        (body || in_query, 422, "`validation`: some fields are not valid"),
        (!open, 429, "`rate_limited`: too many requests"),
        (true, 500, "`internal`: something went wrong on our side"),
        (!open, 503, "`unavailable`: a part of the platform does not answer"),
    ];
    let responses = &mut operation.responses.responses;
    for (applies, status, description) in common {
        if applies {
            let response = || ResponseBuilder::new().description(description).build().into();
            responses.entry(status.to_string()).or_insert_with(response);
        }
    }
    for (status, response) in responses {
        if let (Ok(status @ 400..), RefOr::T(response)) = (status.parse::<u16>(), response) {
            problem(status, response);
        }
    }
}

/// Gives an error its body; the first code in its description is the example's.
fn problem(status: u16, response: &mut Response) {
    if response.content.is_empty() {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).example(Some(example(status, &response.description)));
        response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content.build()));
    }
    if (status == 429 || status == 503) && !response.headers.contains_key("Retry-After") {
        let mut header = Header::new(utoipa::schema!(u32));
        header.description = Some("Seconds".to_owned());
        response.headers.insert("Retry-After".to_owned(), RefOr::T(header));
    }
}

fn example(status: u16, description: &str) -> Value {
    let code = description.split('`').nth(1).unwrap_or("internal");
    let text = description.split("`: ").nth(1).and_then(|t| t.split(';').next()).unwrap_or(description);
    let status_code = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    let mut problem = Problem::new(status_code, code, text);
    problem.request_id = Some("01936f0e-8f4e-7cc2-9a56-0242ac120002".to_owned());
    if code == "validation" {
        problem.errors.push(FieldError::new("name", "out_of_range", "1 to 100 characters"));
    }
    serde_json::to_value(problem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn document() -> Value {
        serde_json::to_value(openapi()).unwrap()
    }

    fn each(check: impl Fn(&str, &Value)) {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                check(&format!("{method} {path}"), operation);
            }
        }
    }

    #[test]
    fn the_checked_in_document_is_this_one() {
        let now = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/openapi.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &now).unwrap();
        }
        let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(now == checked_in, "openapi/openapi.json is not what the code says: run `eventicket openapi`");
    }

    #[test]
    fn it_is_openapi_3_1_and_says_what_it_is() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for pointer in ["/info/title", "/info/version", "/servers/0/url", "/components/securitySchemes/bearer/scheme"] {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn every_operation_is_told_in_full() {
        each(|name, operation| {
            for field in ["summary", "operationId", "security", "tags"] {
                assert!(!operation[field].is_null(), "{name} lacks {field}");
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("500"), "{name} lacks errors");
            for (status, response) in responses {
                assert!(response["description"].is_string(), "{name} {status}");
                for (kind, content) in response["content"].as_object().into_iter().flatten() {
                    assert!(!content["example"].is_null(), "{name} {status} {kind} lacks an example");
                    assert!(
                        status.starts_with('2') || kind == PROBLEM_JSON || name == "get /readyz",
                        "{name} {status} {kind}"
                    );
                }
                assert!(!response["content"].is_null() || ["204", "304"].contains(&status.as_str()), "{name} {status}");
            }
            for body in operation.pointer("/requestBody/content").and_then(Value::as_object).into_iter().flatten() {
                assert!(!body.1["example"].is_null(), "{name}'s body lacks an example");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string() && !parameter["schema"].is_null(), "{name} {parameter}");
            }
        });
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                    }
                    open.extend(fields.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let seen = std::cell::RefCell::new(std::collections::HashSet::new());
        each(|name, operation| assert!(seen.borrow_mut().insert(operation["operationId"].to_string()), "{name}"));
        assert!(seen.borrow().len() > 40, "all operations are looked at");
    }
}
