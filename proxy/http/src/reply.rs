//! Responses of the proxy's own, and small pieces of heads.

use crate::edit::{Connection, Put};

/// Answers `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A whole response that the proxy itself gives, with a length and a short text.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalReply<'a> {
    /// The status; 204 and 304 have no body.
    pub status: u16,
    /// Its text, sent as `text/plain`.
    pub body: &'a [u8],
    /// More fields; malformed ones are left out.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// Value of `Date` (the codec has no clock).
    pub date: Option<&'a [u8]>,
    /// What to say about the connection. After a [`HeadError`](crate::HeadError) it must be `Close`.
    pub connection: Connection,
    /// The request was HEAD: announce the body but do not send it.
    pub head_only: bool,
}

impl LocalReply<'_> {
    /// Writes head and body.
    pub fn write<W: Put + ?Sized>(&self, out: &mut W) {
        out.put(b"HTTP/1.1 ");
        put_number(out, u64::from(self.status));
        out.put(b" ");
        out.put(reason(self.status).as_bytes());
        out.put(b"\r\n");
        let bodiless = self.status < 200 || matches!(self.status, 204 | 304);
        if !bodiless {
            out.put(b"content-length: ");
            put_number(out, self.body.len() as u64);
            out.put(b"\r\n");
            if !self.body.is_empty() {
                out.put(b"content-type: text/plain\r\n");
            }
        }
        for (name, value) in self.fields {
            if crate::chars::all_token(name) && crate::chars::all_value(value) {
                put_field(out, name, value);
            }
        }
        if let Some(date) = self.date.filter(|date| crate::chars::all_value(date)) {
            put_field(out, b"date", date);
        }
        match self.connection {
            Connection::Persistent | Connection::Upgrade => {}
            Connection::KeepAlive => out.put(b"connection: keep-alive\r\n"),
            Connection::Close => out.put(b"connection: close\r\n"),
        }
        out.put(b"\r\n");
        if !bodiless && !self.head_only {
            out.put(self.body);
        }
    }
}

/// Writes `name: value CRLF`. The caller vouches for both; see [`Edit::add`](crate::Edit::add) for the checked way.
#[inline]
pub fn put_field<W: Put + ?Sized>(out: &mut W, name: &[u8], value: &[u8]) {
    out.put(name);
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

/// Writes a decimal number.
pub(crate) fn put_number<W: Put + ?Sized>(out: &mut W, number: u64) {
    let mut digits = [0_u8; 20];
    let mut left = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        count += 1;
        if left == 0 {
            break;
        }
    }
    out.put(digits.get(digits.len() - count..).unwrap_or_default());
}

/// The registered reason phrase; empty for unregistered statuses.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        425 => "Too Early",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
