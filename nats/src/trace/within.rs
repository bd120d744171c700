//! Where in a trace the running task stands, so that what it asks of other services stands below it.

use super::span::{Span, Telling};
use super::traceparent::Traceparent;

tokio::task_local! {
    static PLACE: Traceparent;
}

/// Runs `work`; what it asks for stands below `place`. Tasks that it spawns stand nowhere.
pub async fn within<T>(place: Option<Traceparent>, work: impl Future<Output = T>) -> T {
    match place {
        Some(place) => PLACE.scope(place, work).await,
        None => work.await,
    }
}

/// The running task's `traceparent`, for what it leaves to be done later.
pub fn here() -> Option<String> {
    PLACE.try_with(Traceparent::to_string).ok()
}

/// The span of a question that the running task asks; `None`, and no cost, where its trace is not recorded.
pub(crate) fn asked(subject: &str) -> Option<Span> {
    let place = PLACE.try_with(|place| *place).ok().filter(|place| place.sampled)?;
    Span::below(Some(&place.to_string()), Telling::Client, || subject.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_stands_where_it_was_put_and_another_one_nowhere() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00";
        assert_eq!(here(), None);
        let seen = within(Traceparent::parse(text), async { (here(), tokio::spawn(async { here() }).await.unwrap()) });
        assert_eq!(seen.await, (Some(text.to_owned()), None));
        assert_eq!(within(None, async { here() }).await, None);
    }
}
