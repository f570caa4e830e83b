//! Content encodings, for HTTP bodies and gRPC messages: inflating that stops at a limit, and deflating.
//!
//! The received bytes of a bomb are few, so the limit counts what comes out, memory is reserved as it comes, and how far
//! each received byte may go is bounded; so is how much may come in for nothing. Must not be called on an event loop for
//! more than about 128 KiB of output.
//!
//! The backend is flate2's default (`miniz_oxide`, no unsafe code). Measured beside zlib-rs on 1 MB of JSON floats: inflating
//! 255 against 375 MB/s, deflating 135 against 150 MB/s, to 46 % against 66 % of the size.

use std::cell::Cell;
use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind};

/// First guess of the output, as a multiple of the input: what JSON and float tensors usually come to. A wrong guess
/// costs one move of the buffer.
const EXPECTED_RATIO: usize = 4;

/// Least and most bytes that the output grows by at once: small enough that a refusal comes early, large enough that a
/// 64 MiB body takes few steps.
const GROWTH_BYTES: std::ops::Range<usize> = 4 << 10..4 << 20;

/// How far each received byte may go, beyond the first bytes of the output. Text and tensors with content stay far below;
/// what is all alike reaches ten times as much, so that much of it has to be declared ([`Declared`]).
const MOST_RATIO: usize = 100;

/// Bytes of output that need no such measure: what they cost is little.
const FREE_BYTES: usize = 8 << 20;

/// How often a sender is asked what it has declared; each time looks at all that is there.
const MOST_QUESTIONS: usize = 8;

/// Received bytes that may bring nothing, and how many of them may come for each that comes out: empty blocks and empty
/// members cost the most time per byte, and no compressor makes its input longer by more than a few bytes.
const IDLE_BYTES: usize = 64 << 10;
const IDLE_FACTOR: usize = 4;

/// Bytes of input that the decoder is given at once: between two such steps it cannot be stopped.
const STEP_BYTES: usize = 32 << 10;

/// Members of one gzip stream. Compressors that cut their output make one of 64 KiB or more of it.
const MOST_MEMBERS: usize = 4_096;

/// A content encoding that is understood both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// As it is.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950 (zlib), which HTTP and gRPC call deflate.
    Deflate,
}

impl Encoding {
    /// Every encoding.
    pub(crate) const ALL: [Encoding; 3] = [Encoding::Identity, Encoding::Gzip, Encoding::Deflate];

    /// The word in headers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    /// The encoding of a header's word, in any case; `None` if it is not understood.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Encoding::Gzip);
        }
        Self::ALL.into_iter().find(|encoding| name.eq_ignore_ascii_case(encoding.name().as_bytes()))
    }
}

/// How many bytes a message may have by what its beginning says, asked when it goes further than its received bytes
/// explain. Whoever says nothing gets 0.
pub(crate) type Declared<'a> = dyn Fn(&[u8]) -> usize + 'a;

/// Inflates `pieces` to at most `limit` bytes, and adds each byte of the output to `reservation` before it is allocated.
///
/// **Errors:** too large when more than `limit` bytes come out, or many more than came in; invalid when the data is
/// broken, cut off or followed by other bytes; out of budget. **Cost:** the output once; never more than `limit` bytes,
/// whatever the input claims; time in proportion to input and output.
pub(crate) fn inflate_reserved(
    encoding: Encoding,
    pieces: &[Bytes],
    limit: usize,
    reservation: &mut Reservation,
) -> Result<Vec<u8>, Error> {
    inflate_declared(encoding, pieces, limit, reservation, &|_| 0)
}

/// As [`inflate_reserved`]; `declared` tells how many bytes a message may have that is all alike.
pub(crate) fn inflate_declared(
    encoding: Encoding,
    pieces: &[Bytes],
    limit: usize,
    reservation: &mut Reservation,
    declared: &Declared<'_>,
) -> Result<Vec<u8>, Error> {
    let grow = &mut |more| if reservation.grow(more) { Ok(()) } else { Err(out_of_budget(more)) };
    inflate_with(encoding, pieces, Bounds::new(pieces, limit, declared), grow)
}

