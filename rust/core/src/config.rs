//! The data plane's settings: names, defaults, ranges and documentation, once.
//!
//! The doc comments are the reference page (docs/reference/settings.md is generated from them) and the help texts of the
//! flags. `validate` enforces the ranges that the schema only documents. Who merges files, environment and flags:
//! `settings` in the server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::Network;
pub use crate::queue_policy::{QueuePolicySettings, TimeoutAction};
pub use crate::version_policy::VersionPolicy;

/// Everything the data plane can be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Addresses, loops, shutdown.
    pub server: ServerSettings,
    /// What one request, one connection and the process may cost.
    pub limits: LimitSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// One table per model, by its name; every key is optional.
    pub models: BTreeMap<String, ModelSettings>,
    /// Which keys of each model's table were given. These win over the model's own configuration; defaults do not.
    #[serde(skip)]
    pub given: BTreeMap<String, BTreeSet<String>>,
}

/// Addresses, loops, shutdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct ServerSettings {
    /// The model repository: a directory `name/version/model.onnx`, or one .onnx file.
    pub models_path: Option<PathBuf>,
    /// Who decides what is loaded: "none" loads everything once, at the start; "poll" follows the directory; "explicit"
    /// loads what is asked for, by API.
    pub model_control_mode: ModelControlMode,
    /// In mode "poll": seconds between two looks at the directory.
    pub repository_poll_secs: u64,
    /// In mode "explicit": models to load at the start, names with commas between them, or "*" for all.
    pub load_models: String,
    /// Clients may have tensors read from and written to shared memory of this machine, whoever's it is: only for clients
    /// that are trusted.
    pub allow_client_shm: bool,
    /// File that traced requests are written to; without it nothing can be traced.
    pub trace_file: Option<PathBuf>,
    /// Address to bind. The default answers this machine only.
    pub host: String,
    /// Port for HTTP, h2c and gRPC; 0 picks a free one.
    pub http_port: u16,
    /// Second port, the same protocols; 0 picks a free one.
    pub grpc_port: u16,
    /// Port for metrics and health, on a thread of its own; 0 picks a free one.
    pub metrics_port: u16,
    /// Path of a Unix socket that answers like the data ports.
    pub uds: Option<PathBuf>,
    /// The ONNX Runtime shared library; found in the Python environment if not given.
    pub ort_library: Option<PathBuf>,
    /// Event loops; 0: one per core that the process may use (affinity and cgroup quota).
    pub event_loops: usize,
    /// Not ready while a model has failed; otherwise one that is ready suffices.
    pub strict_readiness: bool,
    /// After SIGTERM: milliseconds not ready but still accepting, so that balancers notice.
    pub drain_notice_ms: u64,
    /// After SIGTERM: milliseconds for requests in flight to finish, then connections are cut.
    pub drain_timeout_ms: u64,
    /// File that is written, as JSON with all addresses, once the server is ready.
    pub ready_file: Option<PathBuf>,
    /// Test mode: answers tell in their parameters which batch they shared (`mlserve_batch`, `mlserve_batch_rows`,
    /// `mlserve_batch_offset`).
    pub report_batches: bool,
    /// Origins of web pages that may use this server, such as `https://app.example`, with commas between them, or "*" for
    /// all. Pages of other origins cannot read answers, and may not do more than infer and ask for metadata.
    pub allowed_origins: String,
    /// Host names, with commas between them, under which a server that listens on a loopback address may be told to
    /// change something, besides localhost; "*": any. Addresses are always allowed.
    pub allowed_hosts: String,
    /// Folders, absolute and with commas between them, that links in the repository may lead to. The repository itself
    /// is always allowed. The default is where `KServe` mounts volume claims.
    pub trusted_roots: String,
    /// In mode "poll": whether models are unloaded that are all gone at once, as those of a repository that is emptied or
    /// unmounted. Otherwise what is loaded serves on.
    pub repository_follow_empty: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            models_path: None,
            model_control_mode: ModelControlMode::None,
            repository_poll_secs: 15,
            load_models: String::new(),
            allow_client_shm: false,
            trace_file: None,
            host: "127.0.0.1".to_owned(),
            http_port: 8000,
            grpc_port: 8001,
            metrics_port: 8002,
            uds: None,
            ort_library: None,
            event_loops: 0,
            strict_readiness: false,
            drain_notice_ms: 5_000,
            drain_timeout_ms: 25_000,
            ready_file: None,
            report_batches: false,
            allowed_origins: String::new(),
            allowed_hosts: String::new(),
            trusted_roots: "/mnt/pvc".to_owned(),
            repository_follow_empty: false,
        }
    }
}

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelControlMode {
    /// Everything, once.
    None,
    /// The directory, looked at now and then.
    Poll,
    /// Whoever calls load and unload.
    Explicit,
}

