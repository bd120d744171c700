//! Rows of several tables side by side, each read page by page.

use std::collections::VecDeque;

use eventicket_contracts::SagaId;

/// A service's rows in the order of their sagas, fetched page by page.
pub struct Rows<T, F> {
    saga: fn(&T) -> SagaId,
    fetch: F,
    waiting: VecDeque<T>,
    last: Option<T>,
    ended: bool,
}

impl<T: Clone, F: AsyncFn(Option<&T>) -> Result<Vec<T>, sqlx::Error>> Rows<T, F> {
    /// `fetch` yields the rows behind the given one, none at the end.
    pub fn new(saga: fn(&T) -> SagaId, fetch: F) -> Self {
        Self { saga, fetch, waiting: VecDeque::new(), last: None, ended: false }
    }

    /// Takes all rows up to those of the given saga, or all that are left.
    pub async fn up_to(&mut self, until: Option<SagaId>) -> Result<Vec<T>, sqlx::Error> {
        let mut taken = Vec::new();
        loop {
            while self.waiting.front().is_some_and(|row| until.is_none_or(|until| (self.saga)(row) <= until)) {
                taken.extend(self.waiting.pop_front());
            }
            if !self.waiting.is_empty() || self.ended {
                return Ok(taken);
            }
            let page = (self.fetch)(self.last.as_ref()).await?;
            self.ended = page.is_empty();
            if let Some(last) = page.last() {
                self.last = Some(last.clone());
            }
            self.waiting.extend(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_come_in_pages_and_none_is_lost_or_taken_twice() {
        let mut ids: Vec<SagaId> = (0..10).map(|_| SagaId::fresh()).collect();
        ids.sort_unstable();
        let all = &ids;
        let fetch = async |last: Option<&SagaId>| {
            let from = last.map_or(0, |last| all.partition_point(|id| id <= last));
            Ok::<_, sqlx::Error>(all[from..].iter().take(3).copied().collect())
        };
        let mut rows = Rows::new(|id: &SagaId| *id, fetch);
        assert_eq!(rows.up_to(Some(all[0])).await.unwrap(), all[..1]);
        assert_eq!(rows.up_to(Some(all[0])).await.unwrap(), []);
        assert_eq!(rows.up_to(Some(all[6])).await.unwrap(), all[1..7]);
        assert_eq!(rows.up_to(None).await.unwrap(), all[7..]);
        assert_eq!(rows.up_to(None).await.unwrap(), []);
    }
}
