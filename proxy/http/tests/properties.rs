//! Properties over generated messages: division does not matter, what goes in comes out, and the `httparse` crate agrees with
//! everything that is accepted.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use mizzen_http::{
    BodyReader, Edit, Framing, HeadError, Limits, Method, Parsed, RequestHead, RequestParser, ResponseHead,
    ResponseParser, put_chunk_head, put_last_chunk,
};
use proptest::collection::vec;
use proptest::prelude::*;

const FIELDS: usize = 128;

/// Heads made of pieces that matter, right and wrong, in any order.
fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        4 => Just("GET /a?b HTTP/1.1".to_owned()),
        1 => "(GET|get|POST|OPTIONS|CONNECT|M-X|G T)( |  |\t)(/[a-z?%|]{0,6}|\\*|http://h(:[0-9]{1,6})?/x|h:80|#)( |)HTTP/[012]\\.[0-9]( |)",
    ];
    let field = prop_oneof![
        3 => "(Host|X-A|Accept): [a-z0-9.:]{0,8}",
        2 => "(Content-Length|Transfer-Encoding|Connection|Upgrade|Expect|TE): (0|5|chunked|close|x-a|upgrade|gzip, chunked|, |5, 5)",
        1 => "[ -~]{0,12}",
        1 => "[\\x00-\\x1f:a]{1,4}",
        1 => Just("Host: h".to_owned()),
    ];
    let end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (start, vec((field, end.clone()), 0..6), end, vec(any::<u8>(), 0..4)).prop_map(|(start, fields, end, rest)| {
        let mut bytes = start.into_bytes();
        bytes.extend_from_slice(end.as_bytes());
        for (field, end) in fields {
            bytes.extend_from_slice(field.as_bytes());
            bytes.extend_from_slice(end.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&rest);
        bytes
    })
}

/// What a caller can see of a head.
type Seen = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, usize, Framing, bool);

fn seen(head: &RequestHead, bytes: &[u8]) -> Seen {
    let view = head.view(bytes);
    (
        view.method().to_vec(),
        view.path().to_vec(),
        view.authority().to_vec(),
        head.fields()
            .pairs(bytes)
            .map(|(n, v)| (n.to_vec(), v.to_vec()))
            .collect(),
        head.len(),
        head.framing(),
        head.keep_alive(),
    )
}

fn whole(bytes: &[u8]) -> Result<Option<Seen>, HeadError> {
    Ok(RequestHead::parse(bytes, Limits::default())?.map(|head| seen(&head, bytes)))
}

/// A head that must be accepted, with a length or without.
fn good_request() -> impl Strategy<Value = Vec<u8>> {
    let field = ("[A-Za-z][A-Za-z0-9-]{0,10}", "[!-~]([ -~\\t]{0,12}[!-~])?").prop_filter(
        "not a field with rules",
        |(name, _)| {
            !["te", "host", "expect", "upgrade", "connection", "keep-alive"]
                .contains(&name.to_ascii_lowercase().as_str())
        },
    );
    (
        "(GET|POST|PATCH|PURGE)",
        "/[!-\"$-~]{0,20}",
        "[a-z][a-z0-9.-]{0,12}(:[0-9]{1,4})?",
        vec(field, 0..80),
    )
        .prop_map(|(method, path, host, fields)| {
            let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
            for (name, value) in fields {
                text.push_str(&format!("X{name}: {value}\r\n"));
            }
            text.push_str("\r\n");
            text.into_bytes()
        })
}

