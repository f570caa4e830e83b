//! `POST /v2/repository/…`: what there is, loading and unloading.

use std::sync::Arc;

use mlserve_core::error::{Error, Result};

use super::{Body, done};
use crate::extensions::repository;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::{RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest};

/// The index, a bare array whose members are left out where they are empty.
pub(super) fn index(process: &Process, _body: Option<Body>) -> Result<HttpResponse> {
    repository::index(process, &RepositoryIndexRequest::default())?;
    Err(Error::internal("not written yet"))
}

/// Loads a model.
pub(super) async fn load(process: &Arc<Process>, target: &Target, _body: Option<Body>) -> Result<HttpResponse> {
    let request = RepositoryModelLoadRequest { model_name: target.model.to_string(), ..Default::default() };
    repository::load(process, request).await?;
    Ok(done())
}

/// Unloads a model.
pub(super) async fn unload(process: &Arc<Process>, target: &Target, _body: Option<Body>) -> Result<HttpResponse> {
    let request = RepositoryModelUnloadRequest { model_name: target.model.to_string(), ..Default::default() };
    repository::unload(process, request).await?;
    Ok(done())
}