/// What one request, one connection and the process may cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Bytes of requests and answers that the process holds at once; 0: a quarter of the memory it may use.
    pub byte_budget: usize,
    /// Requests in flight in the process.
    pub requests_in_flight: usize,
    /// Bytes of one request, after inflating.
    pub max_body_bytes: usize,
    /// Bytes of one answer.
    pub max_response_bytes: usize,
    /// Bytes of one element of a BYTES tensor.
    pub max_string_bytes: usize,
    /// Bytes of all header fields of a request.
    pub max_header_bytes: usize,
    /// Header fields of a request.
    pub max_headers: usize,
    /// Levels of nesting in a JSON body.
    pub max_json_depth: usize,
    /// Inputs, and outputs, of one request.
    pub max_tensors: usize,
    /// Dimensions of one tensor.
    pub max_rank: usize,
    /// Streams at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Connections at once; 0: half of the file descriptors that the process may open, at most 10000.
    pub max_connections: usize,
    /// Connections at once from one address (of IPv6, from one network of 64 bits); 0: half of `max_connections`. There is
    /// no such limit for this machine's own connections and for `trusted_proxies`.
    pub max_connections_per_address: usize,
    /// Milliseconds for the first bytes and the header of a request.
    pub header_timeout_ms: u64,
    /// Milliseconds that an HTTP/1.1 connection may idle between requests, and an HTTP/2 connection without a stream.
    pub idle_timeout_ms: u64,
    /// Milliseconds before a body must keep `min_body_rate`.
    pub body_grace_ms: u64,
    /// Bytes per second that a body must arrive with, after the grace; 256 times as many beyond its first 64 KiB.
    pub min_body_rate: u64,
    /// Milliseconds that an answer may wait for a reader that does not read.
    pub write_timeout_ms: u64,
    /// Seconds after which a connection is closed gracefully; 0: never.
    pub max_connection_age_s: u64,
    /// Milliseconds a request may take if its caller sets no deadline; 0: for ever.
    pub default_deadline_ms: u64,
    /// Milliseconds a request may take, whatever its caller asks; 0: no bound. A run is stopped once nobody waits for it.
    pub max_deadline_ms: u64,
    /// Bytes that the runtime may hold for activations; 0: half of the memory the process may use.
    pub arena_bytes: usize,
    /// Bytes of model files loaded at once. Above, models are loaded when they are asked for, and the least recently
    /// used go; 0: no bound, everything stays loaded.
    pub model_memory_bytes: usize,
    /// Bytes per second that an answer must be read with, after `write_timeout_ms`; 0: any progress will do.
    pub min_read_rate: u64,
    /// Addresses and networks (`10.0.0.0/8`), with commas between them, of proxies that bring many clients:
    /// `max_connections_per_address` does not hold for them.
    pub trusted_proxies: String,
    /// Milliseconds that a model which was loaded because it was asked for stays loaded at least. What asks for others
    /// waits so long; otherwise models that do not fit together would be loaded anew for every request.
    pub model_residency_ms: u64,
    /// Bytes of all files that came with loads and are kept until their models are unloaded.
    pub upload_bytes: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            byte_budget: 0,
            requests_in_flight: 20_000,
            max_body_bytes: 64 << 20,
            max_response_bytes: 256 << 20,
            max_string_bytes: 16 << 20,
            max_header_bytes: 16 << 10,
            max_headers: 100,
            max_json_depth: 64,
            max_tensors: 256,
            max_rank: 16,
            max_streams: 100,
            max_connections: 0,
            max_connections_per_address: 0,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 300_000,
            body_grace_ms: 5_000,
            min_body_rate: 1_024,
            write_timeout_ms: 30_000,
            max_connection_age_s: 1_800,
            default_deadline_ms: 30_000,
            max_deadline_ms: 300_000,
            arena_bytes: 0,
            model_memory_bytes: 0,
            min_read_rate: 16 << 10,
            trusted_proxies: String::new(),
            model_residency_ms: 2_000,
            upload_bytes: 1 << 30,
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Least severity that is logged.
    pub log_level: LogLevel,
    /// Form of a line.
    pub log_format: LogFormat,
    /// One line per request, written by a thread of its own; lines that it cannot keep up with are dropped and counted.
    pub access_log: bool,
    /// File that the access log is appended to, and that is made again when it has been moved away; without it the log
    /// goes to standard output, where nothing else is written then.
    pub access_log_file: Option<PathBuf>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { log_level: LogLevel::Info, log_format: LogFormat::Auto, access_log: false, access_log_file: None }
    }
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures.
    Error,
    /// What may become one.
    Warn,
    /// Changes of state.
    Info,
    /// For debugging.
    Debug,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Console on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Console,
}

