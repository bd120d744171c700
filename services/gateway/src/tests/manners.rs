use super::*;
use axum::routing;

const ID: &str = "01936f0e-8f4e-7cc2-9a56-0242ac120002";

fn booking() -> Value {
    json!({"event_id": ID, "items": [{"ticket_type_id": ID, "quantity": 1}]})
}

#[tokio::test]
async fn unknown_routes_and_ids_are_not_found() {
    let gateway = Gateway::alone(|_| ());
    for path in ["/", "/v1", "/v1/nothing", "/v1/events/not-an-id", "/v2/events"] {
        gateway.send(get(path, "")).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn wrong_methods_are_told_the_right_ones() {
    let gateway = Gateway::alone(|_| ());
    for (method, path, allow) in [
        ("DELETE", "/v1/bookings", "POST"),
        ("PUT", "/v1/events", "POST,GET,HEAD"),
        ("POST", "/healthz", "GET,HEAD"),
        ("POST", "/docs", "GET,HEAD"),
    ] {
        let answer = gateway.send(request(method, path, &[], "")).await;
        answer.is_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_json() {
    let gateway = Gateway::alone(|_| ());
    let login = |headers: &[(&str, &str)], body: String| gateway.send(request("POST", "/v1/auth/login", headers, body));
    let json = [("content-type", "application/json")];
    login(&json, "x".repeat(65_537)).await.is_problem(413, "body_too_large");
    login(&[json[0], ("content-length", "99999999")], String::new()).await.is_problem(413, "body_too_large");
    login(&[], "{}".into()).await.is_problem(415, "unsupported_media_type");
    login(&[("content-type", "text/plain")], "{}".into()).await.is_problem(415, "unsupported_media_type");
    for bad in ["", "{", "{'a':1}", "\u{0}"] {
        login(&json, bad.into()).await.is_problem(400, "malformed_json");
    }
    login(&json, format!("{}1{}", "[".repeat(500), "]".repeat(500))).await.is_problem(422, "validation");
}

#[tokio::test]
async fn fields_at_fault_are_named() {
    let gateway = Gateway::alone(|_| ());
    for (body, field, code) in [
        (json!({"email": "a@b.co", "password": "x", "remember": true}), "remember", "unknown_field"),
        (json!({"email": "nobody", "password": "x"}), "email", "invalid"),
        (json!({"email": "a@b.co"}), "password", "required"),
    ] {
        let problem = gateway.send(post("/v1/auth/login", "", &[], &body)).await.is_problem(422, "validation");
        assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)));
    }
}

#[tokio::test]
async fn bookings_need_a_key_and_a_good_body() {
    let gateway = Gateway::alone(|_| ());
    let token = gateway.token(CustomerId::fresh(), &[Role::Customer]);
    let send =
        async |headers: &[(&str, &str)], body: Value| gateway.send(post("/v1/bookings", &token, headers, &body)).await;
    send(&[], booking()).await.is_problem(400, "idempotency_key_required");
    send(&[("idempotency-key", "two words")], booking()).await.is_problem(400, "idempotency_key_invalid");
    let key = [("idempotency-key", "k")];
    for (field, value) in [("coupon", json!("X")), ("items", json!([])), ("colour", json!(1))] {
        let mut body = booking();
        body[field] = value;
        let problem = send(&key, body).await.is_problem(422, "validation");
        assert_eq!(problem["errors"][0]["field"], field);
    }
    let answer = send(&key, booking()).await;
    answer.is_problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
}

/// Every operation that needs a role, by the document: its method, its path, and the roles of which one is needed.
fn guarded() -> Vec<(String, String, Vec<Role>)> {
    let document = serde_json::to_value(crate::openapi::openapi()).unwrap();
    let mut guarded = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let needed = operation["security"].as_array().unwrap();
            if needed.iter().any(|scheme| scheme == &json!({})) {
                continue; // nobody needs to sign in
            }
            let mut roles: Vec<Role> = serde_json::from_value(needed[0]["bearer"].clone()).unwrap();
            if roles.contains(&Role::Customer) {
                roles = vec![Role::Customer, Role::Organizer, Role::Operator, Role::Admin];
            }
            let path = path.replace("{id}", ID).replace("{service}", "payments");
            guarded.push((method.to_uppercase(), path, roles));
        }
    }
    guarded
}

