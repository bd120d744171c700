//! Whose something is: every operation of the document that is about somebody's own object is tried by others.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::platform::{Platform, text};

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    /// Roles that may; public where there is none.
    roles: Vec<String>,
    /// Example of the body, with its media type.
    body: Option<(String, Value)>,
}

/// All operations about one object.
async fn about_one(platform: &Platform) -> Vec<Operation> {
    let document = platform.get("", "/openapi.json").await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.contains("{id}")) {
        for (method, operation) in item.as_object().unwrap() {
            let roles = operation.pointer("/security/0/bearer").and_then(Value::as_array).cloned().unwrap_or_default();
            operations.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                roles: roles.iter().map(text).collect(),
                body: operation.pointer("/requestBody/content").and_then(Value::as_object).map(|content| {
                    let (kind, body) = content.iter().next().unwrap();
                    (kind.clone(), body["example"].clone())
                }),
            });
        }
    }
    operations
}

impl Operation {
    async fn by(&self, platform: &Platform, token: &str, id: &str) -> StatusCode {
        let url = format!("{}{}", platform.url, self.path.replace("{id}", id));
        let mut request = platform.http.request(self.method.clone(), url).header("idempotency-key", "foreign");
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some((kind, body)) = &self.body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        if self.method == Method::PATCH || self.method == Method::DELETE {
            request = request.header("if-match", "*");
        }
        request.send().await.unwrap().status()
    }
}

/// A second organizer: a customer whom the administrator of the database has made one.
async fn another_organizer(platform: &Platform) -> String {
    let register = json!({"email": "other@demo.test", "password": "demo-password", "name": "Other"});
    let made = platform.http.post(format!("{}/v1/auth/register", platform.url)).json(&register).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    let database = format!("{}/identity", text(&platform.about()["database_url"]).trim_end_matches('/'));
    let mut connection = PgConnection::connect(&database).await.unwrap();
    let sql = "UPDATE users SET roles = '{customer,organizer}' WHERE email = 'other@demo.test'";
    assert_eq!(sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected(), 1);
    platform.login("other@demo.test").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebodys_own_is_not_found_by_others() {
    let platform = Platform::start(&[]).await;
    let (ada, bob) = (platform.login("customer@demo.test").await, platform.customers(1).await.remove(0));
    let organizer = platform.login("organizer@demo.test").await;
    let stranger = another_organizer(&platform).await;
    let event = platform.event(10, 1_000, Some(60)).await;
    let booking = text(&platform.book(&ada, "own", &event, None).await["id"]);
    let path = format!("/v1/events/{}", event.0);
    let before = (platform.get(&ada, &format!("/v1/bookings/{booking}")).await, platform.get(&organizer, &path).await);
    let mut tried = (0, 0);
    for operation in about_one(&platform).await {
        let name = format!("{} {}", operation.method, operation.path);
        let (id, others): (&str, &[(&str, StatusCode)]) = if operation.path.starts_with("/v1/bookings/") {
            tried.0 += 1;
            (&booking, &[(&bob, StatusCode::NOT_FOUND), ("", StatusCode::UNAUTHORIZED)])
        } else if operation.path.starts_with("/v1/events/") && !operation.roles.is_empty() {
            tried.1 += 1;
            let (role, owner) = (StatusCode::FORBIDDEN, StatusCode::NOT_FOUND);
            (&event.0, &[(&bob, role), (&stranger, owner), ("", StatusCode::UNAUTHORIZED)])
        } else {
            continue; // for operators, or for all
        };
        for (token, expected) in others {
            assert_eq!(operation.by(&platform, token, id).await, *expected, "{name}");
        }
    }
    assert!(tried.0 >= 5 && tried.1 >= 5, "all of them: {tried:?}");
    let after = (platform.get(&ada, &format!("/v1/bookings/{booking}")).await, platform.get(&organizer, &path).await);
    assert_eq!(before, after, "nothing of it was changed");
    assert_eq!(platform.get(&bob, "/v1/me/bookings").await["items"], json!([]));
    platform.post(&ada, &format!("/v1/bookings/{booking}/cancel"), json!({})).await;
    platform.audit().await;
}
