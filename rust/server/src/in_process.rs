//! What a program that holds the [`Server`] asks of it without a socket: the extensions' answers, as JSON.
//!
//! Nothing here waits: what takes time is answered through a channel, so that the caller can look at signals meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use mlserve_core::error::{Error, Result};

use crate::extensions::json::{Members, to_json};
use crate::extensions::{repository, statistics};
use crate::lifecycle::Overrides;
use crate::metrics;
use crate::process::Process;
use crate::proto::{ModelStatisticsRequest, RepositoryIndexRequest};
use crate::server::Server;

impl Server {
    /// A model's metadata as the REST side gives it, as JSON; `version`: `None` lets the server choose. A model that is
    /// loaded on demand is loaded.
    pub fn model_metadata(&self, model: &str, version: Option<u64>) -> Receiver<Result<Vec<u8>>> {
        let model = model.to_owned();
        self.later(async move |process: Arc<Process>| {
            process.models.find(&model, version, None).await?;
            crate::http::model_json(&process, &model, version)
        })
    }

    /// Loads a model, or what of it has changed; `config`: its configuration as JSON, in the place of `config.pbtxt`.
    pub fn load(&self, model: &str, config: Option<String>) -> Receiver<Result<()>> {
        let model = model.to_owned();
        let overrides = Overrides { config, ..Overrides::default() };
        self.later(async move |process: Arc<Process>| process.models.load(&model, overrides).await)
    }

    /// Unloads a model, once everything in flight is answered.
    pub fn unload(&self, model: &str) -> Receiver<Result<()>> {
        let model = model.to_owned();
        self.later(async move |process: Arc<Process>| process.models.unload(&model).await)
    }

    /// The repository's index, a JSON array of objects with name, version, state and reason.
    pub fn index(&self) -> Receiver<Result<String>> {
        self.later(async |process: Arc<Process>| {
            let response = repository::index(&process, RepositoryIndexRequest::default()).await?;
            let mut index = to_json(&response, "RepositoryIndexResponse", Members::All)?;
            Ok(index["models"].take().to_string())
        })
    }

    /// The statistics of a model, or of all if the name is empty, as JSON.
    ///
    /// **Errors:** an unknown or unloaded model.
    pub fn statistics(&self, model: &str) -> Result<String> {
        let request = ModelStatisticsRequest { name: model.to_owned(), version: String::new() };
        let response = statistics::model_statistics(self.process(), &request)?;
        Ok(to_json(&response, "ModelStatisticsResponse", Members::All)?.to_string())
    }

    /// Everything counted, as JSON.
    pub fn snapshot(&self) -> String {
        metrics::snapshot(self.process())
    }

    /// Does `work` on a thread of its own.
    fn later<T, Work, Doing>(&self, work: Work) -> Receiver<Result<T>>
    where
        T: Send + 'static,
        Work: FnOnce(Arc<Process>) -> Doing + Send + 'static,
        Doing: Future<Output = Result<T>>,
    {
        let (sender, receiver) = sync_channel(1);
        let process = Arc::clone(self.process());
        let failed = sender.clone();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let done = match runtime {
                Ok(runtime) => runtime.block_on(work(process)),
                Err(_) => Err(Error::internal("no runtime could be started for the call")),
            };
            // Fails only if the caller has gone.
            let _ = sender.send(done);
        };
        if std::thread::Builder::new().name("call".to_owned()).spawn(run).is_err() {
            let _ = failed.send(Err(Error::internal("no thread could be started for the call")));
        }
        receiver
    }
}
