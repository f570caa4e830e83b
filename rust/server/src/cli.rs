//! The command line of the data plane: `serve`, `inspect`, `config`. The plain binary and the Python command share it.
//!
//! Flags are derived from the settings' schema ([`crate::settings`]); absent means not set, so that the precedence of
//! flag, environment, file and default holds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use mlserve_core::config::{BatchingChoice, LogSettings, Settings};
use mlserve_ort::{LoadOptions, Runtime, RuntimeOptions};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as UnknownName;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::front::Stop;
use crate::lifecycle::{LoadReport, Startup};
use crate::output::{Output, Standard};
use crate::server::{self, Addresses, Server};
use crate::settings::{self, Key, Sources};
use crate::{inspect, output, resources, telemetry};

/// Exit status of a command that was called wrongly or told to do what cannot be done.
const FAILED: i32 = 1;
/// The parts of what is said at the start.
const BANNER_PARTS: usize = 2;
/// How long the end waits for a reader of what was said at the start.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Runs a command; `ort_library` is where the caller found ONNX Runtime, if the settings name none.
///
/// Returns the exit status: 0 after a clean end.
pub fn run(arguments: &[String], ort_library: Option<&Path>) -> i32 {
    mlserve_ort::disable_telemetry();
    let keys = settings::keys();
    let named = std::iter::once("mlserve".to_owned()).chain(switches_joined(arguments, &keys));
    let matches = match command(&keys).try_get_matches_from(named) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are "errors" with status 0.
            drop(error.print());
            return error.exit_code();
        }
    };
    let result = match matches.subcommand() {
        Some(("serve", matches)) => {
            merged(matches, &keys, ort_library).and_then(|(settings, sources)| serve(settings, &sources))
        }
        Some(("inspect", matches)) => inspect(matches, ort_library),
        Some(("config", matches)) => merged(matches, &keys, None).and_then(|(settings, _)| config(&settings)),
        _ => Ok(()),
    };
    status_of(result)
}

/// The exit status of a command; says what went wrong.
fn status_of(result: Result<(), String>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(text) => {
            output::say(Standard::Error, &format!("error: {text}\n"));
            FAILED
        }
    }
}

fn command(keys: &[Key]) -> Command {
    let path = Arg::new("path")
        .value_name("PATH")
        .help("One .onnx file, or a directory with NAME/VERSION/model.onnx or NAME.onnx (setting server.models_path)");
    let serve = Command::new("serve").about("Serve models over gRPC and HTTP").arg(path.clone());
    let config = Command::new("config").about("Print every setting with its value, as TOML").arg(path);
    let inspect = Command::new("inspect")
        .about("Say what would be served from a model file, and why it can or cannot batch")
        .arg(Arg::new("model").value_name("MODEL.onnx").required(true))
        .arg(
            Arg::new("batching")
                .long("batching")
                .value_parser(PossibleValuesParser::new(["auto", "trust", "off"]).try_map(batching_choice))
                .default_value("auto")
                .help("As models.NAME.batching has it"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
        .arg(Arg::new("server.ort_library").long("ort-library").value_name("FILE").help("The ONNX Runtime library"));
    Command::new("mlserve")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A model server: ONNX models over the Open Inference Protocol")
        .subcommand_required(true)
        .subcommand(with_settings(serve, keys))
        .subcommand(inspect)
        .subcommand(with_settings(config, keys))
}

fn with_settings(command: Command, keys: &[Key]) -> Command {
    let file =
        Arg::new("config").long("config").value_name("FILE").help("Settings file [default: ./mlserve.toml, if there]");
    let set = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Any setting by its key, models.digits.max_batch_rows=8 for example");
    let command = command.arg(file).arg(set);
    keys.iter().filter(|key| key.name != "models_path").fold(command, |command, key| {
        let is_switch = key.default.is_boolean();
        let arg = Arg::new(key.path()).long(key.flag()).help(help(key)).help_heading(heading(key.table));
        command.arg(if is_switch {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
        } else {
            arg.value_name("VALUE")
        })
    })
}

/// A switch may be given as `--flag`, `--flag=true`, `--flag true` or `--no-flag`: all are `--flag=BOOL` to the parser,
/// which could not tell a value from a path.
fn switches_joined(arguments: &[String], keys: &[Key]) -> Vec<String> {
    let is_switch = |name: &str| keys.iter().any(|key| key.default.is_boolean() && key.flag() == name);
    let mut joined = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            joined.push(argument.clone());
            break;
        }
        let name = argument.strip_prefix("--").unwrap_or_default();
        let denied = name.strip_prefix("no-").filter(|name| is_switch(name));
        joined.push(if let Some(name) = denied {
            format!("--{name}=false")
        } else if let Some(value) = rest.next_if(|value| is_switch(name) && is_truth(value)) {
            format!("{argument}={value}")
        } else {
            argument.clone()
        });
    }
    joined.extend(rest.cloned());
    joined
}

