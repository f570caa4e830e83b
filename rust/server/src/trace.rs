//! Traces: which requests are traced is chosen while the server runs, and the file that they go to at its start.
//!
//! Settings are Triton's: global ones, and per model those that differ. [`mlserve_core::trace`] chooses requests by what
//! is put in force here; [`writer`] writes them on a thread of its own.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlserve_core::clock::Clock;
use mlserve_core::error::{Error, Result};
use mlserve_core::trace::{Sampler, Samplers, TraceSink, Tracer};
use parking_lot::Mutex;

use self::writer::TraceWriter;

mod writer;

/// Of so many requests one is traced, unless it is set: Triton's default.
const DEFAULT_RATE: u32 = 1_000;

/// A setting in a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Change<T> {
    /// Stays as it is.
    #[default]
    Keep,
    /// For a model: as the global one. For the global one: its default.
    Clear,
    /// Is this from now on.
    Set(T),
}

/// A change of the settings of a model, or of the global ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceChange {
    /// Whether requests are traced at all (`trace_level`).
    pub(crate) is_on: Change<bool>,
    /// Of so many requests one is traced.
    pub(crate) rate: Change<u32>,
    /// Traces that may still begin; -1: any number.
    pub(crate) count: Change<i32>,
    /// Traces after which a new file begins; 0: never.
    pub(crate) log_frequency: Change<u32>,
}

/// What has been set, for a model or globally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chosen {
    is_on: Option<bool>,
    rate: Option<u32>,
    count: Option<i32>,
    log_frequency: Option<u32>,
}

/// What has been set anywhere. The global settings are those of the model "".
type AllChosen = BTreeMap<String, Chosen>;

/// The traces of one server.
#[derive(Debug)]
pub struct Tracing {
    /// Chooses the requests.
    pub(crate) tracer: Arc<Tracer>,
    writer: Option<TraceWriter>,
    file: Option<PathBuf>,
    chosen: Mutex<AllChosen>,
}

impl Tracing {
    /// Traces nothing yet. Without a `file` it never does.
    ///
    /// **Errors:** a text that says why the file cannot be written.
    pub(crate) fn start(file: Option<&Path>, clock: Clock) -> std::result::Result<Self, String> {
        let failed =
            |error: std::io::Error| format!("server.trace_file = {}: {error}", file.unwrap_or(Path::new("")).display());
        let writer = file.map(|path| TraceWriter::start(path, &clock)).transpose().map_err(failed)?;
        let sink = writer.clone().map(|writer| Arc::new(writer) as Arc<dyn TraceSink>);
        let tracer = Tracer::new(sink, clock);
        let tracing =
            Self { tracer: Arc::new(tracer), writer, file: file.map(Path::to_owned), chosen: Mutex::default() };
        tracing.tracer.set_samplers(tracing.samplers(&AllChosen::new(), "")?);
        Ok(tracing)
    }

    /// The file that traces are written to.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The sampler of `model`; the global one for "".
    pub(crate) fn in_force(&self, model: &str) -> Arc<Sampler> {
        Arc::clone(self.tracer.samplers().of(model))
    }

    /// Changes the settings of `model`, or the global ones for "".
    ///
    /// **Errors:** requests cannot be traced as is asked; nothing is changed.
    pub(crate) fn change(&self, model: &str, change: TraceChange) -> Result<()> {
        if change == TraceChange::default() {
            return Ok(());
        }
        let mut chosen = self.chosen.lock();
        let mut next = chosen.clone();
        let entry = next.entry(model.to_owned()).or_default();
        change.is_on.apply(&mut entry.is_on);
        change.rate.apply(&mut entry.rate);
        change.count.apply(&mut entry.count);
        change.log_frequency.apply(&mut entry.log_frequency);
        next.retain(|_, chosen| *chosen != Chosen::default());
        let samplers = self.samplers(&next, model).map_err(Error::invalid)?;
        self.tracer.set_samplers(samplers);
        *chosen = next;
        Ok(())
    }

    /// Traces that the writer could not keep up with.
    pub(crate) fn dropped(&self) -> u64 {
        self.writer.as_ref().map_or(0, TraceWriter::dropped)
    }

    /// Waits until what was traced so far is written, or for a moment.
    pub(crate) fn flush(&self) {
        if let Some(writer) = &self.writer {
            writer.flush();
        }
    }

    /// The samplers for what is `chosen`. Those that the change of `changed` does not touch go on counting; after a global
    /// change all begin anew that take something from it, as in Triton.
    fn samplers(&self, chosen: &AllChosen, changed: &str) -> std::result::Result<Samplers, String> {
        let present = self.tracer.samplers();
        let global = chosen.get("").copied().unwrap_or_default();
        let defaults = Chosen { is_on: Some(false), rate: Some(DEFAULT_RATE), count: Some(-1), log_frequency: Some(0) };
        let fallback = global.or(defaults);
        let mut models = HashMap::new();
        for (model, own) in chosen.iter().filter(|(model, _)| !model.is_empty()) {
            let is_touched = model == changed || (changed.is_empty() && *own != own.or(fallback));
            let kept = present.models.get(model.as_str()).filter(|_| !is_touched);
            let sampler = kept.map_or_else(|| self.sampler(own.or(fallback)), |kept| Ok(Arc::clone(kept)))?;
            models.insert(model.as_str().into(), sampler);
        }
        let global = if changed.is_empty() { self.sampler(fallback)? } else { Arc::clone(&present.global) };
        Ok(Samplers { global, models })
    }

    fn sampler(&self, settings: Chosen) -> std::result::Result<Arc<Sampler>, String> {
        let Chosen { is_on: Some(is_on), rate: Some(rate), count: Some(count), log_frequency: Some(log_frequency) } =
            settings
        else {
            unreachable!("the defaults have every setting")
        };
        // Triton's texts, up to what to do about it.
        if rate == 0 {
            return Err("Attempting to set invalid trace setting :sample rate must be non-zero".to_owned());
        }
        if is_on && !self.tracer.has_sink() {
            return Err(
                "Attempting to set invalid trace setting :trace file name is not given; start the server with \
                        --trace-file FILE (server.trace_file)"
                    .to_owned(),
            );
        }
        Ok(Arc::new(Sampler::new(is_on, rate.into(), count.into(), log_frequency.into())))
    }
}

impl Chosen {
    /// These settings, and those of `fallback` where there are none.
    fn or(self, fallback: Chosen) -> Chosen {
        Chosen {
            is_on: self.is_on.or(fallback.is_on),
            rate: self.rate.or(fallback.rate),
            count: self.count.or(fallback.count),
            log_frequency: self.log_frequency.or(fallback.log_frequency),
        }
    }
}

impl<T> Change<T> {
    fn apply(self, chosen: &mut Option<T>) {
        match self {
            Change::Keep => {}
            Change::Clear => *chosen = None,
            Change::Set(value) => *chosen = Some(value),
        }
    }
}

#[cfg(test)]
mod tests;
