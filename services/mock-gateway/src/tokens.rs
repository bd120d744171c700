//! The test tokens: what a payment method does when an intent is confirmed with it, or refunded. Further ones are added
//! here.

use std::collections::HashMap;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// What a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The intent succeeds.
    Succeeds,
    /// The card is declined, with this decline code.
    Declines(&'static str),
    /// The intent succeeds, and the connection is cut in place of the first answer.
    SucceedsUnheard,
    /// The charge is made, and answered, only after `slow_ms`.
    SucceedsSlowly,
    /// The intent is `processing`, and succeeds after `settle_ms`.
    Settles,
    /// The customer must act: the intent is `requires_action`, and its `next_action` names a page of this gateway.
    NeedsAction,
    /// The first confirms of a round (saga, step and round of the metadata) fail, so many of them, in turn as [`FLAWS`].
    Flaky(u32),
    /// Succeeds; refunds are `pending` and succeed after `refund_settle_ms`.
    RefundsLater,
    /// Succeeds; refunds succeed and fail after `refund_fail_ms`.
    RefundFailsLater,
    /// Succeeds; refunds are refused for good.
    RefundsNever,
}

/// Every token beside `pm_card_flaky_<n>`; any other does not exist.
pub const TOKENS: &[(&str, Behaviour)] = &[
    ("pm_card_visa", Behaviour::Succeeds),
    ("pm_card_declined", Behaviour::Declines("generic_decline")),
    ("pm_card_insufficient_funds", Behaviour::Declines("insufficient_funds")),
    ("pm_card_lost_answer", Behaviour::SucceedsUnheard),
    ("pm_card_slow", Behaviour::SucceedsSlowly),
    ("pm_card_processing", Behaviour::Settles),
    ("pm_card_action_required", Behaviour::NeedsAction),
    ("pm_card_refund_pending", Behaviour::RefundsLater),
    ("pm_card_refund_fails_later", Behaviour::RefundFailsLater),
    ("pm_card_refund_refused", Behaviour::RefundsNever),
];
/// What `pm_card_flaky_<n>` begins with.
pub const FLAKY: &str = "pm_card_flaky_";
/// The highest `<n>`.
pub const MOST_FLAKY: u32 = 20;

/// What becomes of a change and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Made and answered.
    Made,
    /// Made; the connection is cut in place of the answer, which is stored.
    Unheard,
    /// Not made; the connection is cut, and nothing is stored.
    Cut,
    /// Not made; a 500, which is stored under its key.
    Failed,
    /// Made; a 500 is stored in the place of its answer.
    FailedAfter,
    /// Not made; a 503, which is not stored.
    Unavailable,
}

/// How the confirms of a flaky round fail, one after the other, then from the beginning.
pub(crate) const FLAWS: [Fate; 4] = [Fate::Cut, Fate::Failed, Fate::FailedAfter, Fate::Unavailable];

/// How the ledger names a token: it never holds the clear text.
pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// The behaviour of the token with this hash.
pub fn behaviour(hashed: &str) -> Option<Behaviour> {
    static KNOWN: LazyLock<HashMap<String, Behaviour>> = LazyLock::new(|| {
        let flaky = (1..=MOST_FLAKY).map(|n| (hash(&format!("{FLAKY}{n}")), Behaviour::Flaky(n)));
        TOKENS.iter().map(|(token, behaviour)| (hash(token), *behaviour)).chain(flaky).collect()
    });
    KNOWN.get(hashed).copied()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