/// How one model is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Path of the .onnx file or of the directory with the versions; default: below `server.models_path`.
    pub path: Option<PathBuf>,
    /// Versions to serve: "latest", "latest:2", "all", or numbers such as "1,3".
    pub versions: VersionPolicy,
    /// Rows of one run at most; larger requests are split and joined again. 1 turns batching off. Of rows without any
    /// bytes, a request may have sixteen times as many.
    pub max_batch_rows: usize,
    /// Microseconds that a batch may wait for more rows while an instance is free.
    pub max_delay_us: u64,
    /// Requests that may wait.
    pub queue_capacity: usize,
    /// Microseconds that a request may wait in the queue; 0: only its deadline counts.
    pub queue_timeout_us: u64,
    /// What happens to a request that has waited so long: "reject" refuses it, "delay" lets it wait on, behind the others
    /// of its level.
    pub timeout_action: TimeoutAction,
    /// Whether the `timeout` parameter of a request shortens that time; otherwise it is ignored.
    pub allow_timeout_override: bool,
    /// Levels of priority, 1 the highest; 0: one level, the parameter is ignored.
    pub priority_levels: u64,
    /// Level of requests that ask for none, or for one that there is not; 0: the middle one.
    pub default_priority: u64,
    /// Per level, from 1: `timeout_us`, `timeout_action` and `allow_timeout_override` in place of the model's, and
    /// `capacity`, the requests that may wait in this level (0: as many as in the queue).
    pub queue_policies: BTreeMap<u64, QueuePolicySettings>,
    /// Threads that run batches at once; 0: as many as cores and `threads` allow.
    pub instances: usize,
    /// Threads of one run; 0: measured when the model is warmed up.
    pub threads: usize,
    /// Whether cheap batches run on the event loop itself.
    pub inline: bool,
    /// Loaded at the start and never evicted, whatever `limits.model_memory_bytes` says.
    pub pin: bool,
    /// Whether requests share runs: "auto" if the model is shown to keep rows apart; "trust" also if it is not, on your
    /// word; "off" never: one request per run.
    pub batching: BatchingChoice,
}

/// Whether the requests for a model share runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchingChoice {
    /// If its rows are shown to be independent.
    #[default]
    Auto,
    /// Also if they are not: whoever set this knows better.
    Trust,
    /// Never.
    Off,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            path: None,
            versions: VersionPolicy::default(),
            max_batch_rows: 64,
            max_delay_us: 0,
            queue_capacity: 4_096,
            queue_timeout_us: 0,
            timeout_action: TimeoutAction::Reject,
            allow_timeout_override: true,
            priority_levels: 0,
            default_priority: 0,
            queue_policies: BTreeMap::new(),
            instances: 0,
            threads: 0,
            inline: true,
            pin: false,
            batching: BatchingChoice::Auto,
        }
    }
}

/// A setting with a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// Path of the key, `limits.max_rank` for example.
    pub key: String,
    /// The value.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl std::fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}: allowed is {}", self.key, self.value, self.allowed)
    }
}

impl std::error::Error for InvalidSetting {}

