//! Pages of lists: `limit`, an opaque `cursor`, and answers of `{items, next}`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventicket_kit::{FieldError, Problem};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Items of a page where the client names no number.
const DEFAULT_LIMIT: u32 = 20;
/// Most items of a page.
const MAX_LIMIT: u32 = 100;
/// Longest cursor that is looked at.
pub const MAX_CURSOR: usize = 512;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// The `cursor` of the next page, null on the last one.
    #[schema(required = true)]
    pub next: Option<String>,
}

impl<T> Listed<T> {
    /// A page, with where the next begins.
    pub fn new(items: Vec<T>, next: Option<impl Serialize>) -> Self {
        Self { items, next: next.map(|n| encode(&n)) }
    }
}

/// A cursor of lists that are ordered by id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The last id of the page.
    pub before: Uuid,
}

/// Checks `limit`.
pub fn limit(given: Option<u32>) -> Result<u32, Problem> {
    let limit = given.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::validation(vec![FieldError::new("limit", "out_of_range", format!("1 to {MAX_LIMIT}"))]))
}

fn encode(position: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// Reads `cursor`.
pub fn cursor<T: DeserializeOwned>(given: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(text) = given else { return Ok(None) };
    let bytes = (text.len() <= MAX_CURSOR).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten();
    let position = bytes.and_then(|b| serde_json::from_slice(&b).ok());
    position.map(Some).ok_or_else(|| {
        Problem::validation(vec![FieldError::new("cursor", "invalid", "a cursor is the `next` of an earlier page")])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nonsense_is_refused() {
        let id = Uuid::now_v7();
        let page = Listed::new(vec![1], Some(Before { before: id }));
        let back: Option<Before> = cursor(page.next.as_deref()).unwrap();
        assert_eq!(back.unwrap().before, id);
        for bad in ["", "!", "e30", "bnVsbA", &"a".repeat(600)] {
            assert_eq!(
                cursor::<Before>(Some(bad)).err().map(|p| p.errors[0].field.clone()),
                Some("cursor".into()),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_limit_is_between_1_and_100() {
        assert_eq!(limit(None).unwrap(), 20);
        assert_eq!(limit(Some(100)).unwrap(), 100);
        for bad in [0, 101] {
            assert_eq!(limit(Some(bad)).unwrap_err().status, 422);
        }
    }
}
