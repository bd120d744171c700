//! `RULES.md` says which tests hold which clause of the protocol; here it is kept true, and with it what the planted faults
//! promise.

use std::collections::BTreeSet;
use std::path::Path;

use eventicket_planted::Fault;

/// Folders with code.
const FOLDERS: [&str; 6] = ["contracts", "deploy", "nats", "orchestrator", "services", "tests"];

/// A file of Rust.
struct Source {
    /// Below the repository's root.
    path: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Vec::new();
        for folder in FOLDERS {
            read(root, &root.join(folder), &mut sources);
        }
        sources
    }

    /// Whether it is a test's own file, not the product's.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part.ends_with("tests.rs"))
    }

    /// The names of its test functions that begin with `rule_`.
    fn rule_tests(&self) -> impl Iterator<Item = String> {
        let functions = self
            .text
            .lines()
            .filter_map(|line| line.trim_start().split_once("fn rule_"))
            .filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
        functions.filter_map(|(_, rest)| rest.split_once('(')).map(|(name, _)| format!("rule_{name}"))
    }
}

fn read(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(root, &path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            sources.push(Source { path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text });
        }
    }
}

/// What stands in backticks, by the section that it is in.
fn named(document: &str) -> BTreeSet<(u32, String)> {
    let mut section = 0;
    let mut names = BTreeSet::new();
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        }
        names.extend(
            line.split('`').skip(1).step_by(2).filter(|n| n.starts_with("rule_")).map(|n| (section, n.to_owned())),
        );
    }
    names
}

#[test]
fn every_clause_has_its_tests_and_every_test_its_clause() {
    let tests: BTreeSet<String> = Source::all().iter().flat_map(Source::rule_tests).collect();
    let named = named(include_str!("RULES.md"));
    let missing: Vec<_> = named.iter().filter(|(_, name)| !tests.contains(name)).collect();
    assert!(missing.is_empty(), "RULES.md names tests that do not exist: {missing:#?}");
    let names: BTreeSet<&String> = named.iter().map(|(_, name)| name).collect();
    let unsaid: Vec<_> = tests.iter().filter(|name| !names.contains(name)).collect();
    assert!(unsaid.is_empty(), "tests that RULES.md does not name: {unsaid:#?}");
    let elsewhere: Vec<_> =
        named.iter().filter(|(rule, name)| !name.starts_with(&format!("rule_{rule:02}_"))).collect();
    assert!(elsewhere.is_empty(), "tests that stand below another rule: {elsewhere:#?}");
    let rules: BTreeSet<u32> = named.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, (1..=18).collect(), "every rule has a test");
}

#[test]
fn every_fault_is_planted_and_a_test_plants_it() {
    let sources = Source::all();
    let occurs = |text: &str, what: &str| {
        let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric());
        text.match_indices(what).any(|(at, _)| !goes_on(&text[at + what.len()..]))
    };
    assert!(Fault::ALL.len() >= 20);
    for fault in Fault::ALL {
        let (name, planted) = (format!("{fault:?}"), format!("::{fault:?}.is_planted()"));
        let code = sources.iter().filter(|s| !s.is_test()).any(|s| s.text.contains(&planted));
        assert!(code, "{name} is planted nowhere");
        let tests = sources.iter().filter(|s| s.is_test() && !s.path.starts_with("tests/planted/"));
        let mut tests = tests.filter(|s| s.path != "tests/rules/main.rs");
        let (by_value, by_text) = (format!("Fault::{name}"), format!("\"{}\"", fault.name()));
        let found = tests.any(|s| occurs(&s.text, &by_value) || s.text.contains(&by_text));
        assert!(found, "no test plants {name}");
    }
}

/// The time-outs of a session are set where the pool is made. The audit only reads, and waits for nobody's lock.
#[test]
fn rule_09_every_pool_that_writes_is_made_in_one_place() {
    let pools = ["PgPoolOptions::new", "PgPool::connect"];
    let sources = Source::all();
    let product = sources.iter().filter(|s| !s.is_test() && pools.iter().any(|pool| s.text.contains(pool)));
    let makers: BTreeSet<&str> = product.map(|s| s.path.as_str()).collect();
    // The audit and the load tool only read.
    let (audit, load) = ("deploy/local/commands/audit/read.rs", "deploy/local/load/watch/queues.rs");
    assert_eq!(makers, BTreeSet::from([audit, load, "services/kit/src/database.rs"]));
}
