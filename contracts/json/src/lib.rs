//! JSON that passes through: inputs of sagas, bodies of commands and outputs of steps are kept as the text that came, and
//! are read only where somebody needs what is in them.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// From here on one nests too deep: it is shown within other JSON, which serde_json reads down to 127.
const MAX_DEPTH: usize = 120;

/// A JSON value as text, shared by its copies. Two are equal where their values are, however they are written.
#[derive(Clone, Default)]
pub struct Json(Option<Arc<RawValue>>); // none is null, the most frequent one

impl Json {
    /// Null, also the default.
    pub const NULL: Self = Self(None);

    /// A value as JSON.
    ///
    /// # Errors
    /// The value cannot be written, as a map whose keys are no strings.
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(value).map(Self::from)
    }

    /// Reads what is in it.
    ///
    /// # Errors
    /// It is not of the shape that is asked for.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(self.text())
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.raw().get()
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// As a tree, for people and tests; null where it is one of [`Self::of_any_depth`] that is too deep.
    pub fn value(&self) -> Value {
        self.read().unwrap_or_default()
    }

    /// Deserialises one however deep it nests, for those who only pass it on.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn of_any_depth<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(from).map(Self::from)
    }

    /// Whether it has at most so many arrays and objects one in the other. Nearly all have too few brackets for more, and
    /// are not read for it.
    ///
    /// # Errors
    /// It nests deeper than serde_json reads.
    pub fn nests_within(&self, most: usize) -> serde_json::Result<bool> {
        let opened = self.text().bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
        Ok(opened <= most || nests_within(most, &self.read()?))
    }

    fn raw(&self) -> &RawValue {
        self.0.as_deref().unwrap_or(RawValue::NULL)
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self((raw.get() != "null").then(|| raw.into()))
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::of(&value).unwrap_or_default()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        let values = || Some(self.read::<Value>().ok()? == other.read::<Value>().ok()?);
        self.text() == other.text() || values().unwrap_or(false)
    }
}

impl PartialEq<Value> for Json {
    fn eq(&self, other: &Value) -> bool {
        self.read::<Value>().is_ok_and(|value| value == *other)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(to)
    }
}

/// One that nests too deep is refused.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let json = Self::of_any_depth(from)?;
        match json.nests_within(MAX_DEPTH - 1) {
            Ok(true) => Ok(json),
            Ok(false) => Err(D::Error::custom("it nests too deep")),
            Err(error) => Err(D::Error::custom(error)),
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

fn nests_within(most: usize, value: &Value) -> bool {
    match value {
        Value::Array(items) => most > 0 && items.iter().all(|item| nests_within(most - 1, item)),
        Value::Object(fields) => most > 0 && fields.values().all(|field| nests_within(most - 1, field)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Step {
        #[serde(default, skip_serializing_if = "Json::is_null")]
        output: Json,
        at: u32,
    }

    #[test]
    fn the_text_stays_as_it_came() {
        let text = r#"{"output":{ "b": 1e2,"a":"\u00e9" },"at":1}"#;
        let step: Step = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&step).unwrap(), text);
        assert_eq!(step.output.read::<std::collections::BTreeMap<String, Value>>().unwrap()["a"], "é");
    }

    #[test]
    fn null_is_left_out_and_comes_back() {
        let step = Step { output: Json::NULL, at: 1 };
        assert_eq!(serde_json::to_string(&step).unwrap(), r#"{"at":1}"#);
        for text in [r#"{"at":1}"#, r#"{"at":1,"output":null}"#] {
            assert_eq!(serde_json::from_str::<Step>(text).unwrap(), step);
        }
        assert!(Json::from(json!(null)).is_null() && Json::of(&()).unwrap().is_null());
        assert_eq!((Json::NULL.text(), Json::NULL.value()), ("null", Value::Null));
    }

    #[test]
    fn equal_is_what_means_the_same() {
        let json = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        assert_eq!(json(r#"{"a":1,"b":[2]}"#), json(r#"{ "b": [2], "a": 1 }"#));
        for (one, other) in [("1", "2"), ("null", "0"), (r#"{"a":1}"#, r#"{"a":1,"b":null}"#), ("[]", "{}")] {
            assert_ne!(json(one), json(other));
        }
    }

    #[test]
    fn what_nests_too_deep_to_be_read_is_refused() {
        #[derive(Deserialize)]
        struct Any(#[serde(deserialize_with = "Json::of_any_depth")] Json);
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let wide = format!("[{}]", ["{}"; 3 * MAX_DEPTH].join(","));
        for (text, good) in
            [(nested(MAX_DEPTH - 1), true), (nested(MAX_DEPTH), false), (nested(99_999), false), (wide, true)]
        {
            let read = serde_json::from_str::<Json>(&text);
            assert_eq!(read.as_ref().is_ok_and(|json| !json.value().is_null()), good, "{read:?}");
            assert_eq!(serde_json::from_str::<Any>(&text).unwrap().0.text(), text);
        }
    }

    #[test]
    fn trees_are_read_too() {
        let tree = json!({ "output": { "deep": [1, "two", null] }, "at": 2 });
        let step: Step = serde_json::from_value(tree.clone()).unwrap();
        assert_eq!((step.output.value(), step.at), (json!({ "deep": [1, "two", null] }), 2));
        assert_eq!(serde_json::to_value(&step).unwrap(), tree);
    }
}
