//! Faults that are planted in the engine, each with a test that finds it.

use eventicket_planted::{Fault, found_by};

#[test]
fn planted_faults_are_found() {
    for (fault, test) in [
        (Fault::SameRound, "holds::rule_04_a_rejection_after_the_end_unwinds_and_before_it_takes_a_new_round"),
        (Fault::ExpiredIsRejected, "unwinding::rule_02_only_rejected_leaves_nothing_to_undo"),
        (Fault::UnknownIsRejected, "unwinding::rule_02_only_rejected_leaves_nothing_to_undo"),
        (Fault::CancelPastNoReturn, "no_return::rule_03_cancels_deadlines_and_operators_wait_for_confirm"),
        (Fault::HoldFreedWhilePaid, "holds::rule_04_a_paid_saga_goes_on_after_a_pause"),
        (Fault::OneShotHoldTimer, "holds::rule_04_pending_that_arrives_after_the_end_unwinds"),
        (Fault::PendingAfterDone, "holds::rule_06_the_end_of_a_pending_round_counts_in_either_order"),
        (Fault::PendingIsNotAsked, "holds::rule_06_pending_spends_no_attempt_and_is_asked_at_a_slow_rate"),
        (Fault::ResendSpendsAttempt, "refusals::rule_11_a_resend_spends_no_attempt"),
        (Fault::RefusedSpendsAttempt, "refusals::rule_12_a_refused_publish_is_no_attempt"),
        (Fault::SkipWithoutFence, "fences::rule_13_a_late_or_replayed_do_of_a_skipped_step_is_refused"),
    ] {
        assert!(found_by(fault, test), "{} is not found by {test}", fault.name());
    }
}
