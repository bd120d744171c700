//! What tests ask of a platform through REST.

use std::time::Instant;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::platform::{GUARD, LOOK, Platform, text};

impl Platform {
    /// Pays for a booking that waits for it, or tries to.
    pub async fn pay(&self, token: &str, key: &str, booking: &Value, method: &str) -> Response {
        let url = format!("{}/v1/bookings/{}/payment", self.url, text(&booking["id"]));
        let request = self.http.post(url).bearer_auth(token).header("idempotency-key", key);
        request.header("prefer", "wait=20").json(&json!({"payment_method": method})).send().await.unwrap()
    }

    /// A POST with a body; the status and what was answered.
    pub async fn post(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(token).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    /// The token of the demo's operator.
    pub async fn operator(&self) -> String {
        self.operator.get_or_init(|| self.login("operator@demo.test")).await.clone()
    }

    /// A saga with its steps, as operators see it.
    pub async fn saga(&self, id: &str) -> Value {
        self.get(&self.operator().await, &format!("/v1/sagas/{id}")).await
    }

    /// What happened to a saga, as `<what> <step>`, with actor and reason where somebody acted.
    pub async fn history(&self, id: &str) -> Vec<String> {
        let history = self.get(&self.operator().await, &format!("/v1/sagas/{id}/history")).await;
        let words = |entry: &Value| {
            let words = ["what", "step", "actor", "reason"].map(|name| entry[name].as_str().unwrap_or_default());
            words.join(" ").trim().to_owned()
        };
        history["items"].as_array().unwrap_or(&Vec::new()).iter().map(words).collect()
    }

    /// One of a saga's steps.
    pub async fn step(&self, id: &str, name: &str) -> Value {
        let saga = self.saga(id).await;
        let steps = saga["steps"].as_array().cloned().unwrap_or_default();
        steps.into_iter().find(|step| step["name"] == name).unwrap_or_default()
    }

    /// Sees that the saga's history tells who did what, and why: `actor` is the beginning of whose name.
    pub async fn acted(&self, id: &str, what: &str, actor: &str, reason: &str) {
        let history = self.get(&self.operator().await, &format!("/v1/sagas/{id}/history")).await;
        let told = |entry: &&Value| {
            let by = entry["actor"].as_str().is_some_and(|name| name.starts_with(actor));
            entry["what"] == what && entry["reason"] == reason && by
        };
        let entries = history["items"].as_array().cloned().unwrap_or_default();
        assert_eq!(entries.iter().filter(told).count(), 1, "{what} by {actor} for {reason}: {entries:#?}");
    }

    /// Waits until a saga is marked for an operator at the step.
    pub async fn marked(&self, id: &str, step: &str) {
        self.until(&format!("{id} is marked at {step}"), async || {
            let saga = self.saga(id).await;
            saga["attention"].as_array().is_some_and(|marks| marks.iter().any(|mark| mark["step"] == step))
        })
        .await;
    }

    /// An access token of a demo user.
    pub async fn login(&self, email: &str) -> String {
        let body = json!({"email": email, "password": "demo-password"});
        let mut token = String::new();
        for _ in 0..100 {
            let answer = self.http.post(format!("{}/v1/auth/login", self.url)).json(&body).send().await;
            if let Ok(answer) = answer.and_then(Response::error_for_status) {
                let tokens: Value = answer.json().await.unwrap();
                tokens["access_token"].as_str().unwrap().clone_into(&mut token);
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        assert!(!token.is_empty(), "{email} logs in");
        token
    }

    /// A published event of one ticket type; its id and the type's.
    pub async fn event(&self, quantity: u32, price: i64, hold_seconds: Option<u32>) -> (String, String) {
        self.event_with(price, json!({"quantity": quantity}), json!({"hold_seconds": hold_seconds})).await
    }

    /// The same with further fields of the ticket type and of the event.
    pub async fn event_with(&self, price: i64, kind: Value, fields: Value) -> (String, String) {
        let organizer = self.login("organizer@demo.test").await;
        let mut event = json!({
            "title": "Test", "description": "", "category": "concert", "timezone": "Europe/Vienna",
            "starts_at": "2099-06-12T18:00:00Z", "ends_at": "2099-06-12T21:00:00Z",
            "venue": {"name": "Arena", "city": "Vienna", "country": "AT"},
            "ticket_types": [{"name": "Any", "price": {"amount": price, "currency": "EUR"}}],
        });
        extend(&mut event["ticket_types"][0], kind);
        extend(&mut event, fields);
        let made = self.http.post(format!("{}/v1/events", self.url)).bearer_auth(&organizer).json(&event);
        let made: Value = made.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
        let (id, kind) = (text(&made["id"]), text(&made["ticket_types"][0]["id"]));
        let publish = self.http.post(format!("{}/v1/events/{id}/publish", self.url)).bearer_auth(&organizer);
        publish.send().await.unwrap().error_for_status().unwrap();
        self.until("the event is published", async || {
            self.get(&organizer, &format!("/v1/events/{id}")).await["state"] == "published"
        })
        .await;
        (id, kind)
    }

    /// Tickets that are neither held nor sold.
    pub async fn available(&self, event: &str) -> i64 {
        let availability = self.get("", &format!("/v1/events/{event}/availability")).await;
        availability["ticket_types"][0]["available"].as_i64().unwrap_or(-1)
    }

    /// A request that books.
    pub fn booking(&self, token: &str, key: &str, event: &(String, String), method: Option<&str>) -> RequestBuilder {
        self.order(token, key, &order(event, method))
    }

    /// A request that books what the body says.
    pub fn order(&self, token: &str, key: &str, body: &Value) -> RequestBuilder {
        let request = self.http.post(format!("{}/v1/bookings", self.url)).bearer_auth(token);
        request.header("idempotency-key", key).header("prefer", "wait=20").json(body)
    }

    /// Books without waiting for what becomes of it.
    pub async fn accept(&self, token: &str, key: &str, event: &(String, String), method: Option<&str>) -> Value {
        let mut request = self.booking(token, key, event, method).build().unwrap();
        request.headers_mut().remove("prefer");
        let answer = self.http.execute(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{}", answer.text().await.unwrap_or_default());
        answer.json().await.unwrap()
    }

    /// Books, repeating with the same key what is refused for now or has no answer; the booking when it is accepted.
    pub async fn book(&self, token: &str, key: &str, event: &(String, String), method: Option<&str>) -> Value {
        self.accepted(token, key, &order(event, method)).await
    }

    /// The same with any body.
    pub async fn accepted(&self, token: &str, key: &str, body: &Value) -> Value {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < GUARD, "a booking is accepted");
            match self.order(token, key, body).send().await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => match answer.json().await {
                    Ok(booking) => return booking,
                    Err(_) => tokio::time::sleep(LOOK).await,
                },
                Ok(answer) => {
                    let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
                    let status = answer.status();
                    assert!(again.contains(&status), "{status} {}", answer.text().await.unwrap_or_default());
                    tokio::time::sleep(LOOK).await;
                }
                // Cut off: the gateway was killed.
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until an accepted booking has ended.
    pub async fn ended(&self, token: &str, booking: &Value) -> Value {
        let path = format!("/v1/bookings/{}", text(&booking["id"]));
        let started = Instant::now();
        loop {
            let now = self.get(token, &path).await;
            let status = now["status"].as_str().unwrap_or_default();
            let refunding = now["refund"] == "pending";
            if !["pending", "awaiting_payment", ""].contains(&status) && !refunding {
                return now;
            }
            assert!(started.elapsed() < GUARD, "a booking ends: {now}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads JSON; null while the platform cannot be reached.
    pub async fn get(&self, token: &str, path: &str) -> Value {
        let mut request = self.http.get(format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        match request.send().await.and_then(Response::error_for_status) {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }
}

/// One ticket.
pub fn order(event: &(String, String), method: Option<&str>) -> Value {
    let mut body = json!({"event_id": event.0, "items": [{"ticket_type_id": event.1, "quantity": 1}]});
    if let Some(method) = method {
        body["payment_method"] = method.into();
    }
    body
}

/// Sets fields; null leaves one out.
fn extend(object: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else { panic!("an object, not {fields}") };
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        object[name] = value;
    }
}
