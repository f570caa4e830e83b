//! Tensors across the border: received bytes wrapped in place going in, the runtime's memory handed out coming out. Hot path.
//!
//! BYTES is the exception: ONNX Runtime keeps strings as C++ objects, so they are copied, exactly, both ways.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mlserve_core::backend::{OutputTensor, TensorView, TextRoom};
use mlserve_core::tensor::{BytesElements, DataType, Shape, are_bools, byte_count, element_count};
use ort_sys::{ONNXTensorElementDataType as Element, OrtValue};
use smallvec::SmallVec;

use crate::api::Status;
use crate::runtime::Runtime;
use crate::session::Session;

/// Bytes of the length before each element of a BYTES tensor.
const LENGTH_BYTES: usize = 4;

/// Strings whose places are kept on the stack.
const FEW_STRINGS: usize = 16;

/// Why a run, or one step of it, failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The runtime said so.
    Runtime(Status),
    /// The tensors that came in are wrong; the text is for the caller.
    Input(String),
    /// The model gave something that cannot be carried; the text is for the caller.
    Output(String),
    /// A trial did not end within this time.
    Endless(Duration),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Runtime(status)
    }
}

/// An `OrtValue` of ours; `'a` is how long the bytes it may wrap live.
pub(crate) struct Value<'a> {
    runtime: &'a Runtime,
    raw: NonNull<OrtValue>,
    wrapped: PhantomData<&'a [u8]>,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: the value is ours and released once.
        unsafe { (self.runtime.api().table().ReleaseValue)(self.raw.as_ptr()) };
    }
}

impl<'a> Value<'a> {
    /// One input of a run. Fixed-size types are used where they lie.
    ///
    /// **Cost:** one small allocation in the runtime; BYTES and misaligned data are copied.
    pub(crate) fn new(runtime: &'a Runtime, view: &TensorView<'a>) -> Result<Self, Failure> {
        let Some(size) = view.datatype.size() else { return Self::from_strings(runtime, view) };
        if byte_count(view.datatype, view.shape) != Some(view.data.len()) {
            return Err(Failure::Input(format!("a tensor has {} bytes, which its shape contradicts", view.data.len())));
        }
        if view.datatype == DataType::Bool && !are_bools(view.data) {
            return Err(Failure::Input("a BOOL element is neither 0 nor 1".to_owned()));
        }
        if view.data.as_ptr().align_offset(size) != 0 {
            return Self::from_copy(runtime, view);
        }
        let mut raw = ptr::null_mut();
        // SAFETY: the runtime only reads inputs; the bytes live for 'a, which this value does not outlive, are as many
        // as the shape says, and are aligned for their type. The shape is copied.
        let status = unsafe {
            (runtime.api().table().CreateTensorWithDataAsOrtValue)(
                runtime.memory(),
                view.data.as_ptr().cast_mut().cast(),
                view.data.len(),
                view.shape.as_ptr(),
                view.shape.len(),
                element_of(view.datatype),
                &raw mut raw,
            )
        };
        runtime.api().check(status)?;
        Self::from_raw(runtime, raw)
    }

    /// Takes over a value that a call of the runtime gave us.
    pub(crate) fn from_raw(runtime: &'a Runtime, raw: *mut OrtValue) -> Result<Self, Failure> {
        let raw = NonNull::new(raw).ok_or_else(|| Failure::Output("the model left an output out".to_owned()))?;
        Ok(Self { runtime, raw, wrapped: PhantomData })
    }

    pub(crate) fn as_ptr(&self) -> *const OrtValue {
        self.raw.as_ptr()
    }