impl Settings {
    /// Checks what types alone cannot say.
    ///
    /// **Errors:** the first setting out of its range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let limits = &self.limits;
        if self.server.host.is_empty() {
            return Err(invalid("server.host", "\"\"", "an IP address or a host name"));
        }
        if let Some(bad) = self.server.allowed_origins.split(',').map(str::trim).find(|origin| !is_origin(origin)) {
            return Err(invalid(
                "server.allowed_origins",
                bad,
                "http://NAME or https://NAME, with a port if need be, or *",
            ));
        }
        if !self.server.load_models.is_empty() && self.server.model_control_mode != ModelControlMode::Explicit {
            let allowed = "a list only with server.model_control_mode = \"explicit\"; the other modes load every model";
            return Err(invalid("server.load_models", format!("{:?}", self.server.load_models), allowed));
        }
        if let (false, Some(file)) = (self.log.access_log, &self.log.access_log_file) {
            let allowed = "a file only with log.access_log = true";
            return Err(invalid("log.access_log_file", file.display(), allowed));
        }
        let roots = self.server.trusted_roots.split(',').map(str::trim).filter(|folder| !folder.is_empty());
        if let Some(folder) = roots.into_iter().find(|folder| !folder.starts_with('/')) {
            return Err(invalid(
                "server.trusted_roots",
                format!("\"{folder}\""),
                "absolute paths with commas between them",
            ));
        }
        within("server.repository_poll_secs", self.server.repository_poll_secs as usize, 1, 86_400)?;
        within("server.event_loops", self.server.event_loops, 0, 1_024)?;
        within("limits.requests_in_flight", limits.requests_in_flight, 1, 10_000_000)?;
        within("limits.max_body_bytes", limits.max_body_bytes, 1, i32::MAX as usize)?;
        within("limits.max_response_bytes", limits.max_response_bytes, 1, i32::MAX as usize)?;
        within("limits.max_string_bytes", limits.max_string_bytes, 1, i32::MAX as usize)?;
        within("limits.max_header_bytes", limits.max_header_bytes, 1_024, 1 << 20)?;
        within("limits.max_headers", limits.max_headers, 8, 1_000)?;
        within("limits.max_json_depth", limits.max_json_depth, 4, 128)?;
        within("limits.max_tensors", limits.max_tensors, 1, 65_536)?;
        within("limits.max_rank", limits.max_rank, 1, 64)?;
        within("limits.max_streams", limits.max_streams as usize, 1, 100_000)?;
        within("limits.header_timeout_ms", limits.header_timeout_ms as usize, 1, 3_600_000)?;
        within("limits.idle_timeout_ms", limits.idle_timeout_ms as usize, 1, 86_400_000)?;
        within("limits.write_timeout_ms", limits.write_timeout_ms as usize, 1, 3_600_000)?;
        if let Err(part) = Network::list(&limits.trusted_proxies) {
            return Err(invalid("limits.trusted_proxies", part, "addresses and networks such as 10.0.0.0/8"));
        }
        within("limits.model_residency_ms", limits.model_residency_ms as usize, 0, 3_600_000)?;
        if limits.byte_budget != 0 && limits.byte_budget < limits.max_body_bytes {
            let allowed = format!("0, or at least limits.max_body_bytes ({})", limits.max_body_bytes);
            return Err(invalid("limits.byte_budget", limits.byte_budget, &allowed));
        }
        self.models.iter().try_for_each(|(name, model)| model.validate(name))
    }
}

impl ModelSettings {
    /// Checks what types alone cannot say, for the model `name`.
    ///
    /// **Errors:** the first setting out of its range.
    pub fn validate(&self, name: &str) -> Result<(), InvalidSetting> {
        let key = |leaf: &str| format!("models.{name}.{leaf}");
        within(&key("max_batch_rows"), self.max_batch_rows, 1, 1 << 20)?;
        within(&key("max_delay_us"), self.max_delay_us as usize, 0, 60_000_000)?;
        within(&key("queue_capacity"), self.queue_capacity, 1, 10_000_000)?;
        within(&key("priority_levels"), self.priority_levels as usize, 0, 64)?;
        within(&key("default_priority"), self.default_priority as usize, 0, self.priority_levels as usize)?;
        for &level in self.queue_policies.keys() {
            if level == 0 || level > self.priority_levels {
                let allowed = match self.priority_levels {
                    0 => "none, because priority_levels is 0".to_owned(),
                    levels => format!("level 1 to {levels} (priority_levels)"),
                };
                return Err(invalid(&key("queue_policies"), format!("level {level}"), &allowed));
            }
        }
        within(&key("instances"), self.instances, 0, 1_024)?;
        within(&key("threads"), self.threads, 0, 1_024)
    }
}

