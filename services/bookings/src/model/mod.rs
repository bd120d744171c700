//! Property tests: random commands in random batches, against a model that counts naively and knows no batches.

mod naive;
mod ops;
mod tables;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use eventicket_contracts::codes;
use eventicket_contracts::envelope::{Answer, Fenced, Key, Recorded};
use proptest::test_runner::{Config as ProptestConfig, TestRunner};

use self::naive::{Model, State};
use self::ops::{Step, event, key, kind, label, steps};
use self::tables::Tables;
use crate::allocation::{Content, Phase};

/// `done`, the code of the rejection, or both ends that a fence was told.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::Done(output) => match output.read::<Fenced>() {
            Ok(fenced) => ends(&fenced),
            Err(_) => naive::DONE.to_owned(),
        },
        Answer::Rejected(rejection) => rejection.code.clone(),
        other => format!("{other:?}"),
    }
}

fn ends(fenced: &Fenced) -> String {
    let end = |recorded: &Recorded| match recorded {
        Recorded::Done(_) => naive::DONE.to_owned(),
        Recorded::Rejected(rejection) => rejection.code.clone(),
        Recorded::Closed => codes::CLOSED.to_owned(),
    };
    let undo = fenced.undo.as_ref().map(|undo| format!(" {}", end(undo))).unwrap_or_default();
    end(&fenced.effect) + &undo
}

fn check(tables: &Tables, model: &Model) {
    for (e, (version, sale)) in &model.sales {
        let (id, event) = (event(*e), &tables.events[&event(*e)]);
        assert_eq!((event.version, event.max_per_customer), (*version, sale.limit));
        assert_eq!(event.types.len(), sale.types.iter().flatten().count());
        for (at, offered) in sale.types.iter().enumerate() {
            let Some(offered) = offered else { continue };
            let row = event.types.iter().find(|row| row.id == kind(at)).unwrap();
            let left = offered.quantity - model.used(*e, at);
            assert_eq!(
                (row.quantity, row.available, row.numbered),
                (offered.quantity, left, !offered.seats.is_empty())
            );
            for (position, seat) in (0..).zip(&offered.seats) {
                let place = (id, label(*seat));
                assert_eq!(tables.plan[&place], (kind(at), position));
                assert!(position >= row.free_from || tables.taken.contains_key(&place), "a free seat is passed over");
            }
        }
        let planned = sale.types.iter().flatten().map(|offered| offered.seats.len()).sum::<usize>();
        assert_eq!(tables.plan.keys().filter(|(event, _)| *event == id).count(), planned);
    }
    let mut seats = 0;
    for ((n, round), hold) in &model.holds {
        let key = key(*n, "RESERVE", *round);
        let same = match &tables.records[&key].content {
            Content::Hold(row) => match row.phase {
                Phase::Held => hold.state == State::Held,
                Phase::Confirmed => hold.state == State::Confirmed,
                Phase::Released | Phase::Expired => hold.state == State::Gone,
            },
            Content::Refused { .. } => matches!(hold.state, State::Refused(_)),
            Content::Tombstone => hold.state == State::Tombstone,
        };
        assert!(same);
        for seat in hold.seats.iter().flatten().filter(|_| hold.state.counts()) {
            assert_eq!(tables.taken[&(event(hold.event), label(*seat))], key);
            seats += 1;
        }
    }
    assert_eq!((tables.records.len(), tables.taken.len()), (model.holds.len(), seats));
}

/// Goes through the steps in both ways, and tells what was answered.
fn run(steps: &[Step]) -> BTreeSet<String> {
    let (mut tables, mut model) = (Tables::default(), Model::default());
    let mut first: HashMap<(Key, String), Answer> = HashMap::new();
    let mut met = BTreeSet::new();
    for step in steps {
        match step {
            Step::Sweep { saga, round } => {
                tables.sweep(&key(*saga, "RESERVE", *round));
                model.sweep(*saga, *round);
            }
            Step::Batch(ops) => {
                let answers = tables.batch(ops);
                for (op, answer) in ops.iter().zip(answers) {
                    assert_eq!(told(&answer), model.answer(op, &answer), "{op:?}");
                    met.insert(told(&answer));
                    let Some(recorded) = op.recorded() else { continue };
                    let known = first.entry((op.command().round.key, recorded)).or_insert(answer.clone());
                    assert_eq!(*known, answer, "a repeat gets the first answer again");
                }
            }
        }
        check(&tables, &model);
    }
    met
}

#[test]
fn rule_04_batches_decide_as_a_naive_count_would() {
    let config = ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() };
    let met = RefCell::new(BTreeSet::new());
    let case = |steps: Vec<Step>| {
        met.borrow_mut().extend(run(&steps));
        Ok(())
    };
    TestRunner::new(config).run(&steps(), case).unwrap();

    let refusals = [
        codes::SOLD_OUT,
        codes::SEAT_TAKEN,
        codes::UNKNOWN_SEAT,
        codes::UNKNOWN_TICKET_TYPE,
        codes::CUSTOMER_LIMIT,
        codes::NOT_ON_SALE,
        codes::EVENT_CANCELLED,
        codes::HAS_BOOKINGS,
        codes::BELOW_SOLD,
        codes::UNDONE,
        codes::HOLD_GONE,
        codes::CONFIRMED,
        codes::CLOSED,
    ];
    let fenced = ["closed closed", "done closed", "done done", "done confirmed", "sold_out done"];
    for answer in refusals.iter().chain(&fenced) {
        assert!(met.borrow().contains(*answer), "the runs never met {answer}");
    }
}
