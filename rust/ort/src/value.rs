//! Tensors across the border: received bytes wrapped in place going in, the runtime's memory handed out coming out. Hot path.
//!
//! BYTES is the exception: ONNX Runtime keeps strings as C++ objects, so they are copied, exactly, both ways.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytes::Bytes;
use mlserve_core::backend::{OutputTensor, TensorView};
use mlserve_core::tensor::{BytesElements, DataType, Shape, are_bools, byte_count, element_count};
use ort_sys::{ONNXTensorElementDataType as Element, OrtValue};

use crate::api::Status;
use crate::runtime::Runtime;
use crate::session::Session;

/// Why a run, or one step of it, failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The runtime said so.
    Runtime(Status),
    /// The tensors that came in are wrong; the text is for the caller.
    Input(String),
    /// The model gave something that cannot be carried; the text is for the caller.
    Output(String),
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

    /// Strings in wire form.
    fn strings(&self, count: usize) -> Result<Bytes, Status> {
        let api = self.runtime.api();
        let mut total = 0_usize;
        let mut offsets = vec![0_usize; count];
        let mut content: Vec<u8>;
        // SAFETY: the value is a string tensor of `count` elements; the buffers have the lengths that are passed.
        unsafe {
            api.check((api.table().GetStringTensorDataLength)(self.raw.as_ptr(), &raw mut total))?;
            content = vec![0; total];
            let read = api.table().GetStringTensorContent;
            api.check(read(self.raw.as_ptr(), content.as_mut_ptr().cast(), total, offsets.as_mut_ptr(), count))?;
        }
        let mut wire = Vec::with_capacity(total + 4 * count);
        for (index, &start) in offsets.iter().enumerate() {
            let text = &content[start..offsets.get(index + 1).copied().unwrap_or(total)];
            wire.extend_from_slice(&(text.len() as u32).to_le_bytes());
            wire.extend_from_slice(text);
        }
        Ok(wire.into())
    }
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
/// **Errors:** no tensor, or of a type that the protocol cannot carry.
pub(crate) fn take_output(
    session: &Arc<Session>,
    raw: *mut OrtValue,
    inputs: &[TensorView<'_>],
) -> Result<OutputTensor, Failure> {
    let value = Value::from_raw(session.runtime(), raw)?;
    let (datatype, shape) = value.type_and_shape()?;
    let too_large = || Failure::Output("an output is too large".to_owned());
    if datatype == DataType::Bytes {
        let data = value.strings(element_count(&shape).ok_or_else(too_large)?)?;
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
