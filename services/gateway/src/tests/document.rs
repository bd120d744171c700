//! The document and the router, walked both ways: what is routed is documented, and what is documented is routed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ID: &str = "01936f0e-8f4e-7cc2-9a56-0242ac120002";
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    /// What is sent, with its media type.
    body: Option<(String, Value)>,
}

fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(crate::openapi::openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let content = operation.pointer("/requestBody/content").and_then(Value::as_object);
            let body =
                content.and_then(|c| c.iter().next()).map(|(kind, body)| (kind.clone(), body["example"].clone()));
            operations.push(Operation { method: method.to_uppercase(), path: path.clone(), body });
        }
    }
    assert!(operations.len() > 40, "all operations are looked at");
    operations
}

/// The paths of a router. It tells them only where it is printed; that they are found there is asserted.
fn routed_paths(router: &Router) -> BTreeSet<String> {
    let printed = format!("{router:?}");
    let paths = printed.split_once("Node { paths: {").and_then(|(_, rest)| rest.split_once("\"} }"));
    let (paths, _) = paths.unwrap_or_else(|| panic!("the router's paths are printed otherwise: {printed}"));
    format!("{paths}\"").split('"').filter(|text| text.starts_with('/')).map(str::to_owned).collect()
}

/// Example values for what a path names.
fn filled(path: &str) -> String {
    let number = if path.starts_with("/v1/dead-letters/") { "1799746200000001" } else { ID };
    path.replace("{id}", number).replace("{service}", "payments")
}

/// The methods that a path answers, by its own word: `Allow`, in the answer to one that it does not.
async fn allowed(gateway: &Gateway, path: &str) -> BTreeSet<String> {
    for method in METHODS {
        let answer = gateway.send(request(method, &filled(path), &[], "")).await;
        if answer.status == StatusCode::METHOD_NOT_ALLOWED {
            return answer.header("allow").split(',').map(str::to_owned).collect();
        }
    }
    panic!("{path} answers every method");
}

#[tokio::test]
async fn every_route_is_documented() {
    let gateway = Gateway::alone(unhurried);
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Operation { method, path, .. } in operations() {
        let methods = documented.entry(path).or_default();
        if method == "GET" {
            methods.insert("HEAD".to_owned());
        }
        methods.insert(method);
    }
    let routed = routed_paths(&gateway.router);
    assert_eq!(routed, documented.keys().cloned().collect(), "paths that are routed, and those of the document");
    for (path, methods) in documented {
        assert_eq!(allowed(&gateway, &path).await, methods, "{path}");
    }
}

/// Nobody is behind this gateway, so that an endpoint never finds nothing: 404 and 405 are the router's.
#[tokio::test]
async fn every_documented_operation_is_routed() {
    let gateway = Gateway::alone(unhurried);
    let bearer = format!("Bearer {}", gateway.token(CustomerId::fresh(), &[Role::Admin]));
    for Operation { method, path, body } in operations() {
        let (kind, body) = body.map_or((String::new(), String::new()), |(kind, body)| (kind, body.to_string()));
        let mut headers = vec![("authorization", bearer.as_str()), ("idempotency-key", "k"), ("if-match", "*")];
        headers.extend(Some(("content-type", kind.as_str())).filter(|(_, kind)| !kind.is_empty()));
        let answer = gateway.send(request(&method, &filled(&path), &headers, body)).await;
        let status = answer.status.as_u16();
        assert!([200, 503].contains(&status), "{method} {path}: {status} {}", answer.text);
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_are_documented_for_all() {
    let gateway = Gateway::alone(unhurried);
    for (path, status, counted) in
        [("/v1/me", 401, true), ("/docs", 200, true), ("/healthz", 200, false), ("/readyz", 503, false)]
    {
        let answer = gateway.send(get(path, "")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        let names: Vec<&str> = answer.headers.keys().map(|name| name.as_str()).collect();
        let has = |name: &str| names.contains(&name);
        assert!(has("x-request-id"), "{path}: {names:?}");
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            assert_eq!(has(name), counted, "{path}: {name}");
        }
        assert_eq!((has("www-authenticate"), has("retry-after")), (status == 401, status == 503), "{path}");
    }
}

/// A rate that no walk meets.
fn unhurried(settings: &mut Settings) {
    (settings.rates.address_burst, settings.rates.signed_in_burst) = (10_000, 10_000);
}
