//! The test tokens: what a payment method does when an intent is confirmed with it. Further ones are added here.

use sha2::{Digest, Sha256};

/// What confirming with a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The intent succeeds.
    Succeeds,
    /// The card is declined, with this decline code.
    Declines(&'static str),
    /// The intent succeeds, and the connection is cut in place of the first answer.
    SucceedsUnheard,
}

/// Every token; any other does not exist.
pub const TOKENS: &[(&str, Behaviour)] = &[
    ("pm_card_visa", Behaviour::Succeeds),
    ("pm_card_declined", Behaviour::Declines("generic_decline")),
    ("pm_card_insufficient_funds", Behaviour::Declines("insufficient_funds")),
    ("pm_card_lost_answer", Behaviour::SucceedsUnheard),
];

/// How the ledger names a token: it never holds the clear text.
pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// The behaviour of the token with this hash.
pub fn behaviour(hashed: &str) -> Option<Behaviour> {
    TOKENS.iter().find(|(token, _)| hash(token) == hashed).map(|(_, behaviour)| *behaviour)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
