//! Faults that tests plant in the platform, to see that other tests find them.
//!
//! Each is one line of code somewhere that breaks a rule of the protocol while its fault is planted. The environment
//! variable [`VARIABLE`] plants one for the life of a process, [`with`] for the length of a call on one thread; only builds
//! with debug assertions look at them, so that a release knows none. A test that finds a fault is run by another one as a
//! process of its own, see [`found_by`].

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Names the fault that is planted.
pub const VARIABLE: &str = "EVENTICKET_PLANTED_FAULT";

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A fault, with the rule of the protocol that it breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// As the environment names it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

faults! {
    /// 1: an undo that finds no do leaves no tombstone.
    NoTombstone = "no_tombstone",
    /// 1: records are read before the sagas' locks are taken.
    LookBeforeLock = "look_before_lock",
    /// 1: a new round keeps the number of the former one.
    SameRound = "same_round",
    /// 2: the deadline is looked at before the recorded answer.
    DeadlineFirst = "deadline_first",
    /// 2: `expired` is taken for rejected.
    ExpiredIsRejected = "expired_is_rejected",
    /// 2: a step without an answer is taken for rejected.
    UnknownIsRejected = "unknown_is_rejected",
    /// 3: a cancel does not wait for CONFIRM's answer.
    CancelPastNoReturn = "cancel_past_no_return",
    /// 4: a hold is freed while it is paid.
    HoldFreedWhilePaid = "hold_freed_while_paid",
    /// 4: the hold's end is looked at by its timer only, not after each answer.
    OneShotHoldTimer = "one_shot_hold_timer",
    /// 5: an intent is confirmed before its id is committed.
    ConfirmBeforeCommit = "confirm_before_commit",
    /// 5: a decline is recorded before the cancel of its intent.
    DeclineBeforeCancel = "decline_before_cancel",
    /// 5: a repeated call has a gateway key of its own.
    KeyOfEachCall = "key_of_each_call",
    /// 5: a refusal of a cancel because the intent succeeded is taken for a cancel.
    SucceededIsCancelled = "succeeded_is_cancelled",
    /// 6: `pending` supersedes `done`.
    PendingAfterDone = "pending_after_done",
    /// 6: a pending round is not asked again.
    PendingIsNotAsked = "pending_is_not_asked",
    /// 9: a database that is away makes dead letters.
    FaultsAreSplit = "faults_are_split",
    /// 9: a confirm panics for good. That breaks no rule, so no test has to fail with it: `dead_letters` in `tests/e2e` plants
    /// it and sees that its sagas can be ended, and completed once it is mended. It counts as found by that.
    ConfirmPanics = "confirm_panics",
    /// 9: a release panics for good; counts as found by the same tests.
    ReleasePanics = "release_panics",
    /// 10: a row is written over a newer version.
    NoVersionGuard = "no_version_guard",
    /// 10: effects of a refused update leave.
    EffectsOfRefusedUpdate = "effects_of_refused_update",
    /// 11: a re-send spends an attempt.
    ResendSpendsAttempt = "resend_spends_attempt",
    /// 12: a refused publish spends an attempt.
    RefusedSpendsAttempt = "refused_spends_attempt",
    /// 13: a step is skipped without a fence.
    SkipWithoutFence = "skip_without_fence",
    /// 13: a fence leaves a charge under way alone.
    FenceLeavesCharge = "fence_leaves_charge",
    /// 14: a limit of a customer counts what is sold only, not what is held.
    LimitForgetsHolds = "limit_forgets_holds",
    /// 14: a quantity below what is sold is accepted.
    BelowSold = "below_sold",
    /// 18: a probe has no lease.
    ProbeWithoutLease = "probe_without_lease",
    /// 18: a rejection counts as a failure of its service.
    RejectionsTrip = "rejections_trip",
}

impl Fault {
    /// Whether it is planted in this process; never in a release.
    #[inline]
    pub fn is_planted(self) -> bool {
        cfg!(debug_assertions) && planted() == Some(self)
    }
}

thread_local! {
    static HERE: Cell<Option<Fault>> = const { Cell::new(None) };
}

fn planted() -> Option<Fault> {
    static PLANTED: OnceLock<Option<Fault>> = OnceLock::new();
    let of_process = || {
        let name = std::env::var(VARIABLE).ok()?;
        Fault::ALL.iter().copied().find(|fault| fault.name() == name)
    };
    HERE.get().or_else(|| *PLANTED.get_or_init(of_process))
}

/// Runs with the fault planted on this thread, for simulations that go through all of them in one process.
pub fn with<T>(fault: Fault, run: impl FnOnce() -> T) -> T {
    struct Before(Option<Fault>);
    impl Drop for Before {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let _before = Before(HERE.replace(Some(fault)));
    run()
}

/// Runs the named test of the test binary that asks, with the fault planted, and tells whether it failed, which means that
/// it found the fault.
///
/// # Panics
/// The binary cannot be run, or has no test of that name.
pub fn found_by(fault: Fault, test: &str) -> bool {
    let binary = std::env::current_exe().expect("a test knows its binary");
    let mut command = Command::new(binary);
    command.args(["--exact", test]).env(VARIABLE, fault.name()).stdin(Stdio::null());
    let output = command.output().expect("a test binary runs itself");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("running 1 test"), "there is no test {test}");
    !output.status.success()
}
