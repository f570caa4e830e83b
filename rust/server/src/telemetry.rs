//! Structured logs: JSON lines or a form for people; never per request at info.

use std::io::IsTerminal;

use mlserve_core::config::{LogFormat, LogLevel, LogSettings};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::time::{FormatTime, UtcTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends the process's log lines to standard error. Only the first call in a process has an effect.
pub(crate) fn start(settings: &LogSettings) {
    let level = match settings.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let console = match settings.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Console => true,
    };
    // Peers must not fill the log: the protocol libraries report what peers do wrong, some of it at warn.
    let quiet = level.min(LevelFilter::ERROR);
    let filter = Targets::new().with_default(level).with_target("h2", quiet).with_target("hyper", quiet);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second server in the same process logs where the first one does.
    let _ = if console {
        registry.with(lines.with_target(false).with_ansi(std::io::stderr().is_terminal())).try_init()
    } else {
        registry.with(lines.json().flatten_event(true).with_timer(UtcTime::rfc_3339())).try_init()
    };
}

/// The present moment for a log line, RFC 3339 in UTC.
pub(crate) fn timestamp() -> String {
    let mut text = String::new();
    let mut writer = tracing_subscriber::fmt::format::Writer::new(&mut text);
    match UtcTime::rfc_3339().format_time(&mut writer) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}
