//! Structured logs: JSON lines or a form for people; never per request at info.

use std::io::IsTerminal;

use mlserve_core::config::{LogFormat, LogLevel, LogSettings};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::time::{FormatTime, UtcTime};

/// Sends the process's log lines to standard error. Only the first call in a process has an effect.
pub(crate) fn start(settings: &LogSettings) {
    let level = match settings.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let console = match settings.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Console => true,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // A second server in the same process logs where the first one does.
    let _ = if console {
        builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).with_timer(UtcTime::rfc_3339()).try_init()
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
