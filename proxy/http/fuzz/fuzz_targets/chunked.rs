//! Any bytes as a chunked body: never panics, the division does not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mizzen_http::{BodyReader, Framing};

fn pass(bytes: &[u8], cut: usize) -> Result<(usize, bool), mizzen_http::BodyError> {
    let mut body = BodyReader::new(Framing::Chunked);
    let first = body.pass(&bytes[..cut])?.consumed;
    let second = if first == cut { body.pass(&bytes[cut..])?.consumed } else { 0 };
    Ok((first + second, body.is_done()))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    assert_eq!(pass(bytes, usize::from(cut).min(bytes.len())), pass(bytes, 0));
});
