//! Any bytes: never panics, the division does not matter, `httparse` agrees with what is accepted, and what is written is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mizzen_http::{Edit, Limits, Parsed, RequestHead, RequestParser};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let whole = RequestHead::parse(bytes, Limits::default());
    let cut = usize::from(cut).min(bytes.len());
    let mut parser = RequestParser::new(Limits::default());
    let split = match parser.parse(&bytes[..cut]) {
        Ok(Parsed::Partial) => parser.parse(bytes),
        done => done,
    };
    match (&whole, split) {
        (Ok(Some(head)), Ok(Parsed::Complete)) => assert_eq!(head.len(), parser.head().len()),
        (Ok(None), Ok(Parsed::Partial)) => {}
        (Err(one), Err(other)) => assert_eq!(*one, other),
        (one, other) => panic!("{one:?} but {other:?}"),
    }
    if let Ok(Some(head)) = whole {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let reference = httparse::Request::new(&mut fields).parse(bytes);
        assert_eq!(reference, Ok(httparse::Status::Complete(head.len())));
        let mut edit = Edit::default();
        edit.begin(head.fields());
        let mut out = Vec::new();
        edit.write_request(&head, bytes, &mut out);
        // The head may grow beyond the limit by the `host` that is written in place of an absolute target.
        let limits = Limits { head: 65_535, fields: 128 };
        let again = RequestHead::parse(&out, limits).expect("written heads are good").expect("and complete");
        assert_eq!(again.framing(), head.framing());
    }
});
