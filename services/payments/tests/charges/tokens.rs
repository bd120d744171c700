//! Each test token ends as its name says: with webhooks and without, also where payments is killed between a call and its
//! record, and the gateway after it charged. Never do two charges of a round stand, nor one whose undo is done.

use std::collections::HashMap;
use std::time::Duration;

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Answer, Half, Key, Reply};
use eventicket_mock_gateway::ledger::Status;
use eventicket_payments::State;
use serde_json::json;
use tokio::time::Instant;

use crate::messages::code;
use crate::orchestrator::Orchestrator;
use crate::world::World;

/// What a token stands for: how its charge ends, and what its undo leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Charged,
    Declined,
    /// The refund fails after it had succeeded.
    RefundFails,
    RefundRefused,
}

const TOKENS: [(&str, End); 15] = [
    ("pm_card_visa", End::Charged),
    ("pm_card_declined", End::Declined),
    ("pm_card_insufficient_funds", End::Declined),
    ("pm_card_lost_answer", End::Charged),
    ("pm_card_slow", End::Charged),
    ("pm_card_processing", End::Charged),
    ("pm_card_action_required", End::Charged),
    ("pm_card_flaky_1", End::Charged),
    ("pm_card_flaky_2", End::Charged),
    ("pm_card_flaky_3", End::Charged),
    ("pm_card_flaky_4", End::Charged),
    ("pm_card_flaky_5", End::Charged),
    ("pm_card_refund_pending", End::Charged),
    ("pm_card_refund_fails_later", End::RefundFails),
    ("pm_card_refund_refused", End::RefundRefused),
];
/// Rounds of each token.
const EACH: usize = 3;
/// Between two questions about what has not ended.
const ASK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Killed {
    Nobody,
    Payments,
    Gateway,
}

/// A round as its saga would see it.
struct Round {
    token: &'static str,
    end: End,
    charged: Option<Answer>,
    undone: Option<Answer>,
    acted: bool,
}

/// Plays the sagas of all tokens.
struct Sagas {
    w: World,
    rounds: HashMap<Key, Round>,
    /// Asks by itself; else only webhooks tell.
    asks: bool,
}

impl Sagas {
    async fn begin(webhooks: bool, asks: bool) -> Self {
        let w = World::with(webhooks).await;
        let times = json!({ "slow_ms": 1500, "settle_ms": 300, "refund_settle_ms": 300, "refund_fail_ms": 300 });
        w.mock_settings(times).await;
        w.mock_settings(json!({ "webhook_delay_ms": 20, "latency_ms": 5, "jitter_ms": 20 })).await;
        let mut rounds = HashMap::new();
        for (token, end) in TOKENS.into_iter().flat_map(|token| [token; EACH]) {
            let key = w.key();
            w.send_do(&key, &w.charge(token)).await;
            rounds.insert(key, Round { token, end, charged: None, undone: None, acted: false });
        }
        Self { w, rounds, asks }
    }

    async fn run(&mut self, killed: Killed) {
        let (mut kills, mut lines) = (0, 0);
        let (end, mut ask) = (Instant::now() + PATIENCE, Instant::now() + ASK);
        while self.rounds.values().any(|round| round.undone.is_none()) {
            assert!(Instant::now() < end, "{:?}", self.left());
            let wait = Duration::from_millis(20);
            if let Ok(replies) = tokio::time::timeout(wait, self.w.replies()).await {
                for reply in replies {
                    self.hear(reply).await;
                }
            }
            // Each time when some more changes are in the ledger: between calls and their records.
            let written = self.w.ledger_text().lines().count();
            if killed != Killed::Nobody && kills < 6 && written > lines + 15 {
                (kills, lines) = (kills + 1, written);
                self.kill(killed).await;
            }
            if self.asks && Instant::now() > ask {
                ask = Instant::now() + ASK;
                self.ask().await;
            }
        }
        assert!(killed == Killed::Nobody || kills >= 4, "{kills} kills");
    }

    fn left(&self) -> Vec<(&'static str, &Option<Answer>)> {
        let left = self.rounds.values().filter(|round| round.undone.is_none());
        left.map(|round| (round.token, &round.charged)).collect()
    }

    async fn kill(&mut self, killed: Killed) {
        if killed == Killed::Gateway {
            self.w.crash_mock().await;
            self.w.restart_mock().await;
        } else {
            self.w.crash().await;
            self.w.replicate();
        }
    }