/// As [`inflate_reserved`], for tests, which have no budget.
#[cfg(test)]
pub(crate) fn inflate(encoding: Encoding, pieces: &[Bytes], limit: usize) -> Result<Vec<u8>, Error> {
    inflate_with(encoding, pieces, Bounds::new(pieces, limit, &|_| 0), &mut |_| Ok(()))
}

type Grow<'a> = dyn FnMut(usize) -> Result<(), Error> + 'a;

/// How large the output may become.
struct Bounds<'a> {
    received: usize,
    limit: usize,
    /// Up to where nobody has to be asked; at most the limit.
    allowed: usize,
    declared: &'a Declared<'a>,
    questions: usize,
}

impl<'a> Bounds<'a> {
    fn new(pieces: &[Bytes], limit: usize, declared: &'a Declared<'a>) -> Self {
        let received: usize = pieces.iter().map(Bytes::len).sum();
        let allowed = received.saturating_mul(MOST_RATIO).saturating_add(FREE_BYTES).min(limit);
        Self { received, limit, allowed, declared, questions: 0 }
    }

    /// Looks whether more than `output` may come.
    fn is_spent(&mut self, output: &[u8]) -> bool {
        if output.len() == self.allowed && self.allowed < self.limit && self.questions < MOST_QUESTIONS {
            self.questions += 1;
            self.allowed = (self.declared)(output).clamp(self.allowed, self.limit);
        }
        output.len() == self.allowed
    }

    /// What is wrong with an output that goes on.
    #[cold]
    fn exceeded(&self) -> Error {
        if self.allowed == self.limit {
            return Error::too_large(format!(
                "the request is more than {} bytes after inflating, which is the limit",
                self.limit
            ));
        }
        Error::too_large(format!(
            "the request is more than {} bytes after inflating, which is as much as {} compressed bytes may become",
            self.allowed, self.received
        ))
    }
}

fn inflate_with(
    encoding: Encoding,
    pieces: &[Bytes],
    bounds: Bounds<'_>,
    grow: &mut Grow<'_>,
) -> Result<Vec<u8>, Error> {
    let progress = Cell::new(0);
    let input = Pieces { rest: pieces, at: 0, consumed: 0, output: &progress };
    match encoding {
        Encoding::Identity => read_all(&mut { input }, encoding, bounds, &progress, grow),
        Encoding::Gzip => read_all(&mut Members::new(input), encoding, bounds, &progress, grow),
        Encoding::Deflate => read_all(&mut Zlib::new(input), encoding, bounds, &progress, grow),
    }
}

fn read_all(
    decoder: &mut dyn Read,
    encoding: Encoding,
    mut bounds: Bounds<'_>,
    progress: &Cell<usize>,
    grow: &mut Grow<'_>,
) -> Result<Vec<u8>, Error> {
    let mut output = Vec::new();
    let mut filled = 0;
    let mut step = bounds.received.saturating_mul(EXPECTED_RATIO);
    loop {
        if filled == output.len() {
            if bounds.is_spent(&output) {
                return end_or_exceeded(decoder, output, encoding, &bounds);
            }
            step = step.clamp(GROWTH_BYTES.start, GROWTH_BYTES.end).min(bounds.allowed - filled);
            grow(step)?;
            output.reserve_exact(step);
            output.resize(filled + step, 0);
            step = filled;
        }
        match decoder.read(&mut output[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(broken(encoding)),
        }
        progress.set(filled);
    }
    output.truncate(filled);
    Ok(output)
}

/// The output is exactly at its bound: one byte more decides.
fn end_or_exceeded(
    decoder: &mut dyn Read,
    output: Vec<u8>,
    encoding: Encoding,
    bounds: &Bounds<'_>,
) -> Result<Vec<u8>, Error> {
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(output),
        Ok(_) => Err(bounds.exceeded()),
        Err(_) => Err(broken(encoding)),
    }
}