/// Whether browsers may call a page's origin so; an empty one is none.
fn is_origin(text: &str) -> bool {
    let name = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    text.is_empty() || text == "*" || name.is_some_and(|name| !name.is_empty() && !name.contains(['/', ' ', '@']))
}

fn within(key: &str, value: usize, least: usize, most: usize) -> Result<(), InvalidSetting> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(key, value, &format!("{least} to {most}")))
}

fn invalid(key: &str, value: impl std::fmt::Display, allowed: &str) -> InvalidSetting {
    InvalidSetting { key: key.to_owned(), value: value.to_string(), allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn a_bad_value_names_its_key_and_what_is_allowed() {
        let mut settings = Settings::default();
        settings.models.insert("m".to_owned(), ModelSettings { max_batch_rows: 0, ..ModelSettings::default() });
        let error = settings.validate().expect_err("0 rows");
        assert_eq!(error.to_string(), "models.m.max_batch_rows = 0: allowed is 1 to 1048576");
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_name() {
        let with_origins = |origins: &str| {
            let server = ServerSettings { allowed_origins: origins.to_owned(), ..ServerSettings::default() };
            Settings { server, ..Settings::default() }.validate()
        };
        for sound in ["", "*", "https://app.example", "http://localhost:3000, https://app.example"] {
            assert_eq!(with_origins(sound), Ok(()), "{sound}");
        }
        for bad in ["app.example", "https://", "https://app.example/", "ftp://app.example"] {
            assert!(with_origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_access_log_has_a_file_only_if_it_is_on() {
        let with = |access_log| {
            let log = LogSettings { access_log, access_log_file: Some("a.log".into()), ..LogSettings::default() };
            Settings { log, ..Settings::default() }.validate()
        };
        assert_eq!(with(true), Ok(()));
        let text = with(false).expect_err("ignored otherwise").to_string();
        assert!(text.starts_with("log.access_log_file = a.log: allowed is a file only with"), "{text}");
    }

    #[test]
    fn models_to_load_are_named_in_mode_explicit_only() {
        let with_mode = |model_control_mode| {
            let server =
                ServerSettings { load_models: "a".to_owned(), model_control_mode, ..ServerSettings::default() };
            Settings { server, ..Settings::default() }.validate()
        };
        assert_eq!(with_mode(ModelControlMode::Explicit), Ok(()));
        for mode in [ModelControlMode::None, ModelControlMode::Poll] {
            let text = with_mode(mode).expect_err("ignored otherwise").to_string();
            assert!(text.starts_with("server.load_models = \"a\": allowed is a list only with"), "{text}");
        }
    }

    #[test]
    fn a_proxy_that_is_no_address_is_named() {
        let mut settings = Settings::default();
        settings.limits.trusted_proxies = "10.0.0.0/8, proxy.example".to_owned();
        let error = settings.validate().expect_err("a name");
        let text = "limits.trusted_proxies = proxy.example: allowed is addresses and networks such as 10.0.0.0/8";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_policy_for_a_level_that_there_is_not_is_refused() {
        let with_levels = |priority_levels| {
            let queue_policies = [(3, QueuePolicySettings::default())].into();
            let model = ModelSettings { priority_levels, queue_policies, ..ModelSettings::default() };
            Settings { models: [("m".to_owned(), model)].into(), ..Settings::default() }.validate()
        };
        assert_eq!(with_levels(3), Ok(()));
        let text = |levels| with_levels(levels).expect_err("no such level").to_string();
        assert_eq!(text(2), "models.m.queue_policies = level 3: allowed is level 1 to 2 (priority_levels)");
        assert_eq!(text(0), "models.m.queue_policies = level 3: allowed is none, because priority_levels is 0");
    }
}
