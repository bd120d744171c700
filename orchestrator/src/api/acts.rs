//! Actions on many sagas: each the same core NATS request as a single one, side by side within a bound.

use std::time::Duration;

use eventicket_contracts::sagas::{Act, ActAnswer};
use eventicket_contracts::subjects;
use eventicket_nats::QueryFailure;
use futures::StreamExt as _;
use futures::stream;
use tokio::time::Instant;

use super::Reader;

/// Actions under way at once.
const AT_ONCE: usize = 64;
/// How long one of them may take.
const EACH: Duration = Duration::from_secs(2);
/// How long all of them may take: less than their asker waits.
const ALL: Duration = Duration::from_secs(4);

/// Carries out the actions; an answer each, in their order. What there is no time for has not been tried.
pub(super) async fn all(reader: &Reader, acts: Vec<Act>) -> Vec<Result<ActAnswer, QueryFailure>> {
    let until = Instant::now() + ALL;
    let one = |act: Act| async move {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(QueryFailure::NobodyAnswers);
        }
        reader.nats.request(subjects::ACT, &act, left.min(EACH)).await
    };
    stream::iter(acts).map(one).buffered(AT_ONCE).collect().await
}
