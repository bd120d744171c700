//! Forms as HTML encodes them, which Stripe takes its parameters in.

use std::fmt::Write as _;

/// A form, encoded as it is built.
pub(crate) struct Form(String);

impl Form {
    /// Its media type.
    pub const KIND: &str = "application/x-www-form-urlencoded";

    pub fn new() -> Self {
        Self(String::with_capacity(384))
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.encode(name);
        self.0.push('=');
        self.encode(value);
        self
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    fn encode(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
            self.0.push_str(&rest[..at]);
            // Characters of several bytes are encoded byte by byte.
            let length = rest[at..].chars().next().map_or(1, char::len_utf8);
            for byte in rest[at..at + length].bytes() {
                if byte == b' ' {
                    self.0.push('+');
                } else {
                    let _ = write!(self.0, "%{byte:02X}");
                }
            }
            rest = &rest[at + length..];
        }
        self.0.push_str(rest);
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_encoded() {
        let form = Form::new().with("metadata[saga]", "a-1").with("description", "2 × Größe & \u{1F3AB}=50%");
        let encoded = "metadata%5Bsaga%5D=a-1&description=2+%C3%97+Gr%C3%B6%C3%9Fe+%26+%F0%9F%8E%AB%3D50%25";
        assert_eq!(form.text(), encoded);
        assert_eq!(Form::new().text(), "");
    }
}
