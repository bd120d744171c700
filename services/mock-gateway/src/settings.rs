//! What tests may change while the gateway runs; kept in the ledger, so that it survives a kill.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tokens::Fate;

/// `POST /test/settings` takes any of these fields and answers all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// How long each change takes at least.
    pub latency_ms: u64,
    /// Up to so much more, by chance.
    pub jitter_ms: u64,
    /// The share of changes that are not made and answer a 500, which is stored under its key.
    pub failure_rate: f64,
    /// The share of calls that are not made and answer a 503, which is not stored.
    pub unavailable_rate: f64,
    /// The share of calls whose connection is cut: every other one before the change is made, the others after it.
    pub cut_rate: f64,
    /// How long `pm_card_slow` takes to be charged: 1.5 times the time-out of an attempt to pay.
    pub slow_ms: u64,
    /// How long `pm_card_processing` is `processing`.
    pub settle_ms: u64,
    /// How long refunds of `pm_card_refund_pending` are `pending`.
    pub refund_settle_ms: u64,
    /// How long refunds of `pm_card_refund_fails_later` have succeeded before they fail.
    pub refund_fail_ms: u64,
    /// Refunds are refused for want of balance.
    pub balance_insufficient: bool,
    /// Whether webhooks are sent; meanwhile they are kept.
    pub webhooks: bool,
    /// How long after its cause a webhook is sent.
    pub webhook_delay_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            jitter_ms: 0,
            failure_rate: 0.0,
            unavailable_rate: 0.0,
            cut_rate: 0.0,
            slow_ms: 15_000,
            settle_ms: 3_000,
            refund_settle_ms: 3_000,
            refund_fail_ms: 3_000,
            balance_insufficient: false,
            webhooks: true,
            webhook_delay_ms: 200,
        }
    }
}

impl Settings {
    /// The same with the given fields; the error says which of them cannot be.
    pub fn with(&self, new: Map<String, Value>) -> Result<Self, String> {
        let mut all = serde_json::to_value(self).map_err(|error| error.to_string())?;
        for (name, value) in new {
            match all.get_mut(&name) {
                Some(field) => *field = value,
                None => return Err(format!("there is no setting {name}")),
            }
        }
        let settings: Self = serde_json::from_value(all).map_err(|error| error.to_string())?;
        let rates = [settings.failure_rate, settings.unavailable_rate, settings.cut_rate];
        if rates.iter().all(|rate| (0.0..=1.0).contains(rate)) { Ok(settings) } else { Err("a rate is 0 to 1".into()) }
    }

    /// What befalls a change; `chance` is drawn from 0 to 1.
    pub fn fate(&self, chance: f64) -> Fate {
        let unavailable = self.failure_rate + self.unavailable_rate;
        if chance < self.failure_rate {
            Fate::Failed
        } else if chance < unavailable {
            Fate::Unavailable
        } else if chance < unavailable + self.cut_rate / 2.0 {
            Fate::Cut
        } else if chance < unavailable + self.cut_rate {
            Fate::Unheard
        } else {
            Fate::Made
        }
    }

    /// How long a change takes; `chance` is drawn from 0 to 1.
    pub fn latency(&self, chance: f64) -> Duration {
        Duration::from_millis(self.latency_ms) + Duration::from_millis(self.jitter_ms).mul_f64(chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_given_changes() {
        let given = |value: Value| Settings::default().with(value.as_object().unwrap().clone());
        let changed = given(json!({ "slow_ms": 5, "webhooks": false })).unwrap();
        assert_eq!(changed, Settings { slow_ms: 5, webhooks: false, ..Settings::default() });
        for bad in [json!({ "slow": 5 }), json!({ "slow_ms": -1 }), json!({ "cut_rate": 1.5 })] {
            assert!(given(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_share_the_calls() {
        let settings = Settings { failure_rate: 0.1, unavailable_rate: 0.2, cut_rate: 0.4, ..Settings::default() };
        let fates = [0.05, 0.15, 0.35, 0.55, 0.75].map(|chance| settings.fate(chance));
        assert_eq!(fates, [Fate::Failed, Fate::Unavailable, Fate::Cut, Fate::Unheard, Fate::Made]);
    }
}