fn is_truth(text: &str) -> bool {
    ["true", "false"].contains(&text)
}

fn help(key: &Key) -> String {
    let default = match &key.default {
        Value::Null => String::new(),
        Value::Bool(value) => format!(" [default: {value}; --no-{} turns it off]", key.flag()),
        Value::String(text) => format!(" [default: {text}]"),
        other => format!(" [default: {other}]"),
    };
    format!("{}{default}", key.doc)
}

fn heading(table: &str) -> &'static str {
    match table {
        "server" => "Server",
        "limits" => "Limits",
        _ => "Log",
    }
}

fn merged(matches: &ArgMatches, keys: &[Key], ort_library: Option<&Path>) -> Result<(Settings, Sources), String> {
    let mut flags = Vec::new();
    if let Some(path) = matches.get_one::<String>("path") {
        flags.push(("server.models_path".to_owned(), path.clone()));
    }
    for key in keys.iter().filter(|key| key.name != "models_path") {
        flags.extend(matches.get_one::<String>(&key.path()).map(|value| (key.path(), value.clone())));
    }
    for pair in matches.get_many::<String>("set").into_iter().flatten() {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("--set {pair}: expected KEY=VALUE"))?;
        flags.push((key.to_owned(), value.to_owned()));
    }
    let file = matches.get_one::<String>("config").map(PathBuf::from);
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let sources = Sources { file, environment, flags };
    let mut settings = settings::merge(&sources, keys).map_err(|error| error.to_string())?;
    find_library(&mut settings, ort_library);
    Ok((settings, sources))
}

fn find_library(settings: &mut Settings, found: Option<&Path>) {
    let named = &mut settings.server.ort_library;
    if named.is_none() {
        *named = std::env::var_os("MLSERVE_ORT_LIB").map(PathBuf::from).or_else(|| found.map(Path::to_owned));
    }
}

fn serve(settings: Settings, sources: &Sources) -> Result<(), String> {
    telemetry::start(&settings.log);
    let variables = settings::service_variables(&sources.environment);
    if !variables.is_empty() {
        tracing::info!(?variables, "variables that Kubernetes sets beside a Service are no settings");
    }
    let ready_file = settings.server.ready_file.clone();
    if let Some(path) = &ready_file {
        // What an earlier server has left would tell its addresses until this one is ready.
        server::forget_ready_file(path)?;
    }
    // The main thread's, one for each loop, and one for all other threads.
    mlserve_ort::share_heaps(settings.server.event_loops.max(resources::cores()) + 2);
    let signals = Signals::catch(settings.log.access_log_file.is_some())
        .map_err(|error| format!("signals cannot be caught: {error}"))?;
    // The access log's JSON is not mixed with words for people.
    let banner = match settings.log {
        LogSettings { access_log: true, access_log_file: None, .. } => Banner::Logged,
        _ => Banner::start()?,
    };
    let server = Server::start(settings)?;
    let outcome = std::thread::scope(|scope| {
        let following = scope.spawn(|| signals.follow(&server));
        let outcome = announce(&server, &banner, ready_file.as_deref());
        if outcome.is_err() {
            server.stop(Stop::Now);
        }
        server.join();
        // The thread that follows signals sees the stop of a server that ends by itself.
        server.stop(Stop::Now);
        if following.join().is_err() {
            tracing::error!("the thread that follows signals panicked");
        }
        outcome
    });
    banner.flush();
    telemetry::flush();
    if server.left_behind() > 0 {
        mlserve_ort::exit_at_once(status_of(outcome));
    }
    outcome
}

