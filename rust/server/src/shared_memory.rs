//! Shared memory of clients on this machine: the regions they registered, and the tensors that lie in them.
//!
//! A region is a part of a file directly below `/dev/shm`, which is what `shm_open` opens. It is never mapped: a client that
//! shortened its file would kill the server with SIGBUS (docs/decisions/0007-shared-memory-without-mapping.md). Tensors are
//! read and written by system calls, which fail for the one request only. Errors never repeat the name or key of a
//! region: whoever learns an internal one could register it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mlserve_core::error::{Error, Kind, Result};
use parking_lot::RwLock;

use crate::resources;

mod place;
mod region;
mod tensors;

pub(crate) use place::{BYTE_SIZE, Given, OFFSET, Place, PlaceParameters, REGION};
pub(crate) use region::{Region, Window};
pub(crate) use tensors::{Destinations, SharedTensors, Writes, attach};

/// Where `shm_open` puts its files on Linux.
const FOLDER: &str = "/dev/shm";

/// Regions at most; clients register a few each.
const MAX_REGIONS: usize = 1_024;

/// Each region holds a file open. Together they get one in so many that the process may open: connections get half.
const FILES_PER_REGION: usize = 8;

/// Bytes of a region's name; what clients use is far shorter.
const MAX_NAME_BYTES: usize = 256;

/// Triton's own regions begin so; a client that could register them could read and change other requests.
const RESERVED_PREFIX: &str = "triton_python_backend_shm_region_";

/// The regions that are registered now.
#[derive(Debug)]
pub struct Regions {
    is_allowed: bool,
    /// How many there may be.
    most: usize,
    folder: PathBuf,
    registered: RwLock<BTreeMap<Box<str>, Arc<Region>>>,
}

impl Regions {
    /// No regions; `is_allowed`: clients may register some (`server.allow_client_shm`).
    pub fn new(is_allowed: bool) -> Self {
        Self::in_folder(is_allowed, FOLDER.into())
    }

    fn in_folder(is_allowed: bool, folder: PathBuf) -> Self {
        Self { is_allowed, most: most_regions(resources::open_files()), folder, registered: RwLock::default() }
    }

    /// Refuses everything if shared memory is off.
    pub(crate) fn check_allowed(&self) -> Result<()> {
        if self.is_allowed { Ok(()) } else { Err(disabled()) }
    }

    /// Registers `byte_size` bytes from `offset` on of the shared memory object `key` as `name`.
    ///
    /// **Errors:** off; a name or key that may not be; a name that is taken; too many; an object that cannot be opened or
    /// is too small.
    pub(crate) fn register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<()> {
        self.check_allowed()?;
        check_name(name)?;
        let region = Region::open(&self.folder, key, offset, byte_size)?;
        let mut regions = self.registered.write();
        if regions.contains_key(name) {
            return Err(Error::invalid(
                "a shared memory region of this name is already in manager; unregister it first",
            ));
        }
        if regions.len() >= self.most {
            return Err(Error::too_large(format!(
                "{} shared memory regions are registered; more are not allowed",
                self.most
            )));
        }
        regions.insert(name.into(), Arc::new(region));
        Ok(())
    }

    /// Forgets `name`, or everything if it is empty. Requests in flight keep the file that they found.
    ///
    /// **Errors:** off, and a name is given. To forget all of nothing is allowed: clients begin with it.
    pub(crate) fn unregister(&self, name: &str) -> Result<()> {
        if name.is_empty() {
            self.registered.write().clear();
            return Ok(());
        }
        self.check_allowed()?;
        // A name that is not registered is no error, as with Triton.
        self.registered.write().remove(name);
        Ok(())
    }

    /// The region `name`, or all if it is empty, by name.
    ///
    /// **Errors:** there is none of that name.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<(String, Arc<Region>)>> {
        let regions = self.registered.read();
        if name.is_empty() {
            return Ok(regions.iter().map(|(name, region)| (name.to_string(), Arc::clone(region))).collect());
        }
        let region = regions.get(name).ok_or_else(|| unknown("system shared memory"))?;
        Ok(vec![(name.to_owned(), Arc::clone(region))])
    }

    /// The part of a region that a tensor lies in.
    ///
    /// **Errors:** off; no such region; outside of it.
    pub(crate) fn window(&self, place: &Place) -> Result<Window> {
        self.check_allowed()?;
        let region = self.registered.read().get(&*place.region).map(Arc::clone);
        region.ok_or_else(|| unknown("shared memory"))?.window(place.offset, place.byte_size)
    }
}

fn most_regions(open_files: usize) -> usize {
    MAX_REGIONS.min(open_files / FILES_PER_REGION)
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("'region name' is necessary to register system shared memory region"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::too_large(format!(
            "the name of the shared memory region has {} bytes; at most {MAX_NAME_BYTES} are allowed",
            name.len()
        )));
    }
    if name.chars().any(char::is_control) || name.starts_with(RESERVED_PREFIX) {
        return Err(Error::invalid(format!(
            "cannot register shared memory region: names with control characters and the prefix '{RESERVED_PREFIX}' are \
             reserved"
        )));
    }
    Ok(())
}

#[cold]
fn disabled() -> Error {
    Error::new(
        Kind::NotOffered,
        "Client shared memory is disabled. Start the server with '--allow-client-shm' to enable it",
    )
}

/// `what`: the words between "Unable to find" and "region".
#[cold]
pub(crate) fn unknown(what: &str) -> Error {
    Error::new(Kind::NotFound, format!("Unable to find {what} region: none of this name is registered"))
}

#[cfg(test)]
mod tests;