/// Chunk sizes with their data, encoded.
fn chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    vec(vec(any::<u8>(), 1..40), 0..6).prop_map(|chunks| {
        let mut wire = Vec::new();
        for chunk in &chunks {
            put_chunk_head(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        put_last_chunk(&mut wire, [(b"x-sum".as_slice(), b"1".as_slice())]);
        (wire, chunks.concat())
    })
}

/// Chunked bytes with faults.
fn chunked_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[0-9a-fA-F]{0,3}(;[a-z=]{0,5})?\r\n".prop_map(String::into_bytes),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"0\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        "[A-Za-z-]{1,5}: [a-z]{0,4}\r\n".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn decode(wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), String> {
    let mut body = BodyReader::new(Framing::Chunked);
    let (mut content, mut at) = (Vec::new(), 0);
    for end in cuts.iter().map(|cut| cut % (wire.len() + 1)).chain([wire.len()]) {
        while at < end && !body.is_done() {
            let event = body.next(&wire[at..end]).map_err(|error| error.to_string())?;
            content.extend_from_slice(&wire[at + event.consumed - event.data..at + event.consumed]);
            at += event.consumed;
        }
    }
    Ok((content, at, body.is_done()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn division_of_a_head_does_not_matter(bytes in request_bytes(), cuts in vec(any::<usize>(), 0..5)) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut parser = RequestParser::new(Limits::default());
        let mut result = Ok(None);
        for end in ends {
            match parser.parse(&bytes[..end]) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Complete) => { result = Ok(Some(seen(parser.head(), &bytes))); break; }
                Err(error) => { result = Err(error); break; }
            }
        }
        prop_assert_eq!(result, whole(&bytes));
    }

    #[test]
    fn httparse_agrees_with_what_is_accepted(bytes in request_bytes()) {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut reference = httparse::Request::new(&mut fields);
        let outcome = reference.parse(&bytes);
        if let Ok(Some((method, _, _, pairs, len, _, _))) = whole(&bytes) {
            prop_assert_eq!(outcome, Ok(httparse::Status::Complete(len)));
            prop_assert_eq!(reference.method.map(str::as_bytes), Some(method.as_slice()));
            let theirs: Vec<_> = reference.headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
            prop_assert_eq!(theirs, pairs);
        } else if let Ok(None) = whole(&bytes) {
            // Unfinished for us is unfinished or already refused for the reference, never complete.
            prop_assert!(!matches!(outcome, Ok(httparse::Status::Complete(_))));
        }
    }

    #[test]
    fn good_requests_are_accepted_by_both_and_passed_on_unchanged(bytes in good_request()) {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        prop_assert!(httparse::Request::new(&mut fields).parse(&bytes).is_ok());
        let head = RequestHead::parse(&bytes, Limits::default()).unwrap().unwrap();
        let mut edit = Edit::default();
        edit.begin(head.fields());
        let mut out = Vec::new();
        edit.write_request(&head, &bytes, &mut out);
        prop_assert_eq!(out, bytes);
    }

    #[test]
    fn what_goes_out_is_accepted_again(bytes in request_bytes(), remove in any::<u8>()) {
        if let Ok(Some(head)) = RequestHead::parse(&bytes, Limits::default()) {
            let mut edit = Edit::default();
            edit.begin(head.fields());
            if remove & 1 == 1 { edit.remove(head.fields(), &bytes, b"x-a"); }
            if remove & 2 == 2 { edit.set(head.fields(), &bytes, b"accept", b"none").unwrap(); }
            if remove & 4 == 4 { edit.authority(b"other:1").unwrap(); }
            if remove & 8 == 8 { edit.framing(Framing::Length(9)); }
            let mut out = Vec::new();
            edit.write_request(&head, &bytes, &mut out);
            let again = RequestHead::parse(&out, Limits::default()).unwrap().unwrap();
            prop_assert_eq!(again.len(), out.len());
            prop_assert_eq!(again.view(&out).method(), head.view(&bytes).method());
            let framing = if remove & 8 == 8 { Framing::Length(9) } else { head.framing() };
            prop_assert_eq!(again.framing(), framing);
            // Nothing about the received connection is left.
            prop_assert!(again.fields().value(&out, b"connection").is_none());
        }
    }

    #[test]
    fn responses_are_read_as_httparse_does(
        status in "HTTP/1\\.[01] [0-9]{3}( [ -~]{0,8})?", fields in vec("(Server|X-A|Content-Length): [a-z0-9]{1,6}", 0..4), cut in any::<usize>()
    ) {
        let bytes = format!("{status}\r\n{}\r\n", fields.iter().map(|f| format!("{f}\r\n")).collect::<String>()).into_bytes();
        let ours = ResponseHead::parse(&bytes, Limits::default(), Method::Get);
        let mut parser = ResponseParser::new(Limits::default());
        let cut = cut % bytes.len();
        let split = parser.parse(&bytes[..cut]).and_then(|_| parser.parse(&bytes));
        prop_assert_eq!(split.map(|_| parser.head().len()), ours.clone().map(|head| head.unwrap().len()));
        if let Ok(Some(head)) = ours {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            let mut reference = httparse::Response::new(&mut fields);
            prop_assert_eq!(reference.parse(&bytes), Ok(httparse::Status::Complete(head.len())));
            prop_assert_eq!(reference.code, Some(head.status()));
        }
    }

    #[test]
    fn chunked_content_comes_out_whatever_the_division((wire, content) in chunked(), cuts in vec(any::<usize>(), 0..5)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode(&wire, &cuts), Ok((content, wire.len(), true)));
    }

    #[test]
    fn division_of_a_chunked_body_does_not_matter(wire in chunked_bytes(), cuts in vec(any::<usize>(), 0..5)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode(&wire, &cuts), decode(&wire, &[]));
        let mut body = BodyReader::new(Framing::Chunked);
        let passed = body.pass(&wire).map(|progress| (progress.consumed, progress.done)).map_err(|error| error.to_string());
        prop_assert_eq!(passed, decode(&wire, &[]).map(|(_, at, done)| (at, done)));
    }

    #[test]
    fn no_input_panics(bytes in vec(any::<u8>(), 0..300)) {
        let _ = RequestHead::parse(&bytes, Limits::default());
        let _ = ResponseHead::parse(&bytes, Limits::default(), Method::Get);
        let _ = BodyReader::new(Framing::Chunked).pass(&bytes);
    }
}
