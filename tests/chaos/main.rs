//! Chaos: the whole platform, two replicas of everything, under a realistic load, while faults that are drawn from a seed
//! strike its processes, its servers, its streams and its connections, one after the other.
//!
//! Afterwards every booking that was accepted has ended, nothing that a client was told is contradicted, and the audit
//! is clean. README.md tells how to run it and what it measured.
//!
//! * [`faults`]: which faults there are, and how a seed draws them. [`strike`] carries them out, on [`processes`] and
//!   through [`proxy`].
//! * [`customers`] book meanwhile; [`told`] remembers what each of them was told. [`pace`] finds when bookings are
//!   confirmed at full speed again.
//! * [`site`]: the platform under test. [`course`]: a run from its start to its end, with [`order`] for what is asked.
//! * [`verdict`]: what must hold at the end. [`report`]: what is written about it.

mod course;
mod customers;
mod faults;
mod order;
mod pace;
mod processes;
mod proxy;
mod report;
mod site;
mod strike;
mod told;
mod verdict;

use crate::order::Order;

#[tokio::test(flavor = "multi_thread")]
async fn ten_faults_contradict_nothing_that_a_client_was_told() {
    course::run(Order::short()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is ordered: tests/chaos/run"]
async fn as_ordered() {
    course::run(Order::given()).await;
}