    async fn hear(&mut self, Reply { key, half, answer, .. }: Reply) {
        let round = self.rounds.get_mut(&key).expect("a round of ours");
        if let Answer::Pending(told) = &answer {
            if half == Half::Do && !told.value()["next_action"].is_null() && !round.acted {
                // It may have been done before a crash, so that the page refuses it.
                let status = self.w.act(&answer, "complete").await;
                round.acted = status == 200;
            }
            return;
        }
        assert!(answer.is_final(), "{}: {answer:?}", round.token);
        let recorded = if half == Half::Do { &mut round.charged } else { &mut round.undone };
        let is_first = recorded.is_none();
        match recorded {
            Some(first) => assert_eq!(*first, answer, "{}: a final answer stays", round.token),
            None => *recorded = Some(answer),
        }
        // A repeat may come when its undo is under way.
        if half == Half::Do && is_first {
            self.charged(&key).await;
        }
    }

    /// One charge stands for a round that is charged, none for one that is not; then it is undone.
    async fn charged(&mut self, key: &Key) {
        let Round { token, end, charged, undone, .. } = &self.rounds[key];
        if undone.is_none() && self.w.state(key).await == State::Done {
            assert_eq!(self.w.standing(key).len(), 1, "{token}");
        }
        match charged {
            Some(Answer::Done(_)) => assert_ne!(*end, End::Declined, "{token}"),
            Some(rejected) => {
                assert_eq!((*end, code(rejected)), (End::Declined, codes::PAYMENT_DECLINED), "{token}");
                assert!(self.w.standing(key).is_empty(), "{token}");
            }
            None => unreachable!(),
        }
        self.w.send_undo(key).await;
    }

    /// Asks about what has not ended, as a saga whose answers are late.
    async fn ask(&self) {
        for (key, round) in &self.rounds {
            match (&round.charged, &round.undone) {
                (None, _) => self.w.send_do(key, &self.w.charge(round.token)).await,
                (Some(_), None) => self.w.send_undo(key).await,
                (Some(_), Some(_)) => {}
            }
        }
    }

    async fn end(self) {
        let (mut orchestrator, rounds) = (Orchestrator::new(&self.w).await, self.rounds);
        for (key, Round { token, end, undone, .. }) in &rounds {
            let undone = undone.as_ref().unwrap();
            let standing = self.w.standing(key).len();
            let taken = self.w.statuses(key).into_iter().filter(|status| *status == Status::Succeeded).count();
            assert!(taken <= 1, "{token}: money was taken {taken} times");
            match end {
                End::RefundRefused => assert_eq!((code(undone), standing), (codes::REFUND_REFUSED, 1), "{token}"),
                End::RefundFails => {
                    assert!(matches!(undone, Answer::Done(_)), "{token}: {undone:?}");
                    self.w.until(key, State::RefundFailed).await;
                    assert_eq!(self.w.standing(key).len(), 1, "{token}");
                }
                End::Charged | End::Declined => {
                    assert!(matches!(undone, Answer::Done(_)), "{token}: {undone:?}");
                    assert_eq!(standing, 0, "{token}: it is undone");
                }
            }
        }
        // A saga stands for each refund that failed afterwards, and for nothing else.
        let rows = self.w.rows().await;
        let mut sagas: Vec<_> = rows.iter().filter_map(|row| row.failed_refund).collect();
        assert_eq!(sagas.len(), EACH);
        while !sagas.is_empty() {
            let started = orchestrator.start().await;
            sagas.retain(|saga| *saga != started.id);
        }
        self.w.until_no_starts().await;
        self.w.end().await;
    }
}

async fn tokens_end(webhooks: bool, asks: bool, killed: Killed) {
    let mut sagas = Sagas::begin(webhooks, asks).await;
    sagas.run(killed).await;
    sagas.end().await;
}

#[tokio::test]
async fn rule_06_tokens_end_as_their_names_say_by_webhooks_alone() {
    tokens_end(true, false, Killed::Nobody).await;
}

#[tokio::test]
async fn rule_06_tokens_end_as_their_names_say_without_webhooks() {
    tokens_end(false, true, Killed::Nobody).await;
}

#[tokio::test]
async fn rule_05_tokens_end_well_where_payments_is_killed() {
    tokens_end(true, true, Killed::Payments).await;
}

#[tokio::test]
async fn rule_05_tokens_end_well_where_payments_is_killed_without_webhooks() {
    tokens_end(false, true, Killed::Payments).await;
}

#[tokio::test]
async fn rule_05_tokens_end_well_where_the_gateway_is_killed() {
    tokens_end(true, true, Killed::Gateway).await;
}

#[tokio::test]
async fn rule_05_tokens_end_well_where_the_gateway_is_killed_without_webhooks() {
    tokens_end(false, true, Killed::Gateway).await;
}
