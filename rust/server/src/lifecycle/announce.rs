//! What is served from the start on.

use std::collections::BTreeSet;

use mlserve_core::config::{ModelControlMode, Settings};
use mlserve_core::plan::State;

use super::Models;
use super::catalog::{Entry, Model};
use super::print::Print;
use super::repository::{self, Listing};

/// Puts the models that are to be loaded at the start into the plan: from the first connection on, callers are told to
/// come back.
///
/// **Errors:** a text that names the path, and what is expected there.
pub(crate) fn announce(models: &Models, settings: &Settings) -> Result<(), String> {
    let listing = match settings.server.model_control_mode {
        ModelControlMode::None => repository::list_all(settings)?,
        ModelControlMode::Poll => repository::list(settings)?,
        ModelControlMode::Explicit => wanted_at_start(settings)?,
    };
    for (entry, reason) in &listing.odd {
        tracing::warn!(entry, reason, "the repository has an entry that cannot be served");
    }
    listing.tell_of_others(&BTreeSet::new());
    models.change(|catalog| {
        catalog.odd = listing.odd;
        catalog.left_alone = listing.left_alone;
        for (name, source) in listing.models {
            let pin = settings.models.get(&name).is_some_and(|model| model.pin);
            let found = repository::versions(&source, &repository::model_settings(settings, &name), None);
            let numbers = found.map(|versions| versions.found.iter().map(|found| found.version).collect());
            let numbers: Vec<u64> = numbers.unwrap_or_else(|_| vec![1]);
            let model = catalog.put(Model::new(source, pin));
            let loading = |number| (number, Entry::not_serving(State::Loading, Print::default(), 0));
            model.versions = numbers.into_iter().map(loading).collect();
        }
    });
    Ok(())
}

/// In explicit mode: the models of `server.load_models`, and those that are pinned.
fn wanted_at_start(settings: &Settings) -> Result<Listing, String> {
    let mut listing = repository::list(settings)?;
    let models = &mut listing.models;
    let wanted = settings.server.load_models.as_str();
    if wanted != "*" {
        let names: Vec<&str> = wanted.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if let Some(missing) = names.iter().find(|name| !models.contains_key(**name)) {
            return Err(format!("server.load_models = \"{wanted}\": there is no model '{missing}' in the repository"));
        }
        let is_pinned = |name: &str| settings.models.get(name).is_some_and(|model| model.pin);
        models.retain(|name, _| names.contains(&name.as_str()) || is_pinned(name));
    }
    Ok(listing)
}