/// Waits for the models, then says what is served where.
fn announce(server: &Server, banner: &Banner, ready_file: Option<&Path>) -> Result<(), String> {
    let Some(startup) = server.wait_until_settled() else { return Ok(()) };
    banner.say(models_text(&startup));
    if server::has_failed(&startup.reports) {
        return Err("no model could be loaded".to_owned());
    }
    let addresses = server.addresses();
    banner.say(addresses_text(addresses, startup.took));
    if matches!(banner, Banner::Logged) {
        let (http, grpc, metrics) = (addresses.http, addresses.grpc, addresses.metrics);
        let ready_s = startup.took.as_secs_f64();
        tracing::info!(%http, %grpc, %metrics, uds = ?addresses.uds, ready_s, "serving");
    }
    ready_file.map_or(Ok(()), |path| server::write_ready_file(path, addresses))
}

/// Where people are told what is served: standard output, which need not take it, or the log.
enum Banner {
    Printed(Output<String>),
    /// Each model has its line there already.
    Logged,
}

impl Banner {
    fn start() -> Result<Self, String> {
        let append = |text: &String, buffer: &mut Vec<u8>| buffer.extend_from_slice(text.as_bytes());
        let printed = Output::start("banner", BANNER_PARTS, append, Standard::Output.open());
        printed.map(Banner::Printed).map_err(|error| format!("no thread can be started: {error}"))
    }

    fn say(&self, text: String) {
        if let Banner::Printed(output) = self {
            output.send(text);
        }
    }

    fn flush(&self) {
        if let Banner::Printed(output) = self {
            output.flush(FLUSH_LIMIT);
        }
    }
}

fn models_text(startup: &Startup) -> String {
    let line = |LoadReport { found, result, took }: &LoadReport| {
        let outcome = match result {
            Ok(batching) => format!("ready in {} ms, {batching}", took.as_millis()),
            Err(reason) => format!("FAILED: {reason}"),
        };
        format!("{:<20} version {:<4} {outcome}\n", found.name, found.version)
    };
    let lines: String = startup.reports.iter().map(line).collect();
    format!("mlserve {}\n{lines}", env!("CARGO_PKG_VERSION"))
}

fn addresses_text(addresses: &Addresses, took: Duration) -> String {
    let Addresses { http, grpc, metrics, uds } = addresses;
    let uds = uds.as_ref().map(|path| format!("Unix socket {}\n", path.display())).unwrap_or_default();
    let took = server::seconds(took);
    format!("HTTP, gRPC  http://{http}  http://{grpc}\n{uds}metrics     http://{metrics}/metrics\nready in {took}\n")
}

