//! The definitions that a runtime knows, in all versions in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::{Definition, Unsound};

/// Definitions by name and version.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    definitions: BTreeMap<String, BTreeMap<u32, Arc<Definition>>>,
}

impl Registry {
    /// Adds a definition; `may_call(service, action)` tells whether the wire knows the action.
    ///
    /// # Errors
    /// A definition that is unsound, calls what does not exist, or is registered already.
    pub fn register(&mut self, definition: Definition, may_call: impl Fn(&str, &str) -> bool) -> Result<(), Unsound> {
        definition.validate()?;
        let fail = |problem: String| Err(Unsound { definition: definition.name.clone(), problem });
        for at in 0..definition.steps.len() {
            let Some(command) = definition.command(at) else { continue };
            for call in std::iter::once(&command.call).chain(&command.undo) {
                if !may_call(&call.service, &call.action) {
                    return fail(format!("no service takes {}.{}", call.service, call.action));
                }
            }
        }
        if self.get(&definition.name, definition.version).is_some() {
            return fail(format!("version {} is registered twice", definition.version));
        }
        let versions = self.definitions.entry(definition.name.clone()).or_default();
        versions.insert(definition.version, Arc::new(definition));
        Ok(())
    }

    /// The definition that a saga in flight runs under.
    pub fn get(&self, name: &str, version: u32) -> Option<&Arc<Definition>> {
        self.definitions.get(name)?.get(&version)
    }

    /// The newest version, under which new sagas start.
    pub fn newest(&self, name: &str) -> Option<&Arc<Definition>> {
        self.definitions.get(name)?.values().next_back()
    }

    /// All definitions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Call, Command, Step};
    use crate::testing::{Play, World};
    use crate::{Phase, Saga};
    use eventicket_json::Json;

    fn version(version: u32, steps: &[&str]) -> Definition {
        let step = |name: &&str| Step::command(name, Command::new(Call::new("a", "do", |_| Ok(Json::NULL))));
        Definition { name: "order".into(), version, steps: steps.iter().map(step).collect(), deadlines: vec![] }
    }

    fn registry(versions: &[(u32, &[&str])]) -> Registry {
        let mut registry = Registry::default();
        for (number, steps) in versions {
            registry.register(version(*number, steps), |_, _| true).unwrap();
        }
        registry
    }

    #[test]
    fn a_saga_ends_under_the_version_that_it_began_with() {
        let before = registry(&[(1, &["A", "B"])]);
        let mut play = Play::new(before.newest("order").unwrap(), Json::NULL, World::new(Arc::new(|_, _| Json::NULL)));
        play.start();
        play.step();
        let stored = serde_json::to_string(&play.saga).unwrap();
        // The orchestrator starts again with another version, whose steps are others.
        let after = registry(&[(1, &["A", "B"]), (2, &["X", "A", "Y", "B"])]);
        let saga = Saga::read(play.saga.origin(), &stored).unwrap();
        let mut rest = Play::new(after.get(&saga.definition, saga.version).unwrap(), Json::NULL, play.world.clone());
        (rest.saga, rest.mail, rest.history) = (saga, play.mail.clone(), play.history.clone());
        rest.run();
        assert_eq!((rest.saga.phase, rest.told(crate::What::Done)), (Phase::Completed, vec!["A", "B"]));
        assert_eq!(after.newest("order").unwrap().version, 2, "new ones begin under the newest");
    }

    #[test]
    fn what_the_wire_does_not_know_or_is_there_twice_is_refused() {
        let mut registry = registry(&[(1, &["A"])]);
        let twice = registry.register(version(1, &["A"]), |_, _| true).unwrap_err();
        assert!(twice.problem.contains("twice"));
        let unknown = registry.register(version(2, &["A"]), |_, action| action == "sing").unwrap_err();
        assert_eq!(unknown.problem, "no service takes a.do");
    }
}
