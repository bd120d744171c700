//! The OpenAPI document: what the endpoints say of themselves, completed with what holds for all of them.

mod closed;
mod shared;

use eventicket_kit::Problem;
use utoipa::ToSchema as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, Server};
use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;
use crate::router;

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
            shared::complete(path, operation);
        }
    }
    closed::close(&mut document);
    document
}

/// What is there before any endpoint.
pub fn base() -> OpenApi {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "An access token of `POST /v1/auth/login`. The listed roles are those of which one is needed.",
    ));
    let mut schemas = vec![(Problem::name().into_owned(), <Problem as utoipa::PartialSchema>::schema())];
    Problem::schemas(&mut schemas);
    let mut components = shared::components();
    components.schemas.extend(schemas);
    components.add_security_scheme("bearer", SecurityScheme::Http(scheme.build()));
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
            tag("operations", "Health, metrics and this document"),
        ]))
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use shared::PROBLEM_JSON;
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

    /// What a reference leads to.
    fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
        let to = value["$ref"].as_str().map(|to| to.trim_start_matches('#'));
        to.map_or(value, |to| document.pointer(to).unwrap_or_else(|| panic!("{to} is there")))
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
        let document = document();
        each(|name, operation| {
            for field in ["summary", "operationId", "security", "tags"] {
                assert!(!operation[field].is_null(), "{name} lacks {field}");
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("500"), "{name} lacks errors");
            for (status, response) in responses {
                let response = resolved(&document, response);
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
    fn what_is_sent_has_no_other_fields_and_what_is_answered_may_get_more() {
        let document = document();
        let more = |name: &str| &document["components"]["schemas"][name]["additionalProperties"];
        for sent in ["NewEvent", "NewTicketType", "Venue", "Money", "EventPatch", "VenuePatch", "NewBulk", "Filter"] {
            assert_eq!(more(sent), false, "{sent}");
        }
        for answered in ["BookingView", "SagaSummary", "Ticket", "Problem"] {
            assert!(more(answered).is_null(), "{answered}");
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let seen = std::cell::RefCell::new(std::collections::HashSet::new());
        each(|name, operation| assert!(seen.borrow_mut().insert(operation["operationId"].to_string()), "{name}"));
        assert!(seen.borrow().len() > 40, "all operations are looked at");
    }
}
