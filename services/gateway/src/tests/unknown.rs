//! Fields that do not exist, in every body that the document shows.

use super::*;

const ID: &str = "01936f0e-8f4e-7cc2-9a56-0242ac120002";
/// What is not a field.
const NOVEL: &str = "not_a_field";

/// Method, path and example of each operation that takes a body.
fn writes() -> Vec<(String, String, Value)> {
    let document = serde_json::to_value(crate::openapi::openapi()).unwrap();
    let mut writes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(content) = operation["requestBody"]["content"].as_object() else { continue };
            let example = content.values().next().unwrap()["example"].clone();
            assert!(example.is_object(), "{method} {path} shows no example");
            // A dead letter is named by a number.
            let id = if path.contains("dead-letters") { "7" } else { ID };
            let path = path.replace("{id}", id).replace("{service}", "payments");
            writes.push((method.to_uppercase(), path, example));
        }
    }
    writes
}

/// The body with the field in each of its objects in turn, and the field's name there.
fn spoilt(body: &Value, at: &str) -> Vec<(Value, String)> {
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    let mut all = Vec::new();
    match body {
        Value::Object(fields) => {
            let mut with = body.clone();
            with[NOVEL] = json!(1);
            all.push((with, below(NOVEL)));
            // The output of a step that is skipped is any value.
            for (name, value) in fields.iter().filter(|(name, _)| *name != "output") {
                for (inner, path) in spoilt(value, &below(name)) {
                    let mut with = body.clone();
                    with[name] = inner;
                    all.push((with, path));
                }
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                for (inner, path) in spoilt(value, &format!("{at}[{n}]")) {
                    let mut with = body.clone();
                    with[n] = inner;
                    all.push((with, path));
                }
            }
        }
        _ => {}
    }
    all
}

#[tokio::test]
async fn rule_17_unknown_fields_in_writes_are_refused_wherever_they_stand() {
    let gateway = Gateway::alone(|_| ());
    let token = gateway.token(CustomerId::fresh(), &[Role::Customer, Role::Organizer, Role::Operator, Role::Admin]);
    let bearer = format!("Bearer {token}");
    let send = async |method: &str, path: &str, body: &Value| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
            ("if-match", "\"1\""),
        ];
        gateway.send(request(method, path, &headers, body.to_string())).await
    };
    let (mut operations, mut nested) = (0, 0);
    for (method, path, example) in writes() {
        // A patch of an event is read against the event as it is, see `edit::tests::faults_name_their_field`.
        if (method.as_str(), path.starts_with("/v1/events/")) == ("PATCH", true) {
            continue;
        }
        let good = send(&method, &path, &example).await;
        assert_ne!(good.status, StatusCode::UNPROCESSABLE_ENTITY, "{method} {path}: {}", good.text);
        operations += 1;
        for (body, field) in spoilt(&example, "") {
            let problem = send(&method, &path, &body).await.is_problem(422, "validation");
            let errors = problem["errors"].as_array().unwrap();
            let told = |e: &Value| e["field"] == field.as_str() && e["code"] == "unknown_field";
            assert!(errors.iter().any(told), "{method} {path}, {field}: {problem}");
            nested += usize::from(field != NOVEL);
        }
    }
    assert!(operations >= 20 && nested >= 5, "{operations} operations, {nested} fields within fields");
}