    /// An uninitialised (BYTES: empty strings) tensor in the runtime's own memory.
    fn allocated(runtime: &'a Runtime, view: &TensorView<'_>) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        let (shape, element) = (view.shape, element_of(view.datatype));
        // SAFETY: the arena lives as long as the runtime; the shape is copied.
        let status = unsafe {
            let create = runtime.api().table().CreateTensorAsOrtValue;
            create(runtime.allocator(), shape.as_ptr(), shape.len(), element, &raw mut raw)
        };
        runtime.api().check(status)?;
        Self::from_raw(runtime, raw)
    }

    fn from_copy(runtime: &'a Runtime, view: &TensorView<'_>) -> Result<Self, Failure> {
        let value = Self::allocated(runtime, view)?;
        let data = value.data()?;
        if !view.data.is_empty() {
            // SAFETY: the runtime allocated as many bytes as type and shape say, which the data was checked to have.
            unsafe { ptr::copy_nonoverlapping(view.data.as_ptr(), data, view.data.len()) };
        }
        Ok(value)
    }

    fn from_strings(runtime: &'a Runtime, view: &TensorView<'_>) -> Result<Self, Failure> {
        let count = element_count(view.shape).unwrap_or(usize::MAX);
        // Counted before the tensor is made, so that its size is paid for by bytes that were received.
        if view.data.len() / 4 < count || BytesElements::new(view.data).take(count.saturating_add(1)).count() != count {
            return Err(Failure::Input("a BYTES tensor has another number of elements than its shape".to_owned()));
        }
        let value = Self::allocated(runtime, view)?;
        for (index, element) in BytesElements::new(view.data).enumerate() {
            value.set_string(index, element.map_err(|error| Failure::Input(error.text().to_owned()))?)?;
        }
        Ok(value)
    }

    fn set_string(&self, index: usize, text: &[u8]) -> Result<(), Status> {
        let mut buffer = ptr::null_mut();
        let api = self.runtime.api();
        // SAFETY: the runtime checks the index and gives a buffer of exactly this length, NULs inside included.
        unsafe {
            let resize = api.table().GetResizedStringTensorElementBuffer;
            api.check(resize(self.raw.as_ptr(), index, text.len(), &raw mut buffer))?;
            if !text.is_empty() {
                ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len());
            }
        }
        Ok(())
    }

    /// Where the elements of a fixed-size tensor lie.
    fn data(&self) -> Result<*mut u8, Status> {
        let mut data = ptr::null_mut();
        let api = self.runtime.api();
        // SAFETY: the value is alive; a value that is no tensor is a status.
        api.check(unsafe { (api.table().GetTensorMutableData)(self.raw.as_ptr(), &raw mut data) })?;
        Ok(data.cast())
    }

    /// Element type and dimensions.
    fn type_and_shape(&self) -> Result<(DataType, Shape), Failure> {
        let mut number = 0_i32;
        let mut shape = ptr::null();
        let mut rank = 0;
        let api = self.runtime.api();
        // SAFETY: the value is alive; the enum is `repr(i32)`, read as a number because a newer library may know more;
        // the dimensions live as long as the value and are copied at once.
        let shape = unsafe {
            let read = api.table().GetTensorElementTypeAndShapeDataReference;
            api.check(read(self.raw.as_ptr(), (&raw mut number).cast(), &raw mut shape, &raw mut rank))?;
            if rank == 0 { Shape::new() } else { Shape::from_slice(std::slice::from_raw_parts(shape, rank)) }
        };
        let Some(datatype) = datatype_of(number) else {
            return Err(Failure::Output("an output has an element type that the protocol cannot carry".to_owned()));
        };
        Ok((datatype, shape))
    }

    /// Strings in wire form, for which there must be `room`.
    ///
    /// **Cost:** one pass over the runtime's objects, one over the bytes.
    fn strings(&self, count: usize, room: &mut TextRoom) -> Result<Bytes, Failure> {
        let api = self.runtime.api();
        let mut total = 0_usize;
        // SAFETY: the value is alive; one that holds no strings is a status.
        api.check(unsafe { (api.table().GetStringTensorDataLength)(self.raw.as_ptr(), &raw mut total) })?;
        let too_large = || Failure::Output("an output is too large".to_owned());
        let prefixes = count.checked_mul(LENGTH_BYTES).ok_or_else(too_large)?;
        let len = total.checked_add(prefixes).ok_or_else(too_large)?;
        room.take(count, len).map_err(|refused| Failure::Output(refused.text))?;
        let mut offsets = Offsets::new(self.runtime, count)?;
        let mut wire = vec![0_u8; len];
        // The strings behind each other at the end of the buffer, from where each moves forward to its place.
        let content = &mut wire[prefixes..];
        // SAFETY: the value is a string tensor of `count` elements; the buffers have the lengths that are passed.
        api.check(unsafe {
            let read = api.table().GetStringTensorContent;
            read(self.raw.as_ptr(), content.as_mut_ptr().cast(), total, offsets.as_mut_slice().as_mut_ptr(), count)
        })?;
        into_wire_form(&mut wire, offsets.as_mut_slice()).ok_or_else(too_large)?;
        Ok(wire.into())
    }
}

/// Where each of many strings begins. Of more than a few they lie in the runtime's arena, which has room for them: it
/// keeps what the strings of the inputs were given.
enum Offsets<'a> {
    Few(SmallVec<[usize; FEW_STRINGS]>),
    Many { runtime: &'a Runtime, data: NonNull<usize>, count: usize },
}

