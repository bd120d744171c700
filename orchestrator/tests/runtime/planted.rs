//! Faults that are planted in the runtime are found by its tests.

use eventicket_planted::{Fault, found_by};

#[test]
fn planted_faults_are_found() {
    for (fault, test) in [
        (Fault::NoVersionGuard, "races::rule_10_of_two_replicas_at_one_saga_only_one_is_believed"),
        (Fault::EffectsOfRefusedUpdate, "races::rule_10_of_two_replicas_at_one_saga_only_one_is_believed"),
        (Fault::ProbeWithoutLease, "breakers::rule_18_a_probe_that_dies_holds_nobody"),
        (Fault::RejectionsTrip, "breakers::rule_18_rejections_never_trip"),
    ] {
        assert!(found_by(fault, test), "{} is not found by {test}", fault.name());
    }
}
