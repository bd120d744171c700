//! Faults that are planted are found.

use eventicket_planted::{Fault, found_by};

#[test]
fn planted_faults_are_found() {
    for (fault, test) in [
        (Fault::NoTombstone, "rule_01_an_undo_that_comes_first_refuses_the_late_do"),
        (Fault::LookBeforeLock, "rule_01_records_are_read_under_the_locks_of_their_sagas"),
        (Fault::DeadlineFirst, "rule_02_a_recorded_answer_comes_before_the_deadline"),
        (Fault::LimitForgetsHolds, "limits::rule_14_a_later_limit_counts_earlier_holds_and_none_that_ended"),
        (Fault::BelowSold, "offers::rule_14_an_older_offer_is_ignored_and_none_goes_below_what_is_sold"),
    ] {
        assert!(found_by(fault, test), "{} is not found by {test}", fault.name());
    }
}
