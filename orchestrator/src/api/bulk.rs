//! Query `bulk`: an operator's action on a page of sagas, or what would become of it.

use std::collections::BTreeSet;

use eventicket_contracts::sagas::{Act, ActAnswer, BulkAct, BulkAnswer, BulkItem};
use eventicket_nats::{QueryError, QueryFailure};
use eventicket_saga::{Moment, apply};

use super::{Reader, acts, cut, failed};
use crate::runtime::journal;
use crate::runtime::row::Row;
use crate::runtime::work::{act_input, conflict_code};

/// Most sagas of a page.
const MAX_PAGE: u32 = 500;
/// What became of a saga whose action is in its history.
const DONE: &str = "done";

/// One outcome a saga, newest first.
pub async fn act(reader: Reader, bulk: BulkAct) -> Result<BulkAnswer, QueryError> {
    let mut filter = bulk.filter.clone();
    let limit = filter.limit.clamp(1, MAX_PAGE);
    filter.limit = limit + 1;
    let mut rows = journal::list(&reader.pool, &filter).await.map_err(|e| failed(&e))?;
    let next = cut(&mut rows, limit);
    let outcomes = if bulk.dry_run {
        let closed = closed(&reader).await.map_err(|e| failed(&e))?;
        rows.iter().map(|row| rehearsed(&reader, &bulk, row, &closed)).collect()
    } else {
        carried_out(&reader, &bulk, &rows).await
    };
    let item = |(row, outcome): (&Row, String)| BulkItem {
        id: row.id,
        kind: row.saga.definition.clone(),
        state: row.saga.state().name().to_owned(),
        outcome,
    };
    Ok(BulkAnswer { items: rows.iter().zip(outcomes).map(item).collect(), next })
}

async fn carried_out(reader: &Reader, bulk: &BulkAct, rows: &[Row]) -> Vec<String> {
    let act = |row: &Row| Act {
        saga: row.id,
        owner: None,
        actor: bulk.actor.clone(),
        reason: bulk.reason.clone(),
        action: bulk.action.clone(),
        trace: None,
    };
    let answers = acts::all(reader, rows.iter().map(act).collect()).await;
    let outcome = |answer| match answer {
        Ok(ActAnswer::Done { .. }) => DONE.to_owned(),
        Ok(ActAnswer::NotFound) => "not_found".to_owned(),
        Ok(ActAnswer::Conflict { code, .. }) => code,
        Err(QueryFailure::NobodyAnswers | QueryFailure::Disconnected) => "unavailable".to_owned(),
        Err(_) => "outcome_unknown".to_owned(),
    };
    answers.into_iter().map(outcome).collect()
}

/// The pure transition on a copy, with the breakers as they stand; nothing is stored.
fn rehearsed(reader: &Reader, bulk: &BulkAct, row: &Row, closed: &BTreeSet<String>) -> String {
    let Some(definition) = reader.catalogue.registry.get(&row.saga.definition, row.saga.version) else {
        return "try_again".to_owned(); // as from a replica that does not know it
    };
    let moment = Moment { now: reader.clock.now().millis(), noise: 0, closed };
    let input = act_input(&bulk.action, &bulk.actor, &bulk.reason);
    match apply(definition, &mut row.saga.clone(), input, &moment) {
        Ok(_) => DONE.to_owned(),
        Err(illegal) => conflict_code(&illegal).to_owned(),
    }
}

async fn closed(reader: &Reader) -> Result<BTreeSet<String>, sqlx::Error> {
    let stored = journal::breakers(&reader.pool).await?;
    Ok(stored.into_iter().filter(|b| !b.breaker.passes()).map(|b| b.service).collect())
}