#[tokio::test]
async fn every_operation_looks_at_the_role() {
    let gateway = Gateway::alone(|_| ());
    let operations = guarded();
    let needs = |method: &str, path: &str, roles: &[Role]| {
        assert!(
            operations.iter().any(|(m, p, r)| m == method && p == path && r == roles),
            "{method} {path}: {roles:?}"
        );
    };
    needs("POST", &format!("/v1/sagas/{ID}/retry"), &[Role::Operator, Role::Admin]);
    needs("POST", "/v1/events", &[Role::Organizer, Role::Admin]);
    needs("POST", "/v1/bookings", &[Role::Customer, Role::Organizer, Role::Operator, Role::Admin]);
    for (method, path, allowed) in &operations {
        let anonymous = gateway.send(request(method, path, &[], "")).await;
        anonymous.is_problem(401, "unauthorized");
        assert_eq!(anonymous.header("www-authenticate"), "Bearer", "{method} {path}");
        for role in [Role::Customer, Role::Organizer, Role::Operator, Role::Admin] {
            let bearer = format!("Bearer {}", gateway.token(CustomerId::fresh(), &[role]));
            let answer = gateway.send(request(method, path, &[("authorization", &bearer)], "")).await;
            let forbidden = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(forbidden, !allowed.contains(&role), "{method} {path} as {role:?}: {}", answer.text);
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_everywhere() {
    let gateway = Gateway::alone(|_| ());
    let forged = Issuer::new("test").sign(&claims(CustomerId::fresh(), &[Role::Admin], gateway.app.clock.now(), 60));
    let old = gateway.issuer.sign(&claims(CustomerId::fresh(), &[Role::Admin], Timestamp(1_000_000), 60));
    for token in [forged.as_str(), old.as_str(), "nonsense"] {
        for path in ["/v1/me", "/v1/events", "/v1/sagas"] {
            gateway.send(get(path, token)).await.is_problem(401, "unauthorized");
        }
    }
    gateway
        .send(request("GET", "/v1/me", &[("authorization", "Basic YTpi")], ""))
        .await
        .is_problem(401, "unauthorized");
}

#[tokio::test]
async fn parameters_are_checked() {
    let gateway = Gateway::alone(|_| ());
    let operator = gateway.token(CustomerId::fresh(), &[Role::Operator]);
    for (path, field) in [
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=101", "limit"),
        ("/v1/events?limit=many", "limit"),
        ("/v1/events?cursor=nonsense", "cursor"),
        ("/v1/events?colour=red", "colour"),
        ("/v1/sagas?state=odd", "state"),
        ("/v1/sagas?event=odd", "event"),
        ("/v1/sagas?from=yesterday", "from"),
        ("/v1/sagas?q=", "q"),
        ("/v1/sagas?q=a%20b", "q"),
        ("/v1/sagas?sort=x", "sort"),
        ("/v1/sagas?kind=%00", "kind"),
        ("/v1/sagas?step=PAY%0A", "step"),
        ("/v1/dead-letters?limit=101", "limit"),
        ("/v1/dead-letters?cursor=nonsense", "cursor"),
        ("/v1/dead-letters?saga=x", "saga"),
    ] {
        let problem = gateway.send(get(path, &operator)).await.is_problem(422, "validation");
        assert_eq!(problem["errors"][0]["field"], field, "{path}: {problem}");
    }
    gateway.send(get("/v1/events?mine=true", "")).await.is_problem(401, "unauthorized");
    gateway.send(get("/v1/events?mine=true", &operator)).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn reasons_are_one_line_that_says_something() {
    let gateway = Gateway::alone(|_| ());
    let operator = gateway.token(CustomerId::fresh(), &[Role::Operator]);
    for reason in ["", "  ", "a\u{0}b", "a\nb", &"x".repeat(501)] {
        let answer = gateway.send(post("/v1/breakers/payments/open", &operator, &[], &json!({"reason": reason}))).await;
        assert_eq!(answer.is_problem(422, "validation")["errors"][0]["field"], "reason", "{reason:?}");
    }
}

#[tokio::test]
async fn dead_letters_have_numbers_from_one() {
    let gateway = Gateway::alone(|_| ());
    let operator = gateway.token(CustomerId::fresh(), &[Role::Operator]);
    for path in ["/v1/dead-letters/0", "/v1/dead-letters/-1", "/v1/dead-letters/one"] {
        gateway.send(get(path, &operator)).await.is_problem(404, "not_found");
    }
    gateway.send(get("/v1/dead-letters/1", &operator)).await.is_problem(503, "unavailable");
}

#[tokio::test]
async fn edits_need_the_version_that_was_read() {
    let gateway = Gateway::alone(|_| ());
    let token = format!("Bearer {}", gateway.token(CustomerId::fresh(), &[Role::Organizer]));
    for path in ["/v1/me", &format!("/v1/events/{ID}")] {
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        gateway.send(request("PATCH", path, &headers, "{}")).await.is_problem(428, "precondition_required");
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_problem() {
    let app = Gateway::alone(|_| ());
    let routes = Router::new().route("/panic", routing::get(async || -> &str { panic!("a secret detail") }));
    let gateway = Gateway { router: crate::router::layered(app.app.clone(), routes), ..app };
    let answer = gateway.send(get("/panic", "")).await;
    answer.is_problem(500, "internal");
    assert!(!answer.text.contains("secret"));
}

#[tokio::test]
async fn requests_beyond_the_rate_wait() {
    let gateway = Gateway::alone(|s| {
        (s.rates.address_per_second, s.rates.address_burst) = (1, 2);
        (s.rates.signed_in_per_second, s.rates.signed_in_burst) = (1, 3);
    });
    let first = gateway.send(get("/docs", "")).await;
    assert_eq!(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|h| first.header(h)), ["2", "1", "1"]);
    gateway.send(get("/docs", "")).await;
    let beyond = gateway.send(get("/docs", "")).await;
    beyond.is_problem(429, "rate_limited");
    assert_eq!(["retry-after", "ratelimit-remaining"].map(|h| beyond.header(h)), ["1", "0"]);
    // A customer counts by itself, wherever it comes from, but not where passwords are guessed.
    let (ada, bob) = (CustomerId::fresh(), CustomerId::fresh());
    let token = gateway.token(ada, &[Role::Customer]);
    for status in [200, 200, 200, 429] {
        assert_eq!(gateway.send(get("/docs", &token)).await.status.as_u16(), status);
    }
    let bob = gateway.token(bob, &[Role::Customer]);
    assert_eq!(gateway.send(get("/docs", &bob)).await.status.as_u16(), 200);
    gateway.send(post("/v1/auth/login", &bob, &[], &json!({}))).await.is_problem(429, "rate_limited");
    assert_eq!(gateway.send(get("/healthz", "")).await.text, "ok", "health is never limited");
}

#[tokio::test]
async fn a_request_id_is_taken_or_made() {
    let gateway = Gateway::alone(|_| ());
    let with = |id: &'static str| gateway.send(request("GET", "/v1/nothing", &[("x-request-id", id)], ""));
    assert_eq!(with("abc-1.2_3").await.is_problem(404, "not_found")["request_id"], "abc-1.2_3");
    for bad in ["", "a b", "<script>", "\u{fc}"] {
        let made = with(bad).await.header("x-request-id").to_owned();
        assert!(made.parse::<uuid::Uuid>().is_ok(), "{bad}: {made}");
    }
}

#[tokio::test]
async fn addresses_and_headers_are_bounded() {
    let gateway = Gateway::alone(|_| ());
    gateway.send(get(&format!("/v1/events?cursor={}", "a".repeat(5000)), "")).await.is_problem(414, "uri_too_long");
    let long = "a".repeat(20_000);
    gateway.send(request("GET", "/v1/events", &[("x-long", &long)], "")).await.is_problem(431, "headers_too_large");
}

#[tokio::test]
async fn answers_are_private_and_not_sniffed() {
    let gateway = Gateway::alone(|_| ());
    let answer = gateway.send(get("/v1/me", "")).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
}

#[tokio::test]
async fn the_documentation_stands_alone() {
    let gateway = Gateway::alone(|_| ());
    let page = gateway.send(get("/docs", "")).await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && page.header("content-type").starts_with("text/html"));
    let document = gateway.send(get("/openapi.json", "")).await;
    assert_eq!(
        (document.header("content-type"), &document.json()["info"]["title"]),
        ("application/json", &json!("EvenTicket"))
    );
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let gateway = Gateway::alone(|_| ());
    let answer = gateway.send(get("/readyz", "")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["missing"], json!(["nats", "orchestrator", "identity", "events", "bookings"]));
    let metrics = gateway.send(get("/metrics", "")).await;
    assert_eq!((metrics.status.as_u16(), metrics.header("content-type")), (200, "text/plain; version=0.0.4"));
}
