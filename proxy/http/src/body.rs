//! Where a body ends. Bytes are passed on as they are after they were checked, or taken out of their chunks.

use crate::edit::Put;
use crate::error::{BodyError, HeadError};
use crate::fields::Known;
use crate::{chars, scan};

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// Everything until the connection closes (responses only).
    Close,
    /// Not HTTP any more: both directions are opaque until they close (101, CONNECT).
    Tunnel,
}

/// What [`BodyReader::pass`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes of the input belong to the body as it is on the wire. What follows belongs to the next message.
    pub consumed: usize,
    /// The body ends with them.
    pub done: bool,
}

/// What [`BodyReader::next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyEvent {
    /// How many bytes of the input were read.
    pub consumed: usize,
    /// The last so many of them are content; those before were framing.
    pub data: usize,
    /// The body ends with them; trailers are in [`BodyReader::trailers`].
    pub done: bool,
}

/// Extensions of one chunk. Nobody uses them; long ones only serve to hide things or waste time.
const EXTENSION_LIMIT: u32 = 256;
/// Extensions of all chunks of a message.
const EXTENSIONS_LIMIT: u32 = 16 * 1024;
const TRAILERS_LIMIT: usize = 8 * 1024;
const CHUNK_LIMIT: u64 = 1 << 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Size { value: u64, digits: u8 },
    Extension { value: u64, length: u32 },
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    TrailerLine { start: usize },
    EndLf,
}

/// Follows one body. Any division of the input gives the same result; nothing is buffered but trailers.
#[derive(Debug, Clone)]
pub struct BodyReader {
    state: State,
    extensions: u32,
    trailers: Vec<u8>,
}

