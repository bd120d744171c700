//! The locks of a batch.

use eventicket_contracts::SagaId;
use sqlx::PgConnection;

/// Takes the transaction's advisory locks of these sagas, in an order that all batches share. Whoever decides about a
/// saga's rows calls it first and reads in a *new* statement, which then sees what the former holder committed.
pub async fn lock_sagas(tx: &mut PgConnection, ids: &[SagaId]) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k").bind(keys(ids)).execute(tx).await?;
    Ok(())
}

/// The locks' keys, sorted and each once. Two sagas that share a key only wait for each other.
fn keys(ids: &[SagaId]) -> Vec<i64> {
    let mut keys: Vec<i64> = ids.iter().map(|id| hash(*id)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The finalizer of SplitMix64 over both halves; all processes must agree on it for ever.
fn hash(id: SagaId) -> i64 {
    let (high, low) = id.0.as_u64_pair();
    let mut z = high.rotate_left(32) ^ low;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_distinct_and_the_same_in_every_build() {
        let (a, b) = (SagaId::fresh(), SagaId::fresh());
        assert_eq!(keys(&[a, b, a]), keys(&[b, a]));
        assert_eq!(keys(&[a, b, a]).len(), 2);
        assert!(keys(&[a, b]).is_sorted());
        let fixed = "01936f0e-8f4e-7cc2-9a56-0242ac120002".parse().unwrap();
        assert_eq!(hash(fixed), -3_970_025_625_493_331_915);
    }
}
