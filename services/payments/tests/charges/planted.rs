//! Faults that are planted are found by the tests named here.

use eventicket_planted::{Fault, found_by};

#[test]
fn planted_faults_are_found() {
    for (fault, test) in [
        (
            Fault::ConfirmBeforeCommit,
            "undo::rule_05_an_id_is_not_committed_to_a_closed_row_and_its_intent_never_confirmed",
        ),
        (Fault::DeclineBeforeCancel, "ends::rule_05_a_refused_charge_is_rejected_once_its_intent_is_cancelled"),
        (Fault::KeyOfEachCall, "crashes::rule_05_a_crash_between_create_and_the_record_of_its_id"),
        (Fault::SucceededIsCancelled, "undo::rule_05_an_undo_beside_a_confirm_that_arrived_refunds"),
        (Fault::FenceLeavesCharge, "fences::rule_13_a_fence_closes_a_charge_under_way_and_its_intent_is_cancelled"),
    ] {
        assert!(found_by(fault, test), "{} is not found by {test}", fault.name());
    }
}
