//! Requests that make two recipients disagree about where a message ends, whom it is for or what its fields are, as data: bytes in,
//! what must happen out. The scenarios send the same table through both data planes.

/// One request (or several, pipelined) and what a strict recipient does.
pub(crate) struct Case {
    /// Names the behaviour.
    pub(crate) name: &'static str,
    /// What the client sends.
    pub(crate) bytes: &'static [u8],
    /// What must happen.
    pub(crate) expect: Expect,
}

/// What must happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The first request is answered with this status and the connection is closed.
    Refused(u16),
    /// The head is accepted, but the body is broken: the connection is closed and nothing after it is read as a request.
    BodyRefused,
    /// So many requests are read, and nothing is left over.
    Accepted(usize),
}

use Expect::{Accepted, BodyRefused, Refused};

/// The table.
#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    // Lengths.
    Case { name: "two lengths that differ", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\n123456", expect: Refused(400) },
    Case { name: "two lengths that agree", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "a list of lengths", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "signed length", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "negative length", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", expect: Refused(400) },
    Case { name: "hexadecimal length", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "length with a space inside", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n12345", expect: Refused(400) },
    Case { name: "length with an underscore", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n1234567890", expect: Refused(400) },
    Case { name: "empty length", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", expect: Refused(400) },
    Case { name: "length beyond 64 bits", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n1", expect: Refused(400) },
    // Length with chunked.
    Case { name: "length then chunked", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", expect: Refused(400) },
    Case { name: "chunked then length", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "length hidden in another case", bytes: b"POST / HTTP/1.1\r\nHost: a\r\ncOnTeNt-LeNgTh: 4\r\ntRANSFER-eNCODING: chunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    // Transfer codings.
    Case { name: "chunked twice", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "chunked twice in a list", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "chunked then identity", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "identity then chunked", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", expect: Refused(501) },
    Case { name: "unknown coding", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", expect: Refused(501) },
    Case { name: "gzip then chunked", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", expect: Refused(501) },
    Case { name: "quoted chunked", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "chunked with a vertical tab", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "chunked with a no-break space", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "empty transfer encoding", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "chunked in HTTP/1.0", bytes: b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    // Field lines.
    Case { name: "space before the colon", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "tab before the colon", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "folded line", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", expect: Refused(400) },
    Case { name: "white space before the first field", bytes: b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", expect: Refused(400) },
    Case { name: "bare LF between fields", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "bare LF ends the head", bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "bare CR in a value", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "CR CR LF", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", expect: Refused(400) },
    Case { name: "NUL in a value", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", expect: Refused(400) },
    Case { name: "NUL in a name", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\0: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "control character in a value", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", expect: Refused(400) },
    Case { name: "delete character in a value", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", expect: Refused(400) },
    Case { name: "line without a colon", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length\r\n\r\n", expect: Refused(400) },
    Case { name: "empty name", bytes: b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", expect: Refused(400) },
    Case { name: "name in brackets", bytes: b"GET / HTTP/1.1\r\nHost: a\r\n(x): y\r\n\r\n", expect: Refused(400) },
    Case { name: "name outside ASCII", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-L\xc4\x97ngth: 5\r\n\r\n12345", expect: Refused(400) },
    // Host.
    Case { name: "no host", bytes: b"GET / HTTP/1.1\r\nX: y\r\n\r\n", expect: Refused(400) },
    Case { name: "two hosts that differ", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", expect: Refused(400) },
    Case { name: "two hosts that agree", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "host with user information", bytes: b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", expect: Refused(400) },
    Case { name: "host with a path", bytes: b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", expect: Refused(400) },
    Case { name: "host with a space", bytes: b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", expect: Refused(400) },
    Case { name: "list of hosts", bytes: b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", expect: Refused(400) },
    Case { name: "host with two ports", bytes: b"GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", expect: Refused(400) },
    Case { name: "host with a port out of range", bytes: b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", expect: Refused(400) },
    // Request line.
    Case { name: "two spaces after the method", bytes: b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "tab after the method", bytes: b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "space in the target", bytes: b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "space after the version", bytes: b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "space before the method", bytes: b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "no version", bytes: b"GET /\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "method with a colon", bytes: b"GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "fragment in the target", bytes: b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "target outside ASCII", bytes: b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "target without a slash", bytes: b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "absolute target of another scheme", bytes: b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "absolute target with user information", bytes: b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "asterisk with GET", bytes: b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "CONNECT without a port", bytes: b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "lower-case version", bytes: b"GET / http/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "version with a leading zero", bytes: b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "version 1.2", bytes: b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", expect: Refused(505) },
    Case { name: "version 2.0", bytes: b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", expect: Refused(505) },
    Case { name: "version 0.9", bytes: b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", expect: Refused(505) },
    Case { name: "two empty lines first", bytes: b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", expect: Refused(400) },
    Case { name: "TLS on a plain port", bytes: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", expect: Refused(400) },
    // Connection.
    Case { name: "connection names the length", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\n12345", expect: Refused(400) },
    Case { name: "connection names the host", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, host\r\n\r\n", expect: Refused(400) },
    Case { name: "connection is no list of tokens", bytes: b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", expect: Refused(400) },
    // Chunked bodies.
    Case { name: "chunk size with 0x", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "negative chunk size", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "empty chunk size", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "chunk size that overflows", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "chunk size with many zeros", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000000005\r\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "space after the chunk size", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "bare LF after the chunk size", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "bare LF in a chunk extension", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "bare CR in a chunk extension", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "chunk longer than its size", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n12345\r\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "bare LF after chunk data", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\n0\r\n\r\n", expect: BodyRefused },
    Case { name: "length in trailers", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", expect: BodyRefused },
    Case { name: "bare LF in trailers", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n", expect: BodyRefused },
    Case { name: "bare LF ends the chunked body", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", expect: BodyRefused },
    // What must go on working.
    Case { name: "pipelined requests", bytes: b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGETGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", expect: Accepted(3) },
    Case { name: "one empty line first", bytes: b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", expect: Accepted(1) },
    Case { name: "chunked with extension and trailer", bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;name=value\r\n12345\r\n0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", expect: Accepted(2) },
    Case { name: "absolute target", bytes: b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", expect: Accepted(1) },
    Case { name: "no host in HTTP/1.0", bytes: b"GET / HTTP/1.0\r\n\r\n", expect: Accepted(1) },
];