/// Deflates `pieces` into one buffer, at the fastest level: the answer waits for it.
pub(crate) fn deflate<Piece: AsRef<[u8]>>(encoding: Encoding, pieces: &[Piece]) -> Vec<u8> {
    let received: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
    let output = Vec::with_capacity(received / 2);
    let level = Compression::fast();
    let deflated = match encoding {
        Encoding::Identity => write_all(output, pieces),
        Encoding::Gzip => write_all(GzEncoder::new(output, level), pieces).and_then(GzEncoder::finish),
        Encoding::Deflate => write_all(ZlibEncoder::new(output, level), pieces).and_then(ZlibEncoder::finish),
    };
    deflated.expect("writing to memory cannot fail")
}

fn write_all<Sink: Write, Piece: AsRef<[u8]>>(mut sink: Sink, pieces: &[Piece]) -> io::Result<Sink> {
    for piece in pieces {
        sink.write_all(piece.as_ref())?;
    }
    Ok(sink)
}

/// Inflates zlib data. The library's own reader takes a stream that is cut off for one that has ended, so the end is
/// checked here.
struct Zlib<'a> {
    input: Pieces<'a>,
    state: Decompress,
    has_ended: bool,
}

impl<'a> Zlib<'a> {
    fn new(input: Pieces<'a>) -> Self {
        Self { input, state: Decompress::new(true), has_ended: false }
    }
}

impl Read for Zlib<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let chunk = self.input.fill_buf()?;
            if self.has_ended {
                // The end is marked in the stream; whatever follows was never meant for it.
                return if chunk.is_empty() { Ok(0) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            let (is_last, read, written) = (chunk.is_empty(), self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(chunk, buffer, FlushDecompress::None)?;
            let written = (self.state.total_out() - written) as usize;
            self.input.consume((self.state.total_in() - read) as usize);
            self.has_ended = status == Status::StreamEnd;
            if written > 0 {
                return Ok(written);
            }
            if is_last && !self.has_ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Inflates gzip, member by member (RFC 1952 allows several), and counts them.
struct Members<'a> {
    /// `None` only while one is followed by the next.
    member: Option<GzDecoder<Pieces<'a>>>,
    begun: usize,
}

impl<'a> Members<'a> {
    fn new(input: Pieces<'a>) -> Self {
        Self { member: Some(GzDecoder::new(input)), begun: 1 }
    }
}

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let input = self.member.take().map(GzDecoder::into_inner);
            let Some(input) = input.filter(|input| !input.is_spent()) else { break };
            if self.begun == MOST_MEMBERS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.begun += 1;
            self.member = Some(GzDecoder::new(input));
        }
        Ok(0)
    }
}

/// Reads several pieces as one stream, without joining them, while they bring something.
struct Pieces<'a> {
    rest: &'a [Bytes],
    /// Bytes of the first of them that have been read.
    at: usize,
    consumed: usize,
    /// Bytes that have come out so far.
    output: &'a Cell<usize>,
}

impl Pieces<'_> {
    fn is_spent(&self) -> bool {
        let mut pieces = self.rest.iter();
        pieces.next().map_or(0, Bytes::len) == self.at && pieces.all(Bytes::is_empty)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed > IDLE_BYTES.saturating_add(self.output.get().saturating_mul(IDLE_FACTOR)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while let Some((first, rest)) = self.rest.split_first() {
            if self.at < first.len() {
                let end = first.len().min(self.at + STEP_BYTES);
                return Ok(&first[self.at..end]);
            }
            (self.rest, self.at) = (rest, 0);
        }
        Ok(&[])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        self.consumed += count;
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cold]
fn broken(encoding: Encoding) -> Error {
    Error::invalid(format!(
        "the request is not valid {} data: it is broken, cut off or goes on too long",
        encoding.name()
    ))
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(Kind::OutOfBudget, format!("{bytes} more bytes for inflating would exceed the server's byte budget"))
}

#[cfg(test)]
mod tests;
