//! Request heads.

use crate::body::Framing;
use crate::chars;
use crate::error::HeadError;
use crate::fields::{Fields, Span};
use crate::scan::{Facts, Limits, Lines, Parsed, Version, control_fault, field, version};

/// Request methods; any token that is not one of these is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other.
    Other,
}

impl Method {
    /// Methods are case-sensitive: `get` is `Other`.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether sending it twice does what sending it once does (RFC 9110, 9.2.2).
    pub fn is_idempotent(self) -> bool {
        matches!(
            self,
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace
        )
    }
}

/// The form of the request target (RFC 9112, 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`; its authority counts, not that of `Host`.
    Absolute,
    /// `host:port`, only with CONNECT.
    Authority,
    /// `*`, only with OPTIONS.
    Asterisk,
}

/// A parsed request head: spans over the buffer it was parsed from.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    pub(crate) method: Method,
    pub(crate) method_span: Span,
    pub(crate) form: TargetForm,
    pub(crate) path: Span,
    pub(crate) authority: Option<Span>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    len: usize,
    framing: Framing,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: Option<Span>,
}

impl RequestHead {
    /// Parses a head from the beginning of a buffer in one go; `None` when it is not complete yet.
    /// For bytes that arrive in pieces, [`RequestParser`] does not begin anew each time.
    pub fn parse(buffer: &[u8], limits: Limits) -> Result<Option<Self>, HeadError> {
        let mut parser = RequestParser::new(limits);
        Ok(match parser.parse(buffer)? {
            Parsed::Complete => Some(parser.head),
            Parsed::Partial => None,
        })
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The form of the target.
    pub fn form(&self) -> TargetForm {
        self.form
    }

    /// The version of the sender.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The field lines.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// How many bytes of the buffer the head takes; the body follows.
    #[expect(clippy::len_without_is_empty, reason = "a parsed head is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How the body is delimited: none, a length, or chunked.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client is ready to send another request on this connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expect_continue(&self) -> bool {
        self.expect_continue
    }

    /// The protocols that the client asks to upgrade to (`Upgrade` named by `Connection`), for instance `websocket`.
    pub fn upgrade(&self) -> Option<Span> {
        self.upgrade
    }

    /// Path and query; `*` or empty for the other forms.
    pub fn path(&self) -> Span {
        self.path
    }

    /// The effective authority: of an absolute target or CONNECT, else of `Host`.
    pub fn authority(&self) -> Option<Span> {
        self.authority
    }

    /// The head together with its bytes, for reading.
    pub fn view<'a>(&'a self, buffer: &'a [u8]) -> Request<'a> {
        Request { head: self, buffer }
    }
}

/// A request head with the bytes it points into.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    head: &'a RequestHead,
    buffer: &'a [u8],
}

impl<'a> Request<'a> {
    /// The head.
    pub fn head(&self) -> &'a RequestHead {
        self.head
    }

    /// The method as written.
    pub fn method(&self) -> &'a [u8] {
        self.head.method_span.of(self.buffer)
    }

    /// Path and query.
    pub fn path(&self) -> &'a [u8] {
        // `http://host` without a path means `/` (RFC 9112, 3.2.1).
        let path = self.head.path.of(self.buffer);
        if path.is_empty() && self.head.form == TargetForm::Absolute {
            b"/"
        } else {
            path
        }
    }

    /// The effective authority; empty when there is none.
    pub fn authority(&self) -> &'a [u8] {
        self.head.authority.map(|span| span.of(self.buffer)).unwrap_or_default()
    }

    /// The first value of a field.
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.head.fields.value(self.buffer, name)
    }

    /// All values of a field.
    pub fn fields(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.head.fields.values(self.buffer, name)
    }

    /// The protocol to upgrade to.
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        self.head.upgrade.map(|span| span.of(self.buffer))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Start,
    Fields,
    Done,
}

/// Reads one request head from bytes that may arrive in pieces. Each byte is looked at once; any division of the input gives the
/// same result.
#[derive(Debug, Clone)]
pub struct RequestParser {
    limits: Limits,
    phase: Phase,
    lines: Lines,
    facts: Facts,
    head: RequestHead,
}

