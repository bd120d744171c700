//! What is sent has no other fields than those that are documented, since unknown ones are refused: in types of the wire
//! too, where services ignore them.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{OpenApi, RefOr, Schema};

/// Closes every object that a request's body leads to.
pub fn close(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let mut sent = BTreeSet::new();
    for item in document.paths.paths.values() {
        let operations = [&item.get, &item.post, &item.patch, &item.delete];
        operations.into_iter().flatten().for_each(|operation| sent.extend(named(&operation.request_body)));
    }
    let mut open: Vec<String> = sent.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let Some(schema) = components.schemas.get_mut(&name) else { continue };
        open.extend(named(&*schema).into_iter().filter(|name| sent.insert(name.clone())));
        if let RefOr::T(Schema::Object(object)) = schema
            && !object.properties.is_empty()
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// The schemas that this refers to.
fn named(part: &impl Serialize) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![serde_json::to_value(part).unwrap_or_default()]);
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                let to = fields.get("$ref").and_then(Value::as_str);
                found.extend(to.and_then(|to| to.strip_prefix("#/components/schemas/")).map(str::to_owned));
                open.extend(fields.into_iter().map(|(_, value)| value));
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}
