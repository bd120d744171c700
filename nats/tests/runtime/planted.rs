//! Faults that are planted in the messaging runtime are found by its tests.

use eventicket_planted::{Fault, found_by};

#[test]
fn planted_faults_are_found() {
    let test = "worker::rule_09_a_batch_waits_for_its_dependency_and_makes_no_dead_letter";
    assert!(found_by(Fault::FaultsAreSplit, test), "it is not found by {test}");
}
