//! Ordinary messages: what is read from heads and bodies, and what goes out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use mizzen_http::{
    BodyError, BodyReader, Connection, Edit, EditError, Framing, HeadError, Limits, LocalReply, Method, Parsed,
    RequestHead, RequestParser, ResponseHead, TargetForm, Version, put_chunk_head, put_last_chunk,
};

fn request(bytes: &[u8]) -> RequestHead {
    RequestHead::parse(bytes, Limits::default()).unwrap().unwrap()
}

fn response(bytes: &[u8], method: Method) -> ResponseHead {
    ResponseHead::parse(bytes, Limits::default(), method).unwrap().unwrap()
}

fn written(bytes: &[u8], change: impl FnOnce(&mut Edit, &RequestHead)) -> String {
    let head = request(bytes);
    let mut edit = Edit::default();
    edit.begin(head.fields());
    change(&mut edit, &head);
    let mut out = Vec::new();
    edit.write_request(&head, bytes, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn request_head_is_read_as_spans() {
    let bytes = b"PUT /p/q?r=s HTTP/1.1\r\nHost: shop.example:8080\r\nExpect: 100-continue\r\nContent-Length: 12\r\nX-One:  1 \r\nx-one: 2\r\n\r\nbody";
    let head = request(bytes);
    let view = head.view(bytes);
    assert_eq!(view.method(), b"PUT");
    assert_eq!(head.method(), Method::Put);
    assert_eq!(view.path(), b"/p/q?r=s");
    assert_eq!(view.authority(), b"shop.example:8080");
    assert_eq!(view.field(b"X-ONE"), Some(b"1".as_slice()));
    assert_eq!(view.fields(b"x-one").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.len(), bytes.len() - 4);
    assert_eq!(head.framing(), Framing::Length(12));
    assert_eq!(
        (head.keep_alive(), head.expect_continue(), head.version()),
        (true, true, Version::Http11)
    );
}

#[test]
fn target_forms_tell_path_and_authority() {
    let read = |line: &str| {
        let bytes = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = request(bytes.as_bytes());
        let view = head.view(bytes.as_bytes());
        (
            head.form(),
            String::from_utf8_lossy(view.path()).into_owned(),
            String::from_utf8_lossy(view.authority()).into_owned(),
        )
    };
    assert_eq!(read("GET /a"), (TargetForm::Origin, "/a".into(), "h".into()));
    assert_eq!(
        read("GET HTTP://b:81/a?c"),
        (TargetForm::Absolute, "/a?c".into(), "b:81".into())
    );
    assert_eq!(read("GET http://b"), (TargetForm::Absolute, "/".into(), "b".into()));
    assert_eq!(
        read("CONNECT [::1]:443"),
        (TargetForm::Authority, String::new(), "[::1]:443".into())
    );
    assert_eq!(read("OPTIONS *"), (TargetForm::Asterisk, "*".into(), "h".into()));
}

#[test]
fn keep_alive_follows_version_and_connection() {
    let alive = |bytes: &str| request(bytes.as_bytes()).keep_alive();
    assert!(alive("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!alive(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, Close\r\n\r\n"
    ));
    assert!(!alive("GET / HTTP/1.0\r\n\r\n"));
    assert!(alive("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn response_body_is_framed_by_status_method_and_fields() {
    let framing = |head: &str, method| {
        let head = response(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), method);
        (head.framing(), head.keep_alive())
    };
    assert_eq!(
        framing("200 OK\r\nContent-Length: 7", Method::Get),
        (Framing::Length(7), true)
    );
    assert_eq!(
        framing("200 OK\r\nContent-Length: 7", Method::Head),
        (Framing::None, true)
    );
    assert_eq!(
        framing("200 OK\r\nTransfer-Encoding: chunked", Method::Get),
        (Framing::Chunked, true)
    );
    assert_eq!(framing("200", Method::Get), (Framing::Close, false));
    assert_eq!(
        framing("304 Not Modified\r\nContent-Length: 7", Method::Get),
        (Framing::None, true)
    );
    assert_eq!(
        framing("204 No Content\r\nContent-Length: 0", Method::Get),
        (Framing::None, true)
    );
    assert_eq!(
        framing(
            "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket",
            Method::Get
        ),
        (Framing::Tunnel, false)
    );
    assert_eq!(
        framing("200 OK\r\nContent-Length: 7", Method::Connect),
        (Framing::Tunnel, false)
    );
    assert_eq!(
        framing("403 Forbidden\r\nContent-Length: 7", Method::Connect),
        (Framing::Length(7), true)
    );
    let interim = response(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Method::Get);
    assert!(interim.is_interim());
}

#[test]
fn ambiguous_responses_are_refused() {
    let fault = |head: &str| {
        ResponseHead::parse(format!("{head}\r\n\r\n").as_bytes(), Limits::default(), Method::Get).unwrap_err()
    };
    assert_eq!(
        fault("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1"),
        HeadError::LengthRepeated
    );
    assert_eq!(
        fault("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"),
        HeadError::LengthWithTransferEncoding
    );
    assert_eq!(
        fault("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked"),
        HeadError::BodyNotAllowed
    );
    assert_eq!(
        fault("HTTP/1.1 100 Continue\r\nContent-Length: 5"),
        HeadError::BodyNotAllowed
    );
    assert_eq!(fault("HTTP/1.1 20 OK"), HeadError::StatusLine);
    assert_eq!(fault("HTTP/1.1 099 OK"), HeadError::StatusLine);
    assert_eq!(fault("HTTP/1.1 2000 OK"), HeadError::StatusLine);
    assert_eq!(fault("HTTP/1.1  200 OK"), HeadError::StatusLine);
    assert_eq!(fault("ICY 200 OK"), HeadError::StatusLine);
    assert_eq!(fault("HTTP/2.0 200 OK"), HeadError::VersionUnsupported);
    assert_eq!(fault("HTTP/1.1 200 O\rK"), HeadError::BareCr);
}

#[test]
fn unchanged_head_is_passed_on_as_written() {
    let bytes = b"GET /a HTTP/1.1\r\nhOST: b\r\nX:y\r\n\r\n";
    assert_eq!(written(bytes, |_, _| {}).as_bytes(), bytes);
}

#[test]
fn fields_about_the_connection_go_no_further() {
    let bytes = b"GET / HTTP/1.1\r\nHost: b\r\nConnection: keep-alive, X-Drop\r\nKeep-Alive: timeout=5\r\nx-drop: 1\r\nProxy-Connection: x\r\nTE: trailers\r\nX-Keep: 2\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(
        written(bytes, |_, _| {}),
        "GET / HTTP/1.1\r\nHost: b\r\nX-Keep: 2\r\n\r\n"
    );
}

#[test]
fn head_is_edited_while_it_is_written() {
    let bytes = b"POST /old HTTP/1.1\r\nA: 1\r\nHost: old\r\nB: 2\r\nContent-Length: 3\r\nC: 3\r\nb: 4\r\n\r\n";
    let out = written(bytes, |edit, head| {
        edit.authority(b"new:80").unwrap();
        edit.path(b"/new?x").unwrap();
        edit.set(head.fields(), bytes, b"B", b"5").unwrap();
        assert!(edit.remove(head.fields(), bytes, b"a"));
        assert!(!edit.remove(head.fields(), bytes, b"z"));
        edit.framing(Framing::Chunked);
        edit.connection(Connection::Close);
    });
    assert_eq!(
        out,
        "POST /new?x HTTP/1.1\r\nhost: new:80\r\nC: 3\r\ntransfer-encoding: chunked\r\nconnection: close\r\nB: 5\r\n\r\n"
    );
}

#[test]
fn absolute_target_replaces_host() {
    let bytes = b"GET http://real/x HTTP/1.1\r\nHost: fake\r\nA: 1\r\n\r\n";
    assert_eq!(
        written(bytes, |_, _| {}),
        "GET /x HTTP/1.1\r\nhost: real\r\nA: 1\r\n\r\n"
    );
    let bytes = b"GET / HTTP/1.0\r\nA: 1\r\n\r\n";
    assert_eq!(written(bytes, |_, _| {}), "GET / HTTP/1.1\r\nhost: \r\nA: 1\r\n\r\n");
}

#[test]
fn upgrade_is_passed_on_only_when_asked_for() {
    let bytes =
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    assert_eq!(request(bytes).view(bytes).upgrade(), Some(b"websocket".as_slice()));
    let out = written(bytes, |edit, _| edit.connection(Connection::Upgrade));
    assert_eq!(
        out,
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nconnection: upgrade\r\n\r\n"
    );
    // `Upgrade` without `Connection: upgrade` asks for nothing.
    let alone = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(request(alone).upgrade(), None);
}

#[test]
fn edits_that_would_break_the_message_are_refused() {
    let mut edit = Edit::default();
    assert_eq!(edit.add(b"x", b"a\r\nb"), Err(EditError::Value));
    assert_eq!(edit.add(b"x y", b"a"), Err(EditError::Name));
    assert_eq!(edit.add(b"Content-Length", b"1"), Err(EditError::Reserved));
    assert_eq!(edit.add(b"host", b"a"), Err(EditError::Reserved));
    assert_eq!(edit.path(b"nope"), Err(EditError::Path));
    assert_eq!(edit.path(b"/a b"), Err(EditError::Path));
    assert_eq!(edit.authority(b"a/b"), Err(EditError::Authority));
}

#[test]
fn response_is_passed_on_without_connection_fields() {
    let bytes = b"HTTP/1.0 200 Fine\r\nConnection: close\r\nContent-Length: 2\r\nServer: s\r\n\r\nok";
    let head = response(bytes, Method::Get);
    let mut edit = Edit::default();
    edit.begin(head.fields());
    edit.set(head.fields(), bytes, b"server", b"istio-envoy").unwrap();
    let mut out = Vec::new();
    edit.write_response(&head, bytes, &mut out);
    assert_eq!(
        out,
        b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nserver: istio-envoy\r\n\r\n"
    );
}

#[test]
fn chunks_are_decoded_with_trailers() {
    let wire = b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\nX-Two: 2\r\n\r\nNEXT";
    let mut body = BodyReader::new(Framing::Chunked);
    let (mut at, mut content) = (0, Vec::new());
    while !body.is_done() {
        let event = body.next(&wire[at..]).unwrap();
        content.extend_from_slice(&wire[at + event.consumed - event.data..at + event.consumed]);
        at += event.consumed;
    }
    assert_eq!(content, b"hello world");
    assert_eq!(&wire[at..], b"NEXT");
    let trailers: Vec<_> = body.trailers().collect();
    assert_eq!(trailers, [(b"X-Sum".as_slice(), b"11".as_slice()), (b"X-Two", b"2")]);
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let mut body = BodyReader::new(Framing::Chunked);
    let long = [b"5;".as_slice(), &[b'a'; 300], b"\r\n"].concat();
    assert_eq!(body.pass(&long), Err(BodyError::ChunkExtension));
    let mut body = BodyReader::new(Framing::Chunked);
    let many = [b"1;".as_slice(), &[b'a'; 200], b"\r\nx\r\n"].concat().repeat(100);
    assert_eq!(body.pass(&many), Err(BodyError::ChunkExtension));
    let mut body = BodyReader::new(Framing::Chunked);
    let long = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(2000)].concat();
    assert_eq!(body.pass(&long), Err(BodyError::TrailersTooLarge));
}

#[test]
fn early_end_of_input_is_an_error_unless_close_delimits() {
    let ended = |framing, bytes: &[u8]| {
        let mut body = BodyReader::new(framing);
        body.pass(bytes).unwrap();
        body.end_of_input()
    };
    assert_eq!(ended(Framing::Length(5), b"1234"), Err(BodyError::Incomplete));
    assert_eq!(ended(Framing::Length(4), b"1234"), Ok(()));
    assert_eq!(
        ended(Framing::Chunked, b"4\r\n1234\r\n0\r\n"),
        Err(BodyError::Incomplete)
    );
    assert_eq!(ended(Framing::Close, b"1234"), Ok(()));
}

#[test]
fn chunks_that_we_write_are_read_again() {
    let mut wire = Vec::new();
    put_chunk_head(&mut wire, 0x1a);
    wire.extend_from_slice(&[b'z'; 0x1a]);
    wire.extend_from_slice(b"\r\n");
    put_last_chunk(
        &mut wire,
        [
            (b"grpc-status".as_slice(), b"0".as_slice()),
            (b"host", b"x"),
            (b"bad name", b""),
        ],
    );
    assert!(wire.starts_with(b"1a\r\nzz"));
    assert!(wire.ends_with(b"\r\n0\r\ngrpc-status: 0\r\n\r\n"));
    let mut body = BodyReader::new(Framing::Chunked);
    let progress = body.pass(&wire).unwrap();
    assert_eq!((progress.consumed, progress.done), (wire.len(), true));
}

#[test]
fn path_changed_where_it_stands_is_what_is_read_and_written() {
    for (received, sent) in [
        (
            "GET /a/../b?c HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /b?c HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        (
            "GET http://h/a/../b?c HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /b?c HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
    ] {
        let mut buffer = received.as_bytes().to_vec();
        let mut parser = RequestParser::new(Limits::default());
        assert_eq!(parser.parse(&buffer).unwrap(), Parsed::Complete);
        assert_eq!(parser.change_path(&mut buffer, |_| None), None);
        let change = |path: &mut [u8]| {
            assert_eq!(path, b"/a/../b?c");
            path[..4].copy_from_slice(b"/b?c");
            Some(4)
        };
        assert_eq!(parser.change_path(&mut buffer, change), Some(()));
        let head = parser.head();
        assert_eq!(head.view(&buffer).path(), b"/b?c");
        assert_eq!(
            (head.view(&buffer).authority(), head.len()),
            (&b"h"[..], received.len())
        );
        let mut edit = Edit::default();
        edit.begin(head.fields());
        let mut out = Vec::new();
        edit.write_request(head, &buffer, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), sent);
    }
}

#[test]
fn local_reply_is_a_whole_response() {
    let mut out = Vec::new();
    let reply = LocalReply {
        status: 504,
        body: b"upstream request timeout",
        fields: &[(b"server", b"istio-envoy"), (b"broken\r\n", b"x")],
        date: Some(b"Sat, 21 Nov 2026 13:00:00 GMT"),
        ..LocalReply::default()
    };
    reply.write(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 24\r\ncontent-type: text/plain\r\nserver: istio-envoy\r\n\
         date: Sat, 21 Nov 2026 13:00:00 GMT\r\n\r\nupstream request timeout"
    );
    let mut out = Vec::new();
    LocalReply {
        status: 400,
        connection: Connection::Close,
        head_only: true,
        body: b"x",
        ..LocalReply::default()
    }
    .write(&mut out);
    assert_eq!(
        out,
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    );
}
