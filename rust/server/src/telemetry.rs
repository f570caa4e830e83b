//! Structured logs: JSON lines or a form for people; never per request at info.
//!
//! What is logged can be changed while the server runs ([`LogControl`]). Logging belongs to the process, as standard error
//! does: the first server of a process sets it up, and all of them log, and change it, together. Whoever logs never
//! waits: lines are written by a thread of their own, and so are the messages of panics.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mlserve_core::config::{LogFormat, LogLevel, LogSettings};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime, UtcTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::limit::Limiter;
use self::lines::LogLines;
use self::refusals::Refusals;
pub(crate) use self::refusals::{Failed, Peer, failed};
use crate::output::Standard;

mod limit;
mod lines;
mod refusals;

/// How long the end of a server, or of the process, waits for a standard error that takes nothing.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Sends the process's log lines to standard error. Only the first call in a process has an effect.
pub(crate) fn start(settings: &LogSettings) {
    if LogControl::of_process().is_some() {
        // A second server in the same process logs where the first one does.
        return;
    }
    let console = match settings.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Console => true,
    };
    let Ok(lines) = LogLines::start(Standard::Error.open()) else { return };
    let control = LogControl::new(settings.log_level, Some(lines.clone()));
    let timer = Timer { control: control.clone(), console };
    let layer = tracing_subscriber::fmt::layer().with_writer(lines).with_timer(timer);
    let registry = tracing_subscriber::registry().with(control);
    let started = if console {
        registry.with(layer.with_target(false).with_ansi(std::io::stderr().is_terminal())).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Waits until what was logged is written, for a moment at most.
pub(crate) fn flush() {
    if let Some(lines) = LogControl::of_process().and_then(|control| control.0.lines.clone()) {
        lines.flush(FLUSH_LIMIT);
    }
}

/// Log lines of this process that were lost, because standard error did not take them.
pub(crate) fn lost() -> u64 {
    let control = LogControl::of_process();
    control.and_then(|control| control.0.lines.as_ref().map(LogLines::lost)).unwrap_or_default()
}

/// In place of the standard hook, which writes to standard error itself and waits for it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("without a text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(thread = thread.name().unwrap_or_default(), place, text, "a thread panicked");
}

/// Which lines the process logs, and how their time is written.
#[derive(Clone, Debug)]
pub(crate) struct LogControl(Arc<Choices>);

#[derive(Debug)]
struct Choices {
    error: AtomicBool,
    warning: AtomicBool,
    info: AtomicBool,
    verbose_level: AtomicU32,
    whole_seconds: AtomicBool,
    limiter: Limiter,
    refusals: Refusals,
    /// Where lines go; `None` in tests of the choices.
    lines: Option<LogLines>,
}

/// What a [`LogControl`] is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
pub(crate) struct LogChoices {
    /// Failures.
    pub(crate) error: bool,
    /// What may become one.
    pub(crate) warning: bool,
    /// Changes of state.
    pub(crate) info: bool,
    /// For debugging, if it is not 0.
    pub(crate) verbose_level: u32,
    /// Times are written to the second (`ISO8601`), instead of as finely as the clock has them (`default`).
    pub(crate) whole_seconds: bool,
}

impl LogControl {
    fn new(level: LogLevel, lines: Option<LogLines>) -> Self {
        let choices = Choices {
            error: AtomicBool::new(true),
            warning: AtomicBool::new(level != LogLevel::Error),
            info: AtomicBool::new(matches!(level, LogLevel::Info | LogLevel::Debug)),
            verbose_level: AtomicU32::new(u32::from(level == LogLevel::Debug)),
            whole_seconds: AtomicBool::new(false),
            limiter: Limiter::default(),
            refusals: Refusals::default(),
            lines,
        };
        Self(Arc::new(choices))
    }

    /// That of this process; `None` if something else than a server of ours has set up its logging.
    pub(crate) fn of_process() -> Option<Self> {
        tracing::dispatcher::get_default(|dispatch| dispatch.downcast_ref::<LogControl>().cloned())
    }

    /// What is logged now.
    pub(crate) fn choices(&self) -> LogChoices {
        let Choices { error, warning, info, verbose_level, whole_seconds, .. } = &*self.0;
        LogChoices {
            error: error.load(Ordering::Relaxed),
            warning: warning.load(Ordering::Relaxed),
            info: info.load(Ordering::Relaxed),
            verbose_level: verbose_level.load(Ordering::Relaxed),
            whole_seconds: whole_seconds.load(Ordering::Relaxed),
        }
    }

    /// Logs by other choices from now on.
    pub(crate) fn choose(&self, choices: LogChoices) {
        self.0.error.store(choices.error, Ordering::Relaxed);
        self.0.warning.store(choices.warning, Ordering::Relaxed);
        self.0.info.store(choices.info, Ordering::Relaxed);
        self.0.verbose_level.store(choices.verbose_level, Ordering::Relaxed);
        self.0.whole_seconds.store(choices.whole_seconds, Ordering::Relaxed);
        // Each place that logs remembers the most that anybody wants to see.
        tracing::callsite::rebuild_interest_cache();
    }

    fn is_wanted(&self, level: Level) -> bool {
        match level {
            Level::ERROR => self.0.error.load(Ordering::Relaxed),
            Level::WARN => self.0.warning.load(Ordering::Relaxed),
            Level::INFO => self.0.info.load(Ordering::Relaxed),
            Level::DEBUG => self.0.verbose_level.load(Ordering::Relaxed) > 0,
            // The protocol libraries' own; ours have none.
            _ => false,
        }
    }
}

impl<S: Subscriber> Layer<S> for LogControl {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Peers must not fill the log: the protocol libraries report what peers do wrong, some of it at warn.
        let is_foreign = ["h2", "hyper"].iter().any(|library| metadata.target().starts_with(library));
        self.is_wanted(*metadata.level()) && (!is_foreign || *metadata.level() == Level::ERROR)
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Lines for debugging are asked for.
        *event.metadata().level() == Level::DEBUG || self.0.limiter.allows(event.metadata())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = [Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        let most = levels.into_iter().find(|&level| self.is_wanted(level));
        Some(most.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }
}

/// Writes the time of a line as the control says.
#[derive(Debug)]
struct Timer {
    control: LogControl,
    console: bool,
}

impl FormatTime for Timer {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        if self.control.0.whole_seconds.load(Ordering::Relaxed) {
            writer.write_str(&to_the_second(&timestamp()))
        } else if self.console {
            SystemTime.format_time(writer)
        } else {
            UtcTime::rfc_3339().format_time(writer)
        }
    }
}

/// A moment in RFC 3339 without the parts of its second.
fn to_the_second(timestamp: &str) -> String {
    let whole = timestamp.split_once('.').map_or(timestamp.trim_end_matches('Z'), |(whole, _)| whole);
    format!("{whole}Z")
}

/// The present moment for a log line, RFC 3339 in UTC.
pub(crate) fn timestamp() -> String {
    let mut text = String::new();
    let mut writer = Writer::new(&mut text);
    match UtcTime::rfc_3339().format_time(&mut writer) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;
