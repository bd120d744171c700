//! What an account may be called and secured with.

use eventicket_kit::FieldError;

/// Characters of a password.
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=128;
/// Most characters of a name.
const NAME: usize = 100;

/// The error of a name, which has 1 to 100 characters, none of them a control character.
pub(crate) fn check_name(name: &str) -> Option<FieldError> {
    if name.trim().is_empty() {
        Some(FieldError::new("name", "required", "a name is needed"))
    } else if name.chars().count() > NAME {
        Some(FieldError::new("name", "too_long", format!("a name has at most {NAME} characters")))
    } else if name.chars().any(char::is_control) {
        Some(FieldError::new("name", "invalid", "a name has no control characters"))
    } else {
        None
    }
}

/// The error of a new password, which has 8 to 128 characters.
pub(crate) fn check_password(password: &str) -> Option<FieldError> {
    let (code, detail) = match password.chars().count() {
        n if n < *PASSWORD.start() => ("too_short", format!("a password has at least {} characters", PASSWORD.start())),
        n if n > *PASSWORD.end() => ("too_long", format!("a password has at most {} characters", PASSWORD.end())),
        _ => return None,
    };
    Some(FieldError::new("password", code, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_contract() {
        let code = |error: Option<FieldError>| error.map(|e| e.code);
        for (name, expected) in
            [("Ada", None), (" ", Some("required")), ("a\nb", Some("invalid")), (&"é".repeat(101), Some("too_long"))]
        {
            assert_eq!(code(check_name(name)).as_deref(), expected, "{name:?}");
        }
        assert_eq!(code(check_name(&"é".repeat(100))), None);
        for (length, expected) in [(7, Some("too_short")), (8, None), (128, None), (129, Some("too_long"))] {
            assert_eq!(code(check_password(&"é".repeat(length))).as_deref(), expected, "{length}");
        }
    }
}
