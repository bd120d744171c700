//! The platform's sagas, one a file. A new one is added to [`catalogue`].

pub mod booking;
pub mod failed_refund;
pub mod publish_event;

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::subjects::Service;
use eventicket_contracts::{SagaId, Timestamp};
use eventicket_saga::definition::Unsound;
use eventicket_saga::{Definition, Json, Registry, Saga};

/// A kind of saga: its definitions in all versions in flight, and how it is shown.
#[derive(Clone)]
pub struct Kind {
    /// Name of its definitions.
    pub name: &'static str,
    /// All versions under which sagas may still run.
    pub definitions: Vec<Definition>,
    /// Whether an input is acceptable; the text says why not.
    pub check: fn(&Json) -> Result<(), String>,
    /// Its own word for where a saga stands.
    pub status: fn(&Saga) -> &'static str,
    /// What is told of a saga to whom it belongs.
    pub view: fn(&RowView<'_>) -> Json,
}

/// What a view is made from.
pub struct RowView<'a> {
    /// The saga's id.
    pub id: SagaId,
    /// The saga.
    pub saga: &'a Saga,
    /// The row's version.
    pub version: i64,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// All kinds with their registry.
#[derive(Clone)]
pub struct Catalogue {
    /// Definitions by name and version.
    pub registry: Registry,
    kinds: BTreeMap<&'static str, Kind>,
}

impl Catalogue {
    /// A catalogue of the given kinds.
    ///
    /// # Errors
    /// A definition that is unsound or calls an action that `may_call` does not know.
    pub fn new(kinds: Vec<Kind>, may_call: impl Fn(&str, &str) -> bool) -> Result<Self, Unsound> {
        let mut registry = Registry::default();
        for definition in kinds.iter().flat_map(|k| &k.definitions) {
            registry.register(definition.clone(), &may_call)?;
        }
        Ok(Self { registry, kinds: kinds.into_iter().map(|k| (k.name, k)).collect() })
    }

    /// The services that its definitions call.
    pub fn services(&self) -> BTreeSet<String> {
        let calls = |d: &Definition| {
            let commands = (0..d.steps.len()).filter_map(|at| d.command(at));
            let called = commands.flat_map(|c| std::iter::once(&c.call).chain(&c.undo));
            called.map(|call| call.service.clone()).collect::<Vec<_>>()
        };
        self.registry.iter().flat_map(|d| calls(d)).collect()
    }

    /// The kind of that name.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name)
    }
}

/// The platform's own kinds, checked against the actions of the contracts.
///
/// # Errors
/// As [`Catalogue::new`].
pub fn catalogue() -> Result<Catalogue, Unsound> {
    Catalogue::new(vec![booking::kind(), publish_event::kind(), failed_refund::kind()], |service, action| {
        Service::named(service).is_some_and(|s| s.actions().contains(&action))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_platforms_definitions_are_sound() {
        super::catalogue().unwrap();
    }
}
