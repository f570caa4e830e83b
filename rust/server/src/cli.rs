//! The command line of the data plane: `serve`, `inspect`, `config`. The plain binary and the Python command share it.
//!
//! Flags are derived from the settings' schema ([`crate::settings`]); absent means not set, so that the precedence of
//! flag, environment, file and default holds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use mlserve_core::config::Settings;
use mlserve_ort::{LoadOptions, Runtime, RuntimeOptions};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::front::Stop;
use crate::lifecycle::{LoadReport, Startup};
use crate::server::{self, Server};
use crate::settings::{self, Key, Sources};
use crate::{inspect, resources};

/// Exit status of a command that was called wrongly or told to do what cannot be done.
const FAILED: i32 = 1;

/// Runs a command; `ort_library` is where the caller found ONNX Runtime, if the settings name none.
///
/// Returns the exit status: 0 after a clean end.
pub fn run(arguments: &[String], ort_library: Option<&Path>) -> i32 {
    mlserve_ort::disable_telemetry();
    let named = std::iter::once("mlserve").chain(arguments.iter().map(String::as_str));
    let keys = settings::keys();
    let matches = match command(&keys).try_get_matches_from(named) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are "errors" with status 0.
            drop(error.print());
            return error.exit_code();
        }
    };
    let result = match matches.subcommand() {
        Some(("serve", matches)) => merged(matches, &keys, ort_library).and_then(serve),
        Some(("inspect", matches)) => inspect(matches, ort_library),
        Some(("config", matches)) => merged(matches, &keys, None).and_then(|settings| config(&settings)),
        _ => Ok(()),
    };
    match result {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("error: {text}");
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

fn help(key: &Key) -> String {
    let default = match &key.default {
        Value::Null => String::new(),
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

fn merged(matches: &ArgMatches, keys: &[Key], ort_library: Option<&Path>) -> Result<Settings, String> {
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
    let mut settings =
        settings::merge(&Sources { file, environment, flags }, keys).map_err(|error| error.to_string())?;
    find_library(&mut settings, ort_library);
    Ok(settings)
}

fn find_library(settings: &mut Settings, found: Option<&Path>) {
    let named = &mut settings.server.ort_library;
    if named.is_none() {
        *named = std::env::var_os("MLSERVE_ORT_LIB").map(PathBuf::from).or_else(|| found.map(Path::to_owned));
    }
}

fn serve(settings: Settings) -> Result<(), String> {
    let ready_file = settings.server.ready_file.clone();
    // The main thread's, one for each loop, and one for all other threads.
    mlserve_ort::share_heaps(settings.server.event_loops.max(resources::cores()) + 2);
    let signals = Signals::catch().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let server = Server::start(settings)?;
    std::thread::scope(|scope| {
        let following = scope.spawn(|| signals.follow(&server));
        let outcome = announce(&server, ready_file.as_deref());
        if outcome.is_err() {
            server.stop(Stop::Now);
        }
        server.join();
        // The thread that follows signals sees the stop of a server that ends by itself.
        server.stop(Stop::Now);
        if following.join().is_err() {
            eprintln!("error: the thread that follows signals panicked");
        }
        outcome
    })
}

/// Waits for the models, then says what is served where.
fn announce(server: &Server, ready_file: Option<&Path>) -> Result<(), String> {
    let Some(startup) = server.wait_until_settled() else { return Ok(()) };
    print_models(&startup);
    if server::has_failed(&startup.reports) {
        return Err("no model could be loaded".to_owned());
    }
    let addresses = server.addresses();
    println!("HTTP, gRPC  http://{}  http://{}", addresses.http, addresses.grpc);
    if let Some(path) = &addresses.uds {
        println!("Unix socket {}", path.display());
    }
    println!("metrics     http://{}/metrics", addresses.metrics);
    println!("ready in {}", server::seconds(startup.took));
    ready_file.map_or(Ok(()), |path| server::write_ready_file(path, addresses))
}

fn print_models(startup: &Startup) {
    println!("mlserve {}", env!("CARGO_PKG_VERSION"));
    for LoadReport { found, result, took } in &startup.reports {
        let took = format!("{} ms", took.as_millis());
        match result {
            Ok(batching) => println!("{:<20} version {:<4} ready in {took}, {batching}", found.name, found.version),
            Err(reason) => println!("{:<20} version {:<4} FAILED: {reason}", found.name, found.version),
        }
    }
}

/// SIGTERM gives notice and drains, SIGINT drains at once; each further signal hastens.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches signals from now on: before anything starts, so that none finds a half-started server.
    fn catch() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _entered = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Tells `server` what they mean until it has to stop at once.
    fn follow(mut self, server: &Server) {
        self.runtime.block_on(async {
            while server.stop_asked() < Stop::Now {
                let first = tokio::select! {
                    _ = self.terminate.recv() => Stop::Notice,
                    _ = self.interrupt.recv() => Stop::Drain,
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

fn inspect(matches: &ArgMatches, ort_library: Option<&Path>) -> Result<(), String> {
    let mut settings = Settings::default();
    settings.server.ort_library = matches.get_one::<String>("server.ort_library").map(PathBuf::from);
    find_library(&mut settings, ort_library);
    let library = settings.server.ort_library.unwrap_or_else(|| PathBuf::from("libonnxruntime.so"));
    let runtime = Runtime::load(&library, RuntimeOptions::default()).map_err(|error| error.text().to_owned())?;
    let path = matches.get_one::<String>("model").map(PathBuf::from).unwrap_or_default();
    let begun = now();
    let options = LoadOptions { cores: resources::cores(), ..LoadOptions::default() };
    let loaded = mlserve_ort::load(&runtime, &path, &options).map_err(|error| error.text().to_owned())?;
    let took: Duration = now().saturating_duration_since(begun);
    if matches.get_flag("json") {
        println!("{:#}", inspect::to_json(&path, &loaded, took));
    } else {
        print!("{}", inspect::to_text(&path, &loaded, took));
    }
    Ok(())
}

fn now() -> Instant {
    mlserve_core::clock::Clock::Monotonic.now()
}

fn config(settings: &Settings) -> Result<(), String> {
    let text = toml::to_string(settings).map_err(|error| format!("the settings cannot be written: {error}"))?;
    print!("{text}");
    Ok(())
}