impl<'a> Offsets<'a> {
    fn new(runtime: &'a Runtime, count: usize) -> Result<Self, Status> {
        if count <= FEW_STRINGS {
            return Ok(Self::Few(SmallVec::from_elem(0, count)));
        }
        let mut data = ptr::null_mut();
        let bytes = count.saturating_mul(size_of::<usize>());
        // SAFETY: the arena lives as long as the runtime; more than it may have is a status.
        let status = unsafe { (runtime.api().table().AllocatorAlloc)(runtime.allocator(), bytes, &raw mut data) };
        runtime.api().check(status)?;
        let none = || Status { code: 0, message: "Failed to allocate memory".to_owned() };
        let data = NonNull::new(data.cast::<usize>()).ok_or_else(none)?;
        // SAFETY: as many bytes were just allocated, aligned for tensors of any type.
        unsafe { data.write_bytes(0, count) };
        Ok(Self::Many { runtime, data, count })
    }

    fn as_mut_slice(&mut self) -> &mut [usize] {
        match self {
            Self::Few(offsets) => offsets,
            // SAFETY: allocated and written for so many; ours until it is freed.
            Self::Many { data, count, .. } => unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), *count) },
        }
    }
}

impl Drop for Offsets<'_> {
    fn drop(&mut self) {
        let Self::Many { runtime, data, .. } = self else { return };
        // SAFETY: it came from this allocator and is freed once.
        let status = unsafe { (runtime.api().table().AllocatorFree)(runtime.allocator(), data.as_ptr().cast()) };
        if let Err(status) = runtime.api().check(status) {
            tracing::warn!(error = status.message, "memory of the arena cannot be freed");
        }
    }
}

/// Moves strings that lie behind each other at the end of `wire`, at `offsets` from where the first begins, to where they
/// are in wire form, with their lengths before them; `None`: one is too long for that.
fn into_wire_form(wire: &mut [u8], offsets: &[usize]) -> Option<()> {
    let prefixes = offsets.len() * LENGTH_BYTES;
    let total = wire.len() - prefixes;
    for (index, &start) in offsets.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(total);
        let length = u32::try_from(end - start).ok()?;
        // It never moves backwards, and its prefix ends where the string before it has been at the latest.
        let place = start + index * LENGTH_BYTES;
        wire.copy_within(prefixes + start..prefixes + end, place + LENGTH_BYTES);
        wire[place..place + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }
    Some(())
}

/// An output's memory; gives it back when the last slice of it is dropped, on any thread.
struct OutputMemory {
    /// Dropped first.
    _value: Value<'static>,
    data: *const u8,
    len: usize,
    /// A constant output may lie in the session's own memory.
    _session: Arc<Session>,
}

// SAFETY: the memory is only read, and a value may be released on any thread.
unsafe impl Send for OutputMemory {}

impl AsRef<[u8]> for OutputMemory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` points to `len` bytes that live as long as the value and the session.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Hands out what a run wrote to `raw`, without a copy unless it is BYTES or one of the `inputs` themselves.
///
/// **Errors:** no tensor, or of a type that the protocol cannot carry; no `room` for its texts.
pub(crate) fn take_output(
    session: &Arc<Session>,
    raw: *mut OrtValue,
    inputs: &[TensorView<'_>],
    room: &mut TextRoom,
) -> Result<OutputTensor, Failure> {
    let value = Value::from_raw(session.runtime(), raw)?;
    let (datatype, shape) = value.type_and_shape()?;
    let too_large = || Failure::Output("an output is too large".to_owned());
    if datatype == DataType::Bytes {
        let data = value.strings(element_count(&shape).ok_or_else(too_large)?, room)?;
        return Ok(OutputTensor { datatype, shape, data });
    }
    let len = byte_count(datatype, &shape).ok_or_else(too_large)?;
    let data = value.data()?.cast_const();
    let data = if len == 0 {
        Bytes::new()
    } else if inputs.iter().any(|input| input.data.as_ptr_range().contains(&data)) {
        // SAFETY: as many bytes as type and shape say, alive during this call.
        Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data, len) })
    } else {
        Bytes::from_owner(OutputMemory { _value: value.into_static(), data, len, _session: Arc::clone(session) })
    };
    Ok(OutputTensor { datatype, shape, data })
}

impl Value<'_> {
    /// Forgets the lifetime of what a value may wrap: only for outputs, which wrap nothing of ours.
    fn into_static(self) -> Value<'static> {
        let raw = self.raw;
        let runtime: *const Runtime = self.runtime;
        std::mem::forget(self);
        // SAFETY: the runtime of a process is never dropped: `runtime::LOADED` holds it.
        Value { runtime: unsafe { &*runtime }, raw, wrapped: PhantomData }
    }
}

const fn element_of(datatype: DataType) -> Element {
    match datatype {
        DataType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// The data type of an ONNX element type number (of the runtime and of the file: they agree).
pub(crate) fn datatype_of(number: i32) -> Option<DataType> {
    DataType::ALL.into_iter().find(|&datatype| element_of(datatype) as i32 == number)
}