impl RequestParser {
    /// A parser at the beginning of a request.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            head: limits.head.min(65_535),
            fields: limits.fields.min(128),
        };
        Self {
            limits,
            phase: Phase::default(),
            lines: Lines::default(),
            facts: Facts::default(),
            head: RequestHead::default(),
        }
    }

    /// Forgets the request, for the next one on the connection.
    pub fn reset(&mut self) {
        self.phase = Phase::Start;
        self.lines = Lines::default();
        self.facts = Facts::default();
        self.head.fields.clear();
    }

    /// Goes on with a buffer that begins with the same bytes as in the call before.
    pub fn parse(&mut self, buffer: &[u8]) -> Result<Parsed, HeadError> {
        if self.phase == Phase::Start {
            // What is plainly no HTTP (TLS, binary protocols) is refused at once, not after a line that never ends.
            if buffer
                .first()
                .is_some_and(|byte| !chars::is_token(*byte) && !matches!(byte, b'\r' | b'\n' | b' '))
            {
                return Err(HeadError::Method);
            }
            loop {
                let Some((start, end)) = self.lines.next(buffer, self.limits.head)? else {
                    return Ok(Parsed::Partial);
                };
                if start < end {
                    self.request_line(buffer, start, end)?;
                    self.phase = Phase::Fields;
                    break;
                }
                // One empty line may precede the request (RFC 9112, 2.2): old clients send it after a body.
                if start > 0 {
                    return Err(HeadError::LeadingLines);
                }
            }
        }
        while self.phase == Phase::Fields {
            let Some((start, end)) = self.lines.next(buffer, self.limits.head)? else {
                return Ok(Parsed::Partial);
            };
            if start == end {
                self.finish(buffer, start)?;
                self.phase = Phase::Done;
                break;
            }
            if self.head.fields.list.len() >= self.limits.fields {
                return Err(HeadError::TooManyFields);
            }
            let field = field(buffer.get(start..end).unwrap_or_default(), start)?;
            self.facts.see(&field, buffer, true)?;
            self.head.fields.list.push(field);
        }
        Ok(Parsed::Complete)
    }

    /// The head, once [`parse`](Self::parse) said that it is complete.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// Changes path and query of a complete head where they stand in `buffer`, the one it was parsed from: `change` gets their
    /// bytes and says how many of them are left. What reads or writes the head afterwards sees only the new ones. `change`
    /// must leave bytes that may stand in a target. `None` from it leaves the head as it is, and is returned.
    pub fn change_path(&mut self, buffer: &mut [u8], change: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        let path = &mut self.head.path;
        let length = change(path.of_mut(buffer))?;
        let end = usize::from(path.start).saturating_add(length);
        path.end = path.end.min(crate::fields::offset(end));
        Some(())
    }

    /// Whether any byte of a request was seen: an end of file before it is an ordinary close, after it is an error.
    pub fn started(&self) -> bool {
        self.phase != Phase::Start || self.lines.position > 0
    }

    fn request_line(&mut self, buffer: &[u8], start: usize, end: usize) -> Result<(), HeadError> {
        let line = buffer.get(start..end).unwrap_or_default();
        let fault = |kind| {
            if chars::all_value(line) {
                kind
            } else {
                control_fault(line)
            }
        };
        let Some(first) = memchr::memchr(b' ', line) else {
            return Err(fault(HeadError::RequestLine));
        };
        let (method, rest) = (
            line.get(..first).unwrap_or_default(),
            line.get(first + 1..).unwrap_or_default(),
        );
        if !chars::all_token(method) {
            return Err(fault(HeadError::Method));
        }
        let Some(second) = memchr::memchr(b' ', rest) else {
            return Err(fault(HeadError::RequestLine));
        };
        let (target, last) = (
            rest.get(..second).unwrap_or_default(),
            rest.get(second + 1..).unwrap_or_default(),
        );
        if target.is_empty() || last.contains(&b' ') {
            return Err(fault(HeadError::RequestLine));
        }
        self.head.version = version(last).map_err(fault)?;
        self.head.method = Method::of(method);
        self.head.method_span = Span::new(start, start + first);
        self.target(target, start + first + 1).map_err(fault)
    }

    fn target(&mut self, target: &[u8], start: usize) -> Result<(), HeadError> {
        if !chars::all_target(target) {
            return Err(HeadError::Target);
        }
        let head = &mut self.head;
        let span = Span::new(start, start + target.len());
        head.authority = None;
        match (head.method, target) {
            (Method::Connect, _) => {
                // CONNECT needs a host and a port.
                let port = memchr::memrchr(b':', target).and_then(|colon| target.get(colon + 1..));
                if !chars::is_authority(target)
                    || port.is_none_or(|p| p.is_empty() || !p.iter().all(u8::is_ascii_digit))
                {
                    return Err(HeadError::Target);
                }
                head.form = TargetForm::Authority;
                head.authority = Some(span);
                head.path = Span::new(start, start);
            }
            (_, [b'/', ..]) => {
                head.form = TargetForm::Origin;
                head.path = span;
            }
            (Method::Options, b"*") => {
                head.form = TargetForm::Asterisk;
                head.path = span;
            }
            _ => {
                let scheme = [b"http://".as_slice(), b"https://"]
                    .into_iter()
                    .find(|scheme| {
                        target
                            .get(..scheme.len())
                            .is_some_and(|t| t.eq_ignore_ascii_case(scheme))
                    })
                    .ok_or(HeadError::Target)?;
                let rest = target.get(scheme.len()..).unwrap_or_default();
                let slash = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
                let authority = rest.get(..slash).unwrap_or_default();
                // `http://host?query` would need a slash put in; nobody sends it, so it is refused.
                let path = rest.get(slash..).unwrap_or_default();
                if authority.is_empty() || !chars::is_authority(authority) || path.starts_with(b"?") {
                    return Err(HeadError::Target);
                }
                let base = start + scheme.len();
                head.form = TargetForm::Absolute;
                head.authority = Some(Span::new(base, base + slash));
                head.path = Span::new(base + slash, start + target.len());
            }
        }
        Ok(())
    }

    fn finish(&mut self, buffer: &[u8], end: usize) -> Result<(), HeadError> {
        let (head, facts) = (&mut self.head, &self.facts);
        head.fields.end = crate::fields::offset(end);
        head.len = end + 2;
        facts.finish(head.version, &mut head.fields, buffer)?;
        if facts.host.is_none() && head.version == Version::Http11 {
            return Err(HeadError::HostMissing);
        }
        if head.authority.is_none() {
            head.authority = facts.host;
        }
        head.framing = match (facts.chunked, facts.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) if length > 0 => Framing::Length(length),
            _ => Framing::None,
        };
        head.keep_alive = facts.persistent(head.version);
        head.expect_continue =
            facts.expect_continue && head.version == Version::Http11 && head.framing != Framing::None;
        head.upgrade = facts.wants_upgrade(head.version);
        Ok(())
    }
}
