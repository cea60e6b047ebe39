//! Any bytes as a response: never panics, the division does not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mizzen_http::{Limits, Method, Parsed, ResponseHead, ResponseParser};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let method = if cut & 1 == 0 { Method::Get } else { Method::Head };
    let whole = ResponseHead::parse(bytes, Limits::default(), method);
    let mut parser = ResponseParser::new(Limits::default());
    parser.reset(method);
    let split = match parser.parse(&bytes[..usize::from(cut).min(bytes.len())]) {
        Ok(Parsed::Partial) => parser.parse(bytes),
        done => done,
    };
    match (whole, split) {
        (Ok(Some(head)), Ok(Parsed::Complete)) => assert_eq!(head.framing(), parser.head().framing()),
        (Ok(None), Ok(Parsed::Partial)) => {}
        (Err(one), Err(other)) => assert_eq!(one, other),
        (one, other) => panic!("{one:?} but {other:?}"),
    }
});
