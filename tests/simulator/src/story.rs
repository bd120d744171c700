//! Words for the timeline.

use eventicket_contracts::SagaId;
use eventicket_contracts::envelope::{Answer, Half, Key};

/// A saga by the number that its id was made with.
pub(crate) fn saga(id: SagaId) -> String {
    let bytes = id.0.as_bytes();
    let number = u16::from_be_bytes([bytes[14], bytes[15]]);
    format!("#{number}")
}

/// A round.
pub(crate) fn key(key: &Key) -> String {
    format!("{}:{}:{}", saga(key.saga), key.step, key.round)
}

/// A half of a round.
pub(crate) fn half(of: &Key, half: Half) -> String {
    match half {
        Half::Do => key(of),
        Half::Undo => format!("undo of {}", key(of)),
        Half::Fence => format!("fence of {}", key(of)),
    }
}

/// An answer in few words.
pub(crate) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Done(output) if output.is_null() => "done".to_owned(),
        Answer::Done(output) => {
            format!("done {}", output.text().chars().take(70).collect::<String>())
        }
        Answer::Rejected(rejection) => format!("rejected, {}", rejection.code),
        Answer::Pending(_) => "pending".to_owned(),
        Answer::Retry(code) => format!("retry, {code}"),
        Answer::Expired => "expired".to_owned(),
        Answer::Dead(reason) => format!("dead, {reason}"),
    }
}
