//! The definitions that a runtime knows, in all versions in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::{Definition, Unsound};

/// Definitions by name and version.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    definitions: BTreeMap<(String, u32), Arc<Definition>>,
}

impl Registry {
    /// Adds a definition; `may_call(service, action)` tells whether the wire knows the action.
    ///
    /// # Errors
    /// A definition that is unsound, calls what does not exist, or is registered already.
    pub fn register(
        &mut self,
        definition: Definition,
        may_call: impl Fn(&str, &str) -> bool,
    ) -> Result<(), Unsound> {
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
        let key = (definition.name.clone(), definition.version);
        if self.definitions.contains_key(&key) {
            return fail(format!("version {} is registered twice", definition.version));
        }
        self.definitions.insert(key, Arc::new(definition));
        Ok(())
    }

    /// The definition that a saga in flight runs under.
    pub fn get(&self, name: &str, version: u32) -> Option<&Arc<Definition>> {
        self.definitions.get(&(name.to_owned(), version))
    }

    /// The newest version, under which new sagas start.
    pub fn newest(&self, name: &str) -> Option<&Arc<Definition>> {
        self.definitions.range((name.to_owned(), 0)..=(name.to_owned(), u32::MAX)).next_back().map(|(_, d)| d)
    }

    /// All definitions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values()
    }
}
