//! Panics of what is simulated: none may happen, so that each is a broken invariant, told in its story instead of on the
//! terminal.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Within a step: what its panic said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Lets panics within [`caught`] be silent.
pub(crate) fn keep_silent() {
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let within = SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = info.to_string()));
            if within.is_none() {
                others(info);
            }
        }));
    });
}

/// Takes a step; what its panic said where it panicked.
pub(crate) fn caught(step: impl FnOnce()) -> Result<(), String> {
    SAID.set(Some(String::new()));
    let ended = catch_unwind(AssertUnwindSafe(step));
    let said = SAID.take().unwrap_or_default();
    ended.map_err(|_| said.replace('\n', " "))
}
