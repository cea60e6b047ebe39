//! Response heads.

use crate::body::Framing;
use crate::chars;
use crate::error::HeadError;
use crate::fields::{Fields, Known, Span};
use crate::request::Method;
use crate::scan::{Facts, Limits, Lines, Parsed, Version, control_fault, field, version};

/// A parsed response head: spans over the buffer it was parsed from.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) fields: Fields,
    version: Version,
    len: usize,
    framing: Framing,
    keep_alive: bool,
    upgrade: Option<Span>,
}

impl ResponseHead {
    /// Parses a head from the beginning of a buffer in one go; `None` when it is not complete yet.
    pub fn parse(buffer: &[u8], limits: Limits, method: Method) -> Result<Option<Self>, HeadError> {
        let mut parser = ResponseParser::new(limits);
        parser.reset(method);
        Ok(match parser.parse(buffer)? {
            Parsed::Complete => Some(parser.head),
            Parsed::Partial => None,
        })
    }

    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// 100, 102, 103…: another response head follows. Not 101, after which the protocol changes.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The version of the server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The field lines.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// How many bytes of the buffer the head takes.
    #[expect(clippy::len_without_is_empty, reason = "a parsed head is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How the body is delimited, with the request's method taken into account. [`Framing::Tunnel`] after 101 and after a
    /// successful CONNECT.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the connection can carry another request once this response has been read (never when its body ends with the
    /// connection).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The protocol that the server upgrades to, with status 101.
    pub fn upgrade(&self) -> Option<Span> {
        self.upgrade
    }

    /// The reason phrase.
    pub fn reason(&self) -> Span {
        self.reason
    }

    /// The head together with its bytes, for reading.
    pub fn view<'a>(&'a self, buffer: &'a [u8]) -> Response<'a> {
        Response { head: self, buffer }
    }
}

/// A response head with the bytes it points into.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    head: &'a ResponseHead,
    buffer: &'a [u8],
}

impl<'a> Response<'a> {
    /// The head.
    pub fn head(&self) -> &'a ResponseHead {
        self.head
    }

    /// The first value of a field.
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.head.fields.value(self.buffer, name)
    }

    /// All values of a field.
    pub fn fields(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.head.fields.values(self.buffer, name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Start,
    Fields,
    Done,
}

/// Reads one response head from bytes that may arrive in pieces.
#[derive(Debug, Clone)]
pub struct ResponseParser {
    limits: Limits,
    phase: Phase,
    method: Method,
    lines: Lines,
    facts: Facts,
    head: ResponseHead,
}

impl ResponseParser {
    /// A parser at the beginning of the response to a GET; [`reset`](Self::reset) tells another method.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            head: limits.head.min(65_535),
            fields: limits.fields.min(128),
        };
        Self {
            limits,
            phase: Phase::default(),
            method: Method::default(),
            lines: Lines::default(),
            facts: Facts::default(),
            head: ResponseHead::default(),
        }
    }

    /// Prepares for the (next) response head to a request with this method.
    pub fn reset(&mut self, method: Method) {
        self.phase = Phase::Start;
        self.method = method;
        self.lines = Lines::default();
        self.facts = Facts::default();
        self.head.fields.clear();
    }

    /// Goes on with a buffer that begins with the same bytes as in the call before.
    pub fn parse(&mut self, buffer: &[u8]) -> Result<Parsed, HeadError> {
        if self.phase == Phase::Start {
            if buffer.first().is_some_and(|byte| *byte != b'H') {
                return Err(HeadError::StatusLine);
            }
            let Some((start, end)) = self.lines.next(buffer, self.limits.head)? else {
                return Ok(Parsed::Partial);
            };
            self.status_line(buffer, start, end)?;
            self.phase = Phase::Fields;
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
            self.facts.see(&field, buffer, false)?;
            self.head.fields.list.push(field);
        }
        Ok(Parsed::Complete)
    }

    /// The head, once [`parse`](Self::parse) said that it is complete.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    fn status_line(&mut self, buffer: &[u8], start: usize, end: usize) -> Result<(), HeadError> {
        let line = buffer.get(start..end).unwrap_or_default();
        if !chars::all_value(line) {
            return Err(control_fault(line));
        }
        let (Some(version_text), Some(b' ')) = (line.get(..8), line.get(8)) else {
            return Err(HeadError::StatusLine);
        };
        self.head.version = version(version_text)?;
        let status = match line.get(9..12) {
            Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(HeadError::StatusLine),
        };
        // Many servers leave the space out when there is no reason; nothing is ambiguous about it.
        let reason = match line.get(12) {
            None => end,
            Some(b' ') => start + 13,
            Some(_) => return Err(HeadError::StatusLine),
        };
        self.head.status = status;
        self.head.reason = Span::new(reason, end);
        Ok(())
    }

    fn finish(&mut self, buffer: &[u8], end: usize) -> Result<(), HeadError> {
        let (head, facts) = (&mut self.head, &self.facts);
        head.fields.end = crate::fields::offset(end);
        head.len = end + 2;
        facts.finish(head.version, &mut head.fields, buffer)?;
        let tunnel = head.status == 101 || (self.method == Method::Connect && (200..300).contains(&head.status));
        if head.status < 200 || head.status == 204 || tunnel {
            // RFC 9110, 8.6 and RFC 9112, 6.1. A length of 0 is harmless, so it is only taken out. After CONNECT such fields
            // are ignored.
            if !tunnel && (facts.transfer_encoding || facts.length.is_some_and(|length| length > 0)) {
                return Err(HeadError::BodyNotAllowed);
            }
            for index in 0..head.fields.len() {
                let framing = head.fields.list.get(index).map(|field| field.known);
                if matches!(framing, Some(Known::ContentLength | Known::TransferEncoding)) {
                    head.fields.mark_hop(index);
                }
            }
        }
        head.framing = if tunnel {
            Framing::Tunnel
        } else if self.method == Method::Head || head.status < 200 || matches!(head.status, 204 | 304) {
            Framing::None
        } else {
            match (facts.chunked, facts.length) {
                (true, _) => Framing::Chunked,
                (false, Some(0)) => Framing::None,
                (false, Some(length)) => Framing::Length(length),
                (false, None) => Framing::Close,
            }
        };
        head.keep_alive = facts.persistent(head.version) && !matches!(head.framing, Framing::Close | Framing::Tunnel);
        head.upgrade = facts.wants_upgrade(head.version).filter(|_| head.status == 101);
        Ok(())
    }
}