impl BodyReader {
    /// At the beginning of a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::Close | Framing::Tunnel => State::UntilClose,
        };
        Self {
            state,
            extensions: 0,
            trailers: Vec::new(),
        }
    }

    /// Whether the body has been read to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes still to come, where the length is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Pass-through: says how much of the input is body, framing included, after checking it.
    #[inline]
    pub fn pass(&mut self, input: &[u8]) -> Result<Progress, BodyError> {
        let mut consumed = 0;
        while !self.is_done() && consumed < input.len() {
            consumed += self.next(input.get(consumed..).unwrap_or_default())?.consumed;
        }
        Ok(Progress {
            consumed,
            done: self.is_done(),
        })
    }

    /// Decoding: the next run of content. Call again with the rest of the input until it is used up or the body is done.
    pub fn next(&mut self, input: &[u8]) -> Result<BodyEvent, BodyError> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let (used, data) = match self.state {
                State::Done => (0, 0),
                _ if rest.is_empty() => (0, 0),
                State::UntilClose => (rest.len(), rest.len()),
                State::Length(left) => {
                    let (taken, left) = take(rest, left);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    (taken, taken)
                }
                State::Data(left) => {
                    let (taken, left) = take(rest, left);
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    (taken, taken)
                }
                State::TrailerLine { start } => (self.trailer(rest, start)?, 0),
                _ => (self.framing(rest)?, 0),
            };
            at += used;
            if data > 0 || used == 0 {
                // A run of content ends the call; the framing behind it is read by the next one, unless it is all there is.
                return Ok(BodyEvent {
                    consumed: at,
                    data,
                    done: self.is_done(),
                });
            }
        }
    }

    /// The peer closed its side: an error unless the body was allowed to end here.
    pub fn end_of_input(&self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => Ok(()),
            _ => Err(BodyError::Incomplete),
        }
    }

    /// Trailer fields in order, once the body is done.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.trailers.split(|byte| *byte == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let field = scan::field(line, 0).ok()?;
            Some((field.name.of(line), field.value.of(line)))
        })
    }

    /// Whether there are trailers.
    pub fn has_trailers(&self) -> bool {
        !self.trailers.is_empty()
    }

    /// Bytes of the chunked coding that are not content, one by one: they are few.
    fn framing(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let mut used = 0;
        for byte in input {
            self.state = match (self.state, *byte) {
                (State::Size { value, digits }, byte) => match (byte as char).to_digit(16) {
                    Some(_) if digits == 16 || value >= CHUNK_LIMIT >> 4 => return Err(BodyError::ChunkSizeRange),
                    Some(digit) => State::Size {
                        value: (value << 4) | u64::from(digit),
                        digits: digits + 1,
                    },
                    None if digits == 0 => return Err(BodyError::ChunkSize),
                    None => match byte {
                        b'\r' => State::SizeLf(value),
                        b';' => State::Extension { value, length: 0 },
                        b'\n' => return Err(BodyError::ChunkLineEnd),
                        _ => return Err(BodyError::ChunkSize),
                    },
                },
                (State::Extension { value, .. }, b'\r') => State::SizeLf(value),
                (State::Extension { .. }, b'\n') => return Err(BodyError::ChunkLineEnd),
                (State::Extension { value, length }, byte) => {
                    self.extensions += 1;
                    if length >= EXTENSION_LIMIT || self.extensions > EXTENSIONS_LIMIT || !chars::all_value(&[byte]) {
                        return Err(BodyError::ChunkExtension);
                    }
                    State::Extension {
                        value,
                        length: length + 1,
                    }
                }
                (State::SizeLf(0), b'\n') => State::TrailerStart,
                (State::SizeLf(size), b'\n') => State::Data(size),
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataCr, _) => return Err(BodyError::ChunkDataEnd),
                (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
                (State::TrailerStart, b'\r') => State::EndLf,
                (State::TrailerStart, _) => State::TrailerLine {
                    start: self.trailers.len(),
                },
                (State::EndLf, b'\n') => State::Done,
                (State::SizeLf(_) | State::DataLf | State::EndLf, _) => return Err(BodyError::ChunkLineEnd),
                // Not reached: these states are handled where they are cheap.
                (
                    State::Done | State::Length(_) | State::UntilClose | State::Data(_) | State::TrailerLine { .. },
                    _,
                ) => {
                    return Ok(used);
                }
            };
            if matches!(self.state, State::TrailerLine { .. }) {
                return Ok(used + self.trailer(input.get(used..).unwrap_or_default(), self.trailers.len())?);
            }
            used += 1;
            if matches!(self.state, State::Data(_) | State::Done) {
                break;
            }
        }
        Ok(used)
    }

    /// Collects a trailer line that began at `start` of the collected trailers.
    fn trailer(&mut self, input: &[u8], start: usize) -> Result<usize, BodyError> {
        let newline = memchr::memchr(b'\n', input);
        let used = newline.map_or(input.len(), |at| at + 1);
        if self.trailers.len() + used > TRAILERS_LIMIT {
            return Err(BodyError::TrailersTooLarge);
        }
        self.trailers.extend_from_slice(input.get(..used).unwrap_or_default());
        self.state = State::TrailerLine { start };
        if newline.is_some() {
            let line = self.trailers.get(start..).unwrap_or_default();
            let line = line
                .strip_suffix(b"\r\n")
                .ok_or(BodyError::Trailer(HeadError::BareLf))?;
            let field = scan::field(line, 0).map_err(BodyError::Trailer)?;
            if forbidden(field.known, field.name.of(line)) {
                return Err(BodyError::TrailerForbidden);
            }
            self.state = State::TrailerStart;
        }
        Ok(used)
    }
}

/// Fields that would change framing, routing, identity or meaning after the fact (RFC 9110, 6.5.1).
fn forbidden(known: Known, name: &[u8]) -> bool {
    const NAMES: [&[u8]; 12] = [
        b"trailer",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"cache-control",
        b"x-forwarded-for",
        b"x-forwarded-client-cert",
        b"x-forwarded-proto",
    ];
    known != Known::Other || NAMES.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

fn take(input: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    (taken, left - taken as u64)
}

/// Begins a chunk of so many bytes (not 0); `\r\n` must follow the data.
pub fn put_chunk_head<W: Put + ?Sized>(out: &mut W, length: usize) {
    let mut digits = [0_u8; 16];
    let mut left = length;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef".get(left & 15).copied().unwrap_or(b'0');
        left >>= 4;
        count += 1;
        if left == 0 {
            break;
        }
    }
    out.put(digits.get(digits.len() - count..).unwrap_or_default());
    out.put(b"\r\n");
}

/// Ends a chunked body with these trailer fields; those that may not stand in trailers or are malformed are left out.
pub fn put_last_chunk<'a, W: Put + ?Sized>(out: &mut W, trailers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    out.put(b"0\r\n");
    for (name, value) in trailers {
        if chars::all_token(name) && chars::all_value(value) && !forbidden(Known::of(name), name) {
            crate::reply::put_field(out, name, value);
        }
    }
    out.put(b"\r\n");
}
