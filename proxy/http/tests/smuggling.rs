//! The table of ambiguous requests against the codec, whole and byte by byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "smuggling/cases.rs"]
mod cases;

use cases::{Expect, cases};
use mizzen_http::{BodyReader, Framing, HeadError, Limits, Parsed, RequestParser};

/// Reads requests as a server does from bytes that arrive `step` at a time.
fn serve(bytes: &[u8], step: usize) -> Result<usize, Expect> {
    let mut requests = 0;
    let mut start = 0;
    let mut parser = RequestParser::new(Limits::default());
    while start < bytes.len() {
        parser.reset();
        let mut end = start;
        loop {
            end = (end + step).min(bytes.len());
            match parser.parse(&bytes[start..end]) {
                Ok(Parsed::Complete) => break,
                Ok(Parsed::Partial) if end == bytes.len() => panic!("incomplete case"),
                Ok(Parsed::Partial) => {}
                Err(error) => return Err(Expect::Refused(error.status())),
            }
        }
        start += parser.head().len();
        let mut body = BodyReader::new(parser.head().framing());
        while !body.is_done() {
            let end = (start + step).min(bytes.len());
            assert!(start < end, "incomplete case");
            start += body.pass(&bytes[start..end]).map_err(|_| Expect::BodyRefused)?.consumed;
        }
        requests += 1;
    }
    Ok(requests)
}

#[test]
fn every_case_is_answered_as_the_table_says() {
    let cases = cases();
    assert!(cases.len() > 80, "{} cases", cases.len());
    for case in cases {
        for step in [usize::MAX / 2, 7, 1] {
            let seen = serve(&case.bytes, step).map_or_else(|refused| refused, Expect::Accepted);
            assert_eq!(seen, case.expect, "{} in steps of {step}", case.name);
        }
    }
}

#[test]
fn case_names_are_unique() {
    let mut names: Vec<_> = cases().iter().map(|case| case.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

fn fault(bytes: &[u8]) -> HeadError {
    RequestParser::new(Limits::default()).parse(bytes).unwrap_err()
}

#[test]
fn each_fault_has_its_own_error() {
    let with = |line: &str| fault(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n").as_bytes());
    assert_eq!(with("A: b\nC: d"), HeadError::BareLf);
    assert_eq!(with("A: b\rC: d"), HeadError::BareCr);
    assert_eq!(with("A: \0"), HeadError::Nul);
    assert_eq!(with("A: \x02"), HeadError::ControlCharacter);
    assert_eq!(with("A: b\r\n c"), HeadError::ObsFold);
    assert_eq!(with("A"), HeadError::FieldWithoutColon);
    assert_eq!(with("A : b"), HeadError::SpaceBeforeColon);
    assert_eq!(with("A B: b"), HeadError::FieldName);
    assert_eq!(with(": b"), HeadError::FieldName);
    assert_eq!(with("Host: b"), HeadError::HostRepeated);
    assert_eq!(
        with("Content-Length: 1\r\nContent-Length: 1"),
        HeadError::LengthRepeated
    );
    assert_eq!(with("Content-Length: 1,2"), HeadError::LengthRepeated);
    assert_eq!(with("Content-Length: a"), HeadError::LengthInvalid);
    assert_eq!(
        with("Content-Length: 1\r\nTransfer-Encoding: chunked"),
        HeadError::LengthWithTransferEncoding
    );
    assert_eq!(
        with("Transfer-Encoding: chunked, chunked"),
        HeadError::TransferEncodingInvalid
    );
    assert_eq!(with("Transfer-Encoding: gzip"), HeadError::TransferEncodingUnsupported);
    assert_eq!(with("Connection: a b"), HeadError::ConnectionInvalid);
    assert_eq!(with("Connection: Host"), HeadError::ConnectionNamesFraming);
    assert_eq!(
        fault(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        HeadError::TransferEncodingInOldVersion
    );
    assert_eq!(fault(b"GET / HTTP/1.1\r\n\r\n"), HeadError::HostMissing);
    assert_eq!(fault(b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"), HeadError::HostInvalid);
    assert_eq!(fault(b"GET /\r\n"), HeadError::RequestLine);
    assert_eq!(fault(b"G@T / HTTP/1.1\r\n"), HeadError::Method);
    assert_eq!(fault(b"GET x HTTP/1.1\r\n"), HeadError::Target);
    assert_eq!(fault(b"GET / HTTQ/1.1\r\n"), HeadError::Version);
    assert_eq!(fault(b"GET / HTTP/3.0\r\n"), HeadError::VersionUnsupported);
    assert_eq!(fault(b"\r\n\r\n"), HeadError::LeadingLines);
    let limits = Limits { head: 64, fields: 2 };
    let long = [b"GET / HTTP/1.1\r\nHost: a\r\nA: ".as_slice(), &[b'a'; 64]].concat();
    assert_eq!(RequestParser::new(limits).parse(&long), Err(HeadError::TooLarge));
    assert_eq!(
        RequestParser::new(limits).parse(b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nA: c\r\n\r\n"),
        Err(HeadError::TooManyFields)
    );
    assert_eq!(HeadError::TooLarge.status(), 431);
}

#[test]
fn a_body_after_a_refused_head_is_not_framed() {
    // The head of a refused request tells nothing about where it ends: the reader of an unfinished parser sees no body.
    let mut parser = RequestParser::new(Limits::default());
    assert!(
        parser
            .parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
            .is_err()
    );
    assert_eq!(parser.head().framing(), Framing::None);
}
