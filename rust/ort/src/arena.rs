//! The arena that the large tensors of all sessions come from: how much it holds, and giving back what it does not use.
//!
//! ONNX Runtime tells an arena's size and shrinks it only through a session that uses it, so the arena keeps a session
//! of its own, of a model that does nothing.

use std::ptr;

use ort_sys::{
    ONNXTensorElementDataType as Element, OrtAllocator, OrtAllocatorType, OrtArenaCfg, OrtEnv, OrtMemType,
    OrtMemoryInfo, OrtRunOptions, OrtSession,
};
use prost::Message;

use crate::allocator::{Allocator, Behind};
use crate::api::{Api, Status, text_of};
use crate::model::proto::{Graph, Kind, Model, Node, Opset, TensorShape, TensorType, Type, ValueInfo};
use crate::options::SessionOptions;

/// Extents as large as asked for, not powers of two: the limit is used up by tensors, not by rounding, and whatever is
/// not in use can be given back.
const SAME_AS_REQUESTED: usize = 1;

/// The arena of a process; never released, like the environment it is registered in.
pub(crate) struct Arena {
    api: Api,
    memory: *const OrtMemoryInfo,
    inner: *mut OrtAllocator,
    session: *mut OrtSession,
    /// Run options that shrink the arena after the run.
    shrinking: *mut OrtRunOptions,
}

// SAFETY: arena and session lock themselves, ONNX Runtime documents runs as thread safe, and the run options are only read.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Makes an arena of at most `limit` bytes. Only a session of an environment with an arena gets at it, so it is registered
    /// there until [`Self::register`].
    ///
    /// # Safety
    /// `env` and `memory` are alive and never released.
    pub(crate) unsafe fn new(
        api: Api,
        env: *mut OrtEnv,
        memory: *const OrtMemoryInfo,
        limit: Option<usize>,
    ) -> Result<&'static Self, Status> {
        let table = api.table();
        let (keys, values) =
            ([c"max_mem".as_ptr(), c"arena_extend_strategy".as_ptr()], [limit.unwrap_or(0), SAME_AS_REQUESTED]);
        let (mut config, mut inner): (*mut OrtArenaCfg, _) = (ptr::null_mut(), ptr::null_mut());
        let (mut session, mut shrinking) = (ptr::null_mut(), ptr::null_mut());
        let options = SessionOptions::new(&api)?;
        let model = idle_model();
        // SAFETY: what a call writes is used only after it succeeded; the arrays are equally long; the configuration is
        // copied by the registration and then released; the model is parsed during the call; all strings are static.
        unsafe {
            api.check((table.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &raw mut config))?;
            let registered = api.check((table.CreateAndRegisterAllocator)(env, memory, config));
            (table.ReleaseArenaCfg)(config);
            registered?;
            let create = table.CreateSessionFromArray;
            api.check(create(env, model.as_ptr().cast(), model.len(), options.as_ptr(), &raw mut session))?;
            api.check((table.CreateAllocator)(session, memory, &raw mut inner))?;
            api.check((table.CreateRunOptions)(&raw mut shrinking))?;
            let key = c"memory.enable_memory_arena_shrinkage";
            api.check((table.AddRunConfigEntry)(shrinking, key.as_ptr(), c"cpu:0".as_ptr()))?;
            // Its first extent is never given back, so that has to be a small one.
            let mut first = ptr::null_mut();
            api.check((table.AllocatorAlloc)(inner, 1, &raw mut first))?;
            api.check((table.AllocatorFree)(inner, first))?;
        }
        Ok(Box::leak(Box::new(Self { api, memory, inner, session, shrinking })))
    }

    /// Registers an allocator of at most `limit` bytes for all later sessions of the environment, with the arena behind it.
    ///
    /// # Safety
    /// `env` is the one that the arena was made for.
    pub(crate) unsafe fn register(
        &'static self,
        env: *mut OrtEnv,
        limit: Option<usize>,
    ) -> Result<*mut OrtAllocator, Status> {
        let (api, table) = (&self.api, self.api.table());
        let mut info = ptr::null_mut();
        // SAFETY: the description is written before it is used; it, the arena and the allocator are never released.
        unsafe {
            // An allocator that is not the runtime's own has to say that it is no arena.
            let kind = OrtAllocatorType::OrtDeviceAllocator;
            api.check((table.CreateCpuMemoryInfo)(kind, OrtMemType::OrtMemTypeDefault, &raw mut info))?;
            let allocator = Allocator::new(self.inner, self, info, limit).cast();
            api.check((table.UnregisterAllocator)(env, self.memory))?;
            api.check((table.RegisterAllocator)(env, allocator))?;
            Ok(allocator)
        }
    }

    /// Gives extents without a tensor in use back to the C allocator.
    pub(crate) fn shrink(&self) {
        if let Err(status) = self.run_idle_model() {
            tracing::warn!(error = status.message, "the arena cannot be shrunk");
        }
    }

    /// Runs the idle model, with options that shrink the arena afterwards.
    fn run_idle_model(&self) -> Result<(), Status> {
        let table = self.api.table();
        let mut flag = [0_u8];
        let (mut input, mut output) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the flag outlives the run and is as large as its shape says; names are static; session, options and
        // memory description are alive; both values are released once.
        unsafe {
            let create = table.CreateTensorWithDataAsOrtValue;
            let element = Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
            let data = flag.as_mut_ptr().cast();
            self.api.check(create(self.memory, data, 1, ptr::null(), 0, element, &raw mut input))?;
            let (inputs, names) = ([input.cast_const()], ([c"x".as_ptr()], [c"y".as_ptr()]));
            let status = (table.Run)(
                self.session,
                self.shrinking,
                names.0.as_ptr(),
                inputs.as_ptr(),
                1,
                names.1.as_ptr(),
                1,
                &raw mut output,
            );
            (table.ReleaseValue)(input);
            (table.ReleaseValue)(output);
            self.api.check(status)
        }
    }
}

impl Behind for Arena {
    fn held_bytes(&self) -> usize {
        let table = self.api.table();
        let mut pairs = ptr::null_mut();
        // SAFETY: the arena is alive; the pairs are ours, read before they are released, once.
        let text = unsafe {
            if let Err(status) = self.api.check((table.AllocatorGetStats)(self.inner, &raw mut pairs)) {
                tracing::warn!(error = status.message, "the arena does not tell its size");
                return 0;
            }
            let text = text_of((table.GetKeyValue)(pairs, c"TotalAllocated".as_ptr()));
            (table.ReleaseKeyValuePairs)(pairs);
            text
        };
        text.parse().unwrap_or(0)
    }

    fn give_back(&self) {
        self.shrink();
    }
}

/// A model that returns its one flag.
fn idle_model() -> Vec<u8> {
    const BOOL: i32 = 9;
    let info = |name: &str| {
        let kind = Kind::Tensor(TensorType { element: BOOL, shape: Some(TensorShape::default()) });
        ValueInfo { name: name.to_owned(), r#type: Some(Type { kind: Some(kind) }) }
    };
    let texts = |name: &str| vec![name.to_owned()];
    let node = Node { input: texts("x"), output: texts("y"), op_type: "Not".to_owned(), ..Node::default() };
    let graph = Graph { node: vec![node], input: vec![info("x")], output: vec![info("y")], ..Graph::default() };
    let opset_import = vec![Opset { domain: String::new(), version: 17 }];
    Model { ir_version: 8, graph: Some(graph), opset_import, ..Model::default() }.encode_to_vec()
}