/// SIGTERM gives notice and drains, SIGINT drains at once; each further signal hastens.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    /// Whoever moves log files away says so by it. They are made again with their next line; it must not end the server.
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches signals from now on: before anything starts, so that none finds a half-started server.
    fn catch(has_log_file: bool) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt, hangup) = {
            let _entered = runtime.enter();
            let hangup = has_log_file.then(|| signal(SignalKind::hangup())).transpose()?;
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, hangup)
        };
        Ok(Self { runtime, terminate, interrupt, hangup })
    }

    /// Tells `server` what they mean until it has to stop at once.
    fn follow(mut self, server: &Server) {
        self.runtime.block_on(async {
            while server.stop_asked() < Stop::Now {
                let first = tokio::select! {
                    _ = self.terminate.recv() => Stop::Notice,
                    _ = self.interrupt.recv() => Stop::Drain,
                    () = hung_up(&mut self.hangup) => continue,
                    () = server.wait_for_stop(Stop::Now) => return,
                };
                server.stop(match server.stop_asked() {
                    Stop::No => first,
                    Stop::Notice => Stop::Drain,
                    Stop::Drain | Stop::Now => Stop::Now,
                });
            }
        });
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// A choice by its name in the settings.
fn batching_choice(name: String) -> Result<BatchingChoice, UnknownName> {
    BatchingChoice::deserialize(name.into_deserializer())
}

fn inspect(matches: &ArgMatches, ort_library: Option<&Path>) -> Result<(), String> {
    let mut settings = Settings::default();
    settings.server.ort_library = matches.get_one::<String>("server.ort_library").map(PathBuf::from);
    find_library(&mut settings, ort_library);
    let library = settings.server.ort_library.unwrap_or_else(|| PathBuf::from("libonnxruntime.so"));
    let runtime = Runtime::load(&library, RuntimeOptions::default()).map_err(|error| error.text().to_owned())?;
    let path = matches.get_one::<String>("model").map(PathBuf::from).unwrap_or_default();
    let begun = now();
    let batching = matches.get_one::<BatchingChoice>("batching").copied().unwrap_or_default();
    let options = LoadOptions { cores: resources::cores(), batching, ..LoadOptions::default() };
    let loaded = mlserve_ort::load(&runtime, &path, &options).map_err(|error| error.text().to_owned())?;
    let took: Duration = now().saturating_duration_since(begun);
    output::print(&if matches.get_flag("json") {
        format!("{:#}\n", inspect::to_json(&path, &loaded, took))
    } else {
        inspect::to_text(&path, &loaded, took)
    })
}

fn now() -> Instant {
    mlserve_core::clock::Clock::Monotonic.now()
}

fn config(settings: &Settings) -> Result<(), String> {
    let text = toml::to_string(settings).map_err(|error| format!("the settings cannot be written: {error}"))?;
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, String> {
        let keys = settings::keys();
        let given: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let named = std::iter::once("mlserve".to_owned()).chain(switches_joined(&given, &keys));
        let matches = command(&keys).try_get_matches_from(named).map_err(|error| error.to_string())?;
        let (_, matches) = matches.subcommand().ok_or("no command")?;
        merged(matches, &keys, None).map(|(settings, _)| settings)
    }

    #[test]
    fn a_switch_is_given_in_every_way_that_people_try() {
        let forms: [(&[&str], bool); 8] = [
            (&["--strict-readiness"], true),
            (&["--strict-readiness", "true"], true),
            (&["--strict-readiness=true"], true),
            (&["--no-strict-readiness"], false),
            (&["--strict-readiness", "false"], false),
            (&["--strict-readiness=false"], false),
            (&["--access-log", "--strict-readiness", "true", "--report-batches"], true),
            (&[], false),
        ];
        for (flags, expected) in forms {
            for arguments in [[&["serve", "models"], flags].concat(), [&["serve"], flags, &["models"]].concat()] {
                let settings = read(&arguments).expect("valid");
                assert_eq!(settings.server.strict_readiness, expected, "{arguments:?}");
                assert_eq!(settings.server.models_path.as_deref(), Some(Path::new("models")), "{arguments:?}");
            }
        }
    }

    #[test]
    fn what_is_no_truth_value_is_refused_and_a_path_stays_one() {
        assert!(read(&["serve", "--strict-readiness=maybe"]).is_err());
        assert!(read(&["serve", "--no-http-port"]).is_err());
        let settings = read(&["serve", "--strict-readiness", "--", "true"]).expect("valid");
        assert_eq!(settings.server.models_path.as_deref(), Some(Path::new("true")));
    }
}
