//! What request and response heads share: lines, field lines, and what the framing and connection fields say together.

use crate::chars;
use crate::error::HeadError;
use crate::fields::{Field, Fields, Known, Span};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the head with its final empty line; at most 65,535. Default 60 KiB, as Envoy's `max_request_headers_kb`.
    pub head: usize,
    /// Field lines; at most 128. Default 100, as Envoy's `max_headers_count`.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 60 * 1024,
            fields: 100,
        }
    }
}

/// How far a head has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Call again with the same buffer and more bytes behind it.
    Partial,
    /// The head is complete.
    Complete,
}

/// Versions that this codec speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// Position in the head while it arrives in pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    /// Where the current line begins.
    pub(crate) position: usize,
    /// Up to where no line end was found.
    scanned: usize,
}

impl Lines {
    /// The next whole line as a range without its CRLF. The limit is looked at before the line, so that the answer does not depend
    /// on how the bytes arrived.
    #[inline]
    pub(crate) fn next(&mut self, buffer: &[u8], limit: usize) -> Result<Option<(usize, usize)>, HeadError> {
        let from = self.scanned.max(self.position);
        let Some(found) = memchr::memchr(b'\n', buffer.get(from..).unwrap_or_default()) else {
            self.scanned = buffer.len();
            return if buffer.len() >= limit {
                Err(HeadError::TooLarge)
            } else {
                Ok(None)
            };
        };
        let newline = from + found;
        if newline >= limit {
            return Err(HeadError::TooLarge);
        }
        let start = self.position;
        let line = buffer.get(start..newline).unwrap_or_default();
        let Some((b'\r', _)) = line.split_last() else {
            return Err(HeadError::BareLf);
        };
        self.position = newline + 1;
        Ok(Some((start, newline - 1)))
    }
}

/// Says which forbidden byte a text has, when it is known to have one.
#[cold]
pub(crate) fn control_fault(text: &[u8]) -> HeadError {
    if text.contains(&0) {
        HeadError::Nul
    } else if text.contains(&b'\r') {
        HeadError::BareCr
    } else {
        HeadError::ControlCharacter
    }
}

/// `HTTP/1.1` or `HTTP/1.0`.
#[inline]
pub(crate) fn version(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(HeadError::VersionUnsupported)
        }
        _ => Err(HeadError::Version),
    }
}

/// A field line at `start` of the buffer.
#[inline]
pub(crate) fn field(line: &[u8], start: usize) -> Result<Field, HeadError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadError::ObsFold);
    }
    let colon = line
        .iter()
        .position(|byte| !chars::is_token(*byte))
        .unwrap_or(line.len());
    match line.get(colon) {
        Some(b':') if colon > 0 => {}
        Some(b':') => return Err(HeadError::FieldName),
        Some(0 | b'\r') => return Err(control_fault(line)),
        Some(_) => return Err(name_fault(line, colon)),
        None => return Err(HeadError::FieldWithoutColon),
    }
    let value = line.get(colon + 1..).unwrap_or_default();
    if !chars::all_value(value) {
        return Err(control_fault(value));
    }
    let lead = value
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'))
        .unwrap_or(value.len());
    let trail = value
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t'))
        .map_or(lead, |last| last + 1);
    let base = start + colon + 1;
    Ok(Field {
        name: Span::new(start, start + colon),
        value: Span::new(base + lead, base + trail),
        known: Known::of(line.get(..colon).unwrap_or_default()),
    })
}

#[cold]
fn name_fault(line: &[u8], at: usize) -> HeadError {
    let rest = line.get(at..).unwrap_or_default();
    let next = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    match (rest.first(), next) {
        (Some(b' ' | b'\t'), Some(b':')) if at > 0 => HeadError::SpaceBeforeColon,
        _ if !line.contains(&b':') => HeadError::FieldWithoutColon,
        _ => HeadError::FieldName,
    }
}

/// What the framing and connection fields of one head say, gathered line by line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) host: Option<Span>,
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) connection_upgrade: bool,
    pub(crate) upgrade: Option<Span>,
    pub(crate) expect_continue: bool,
    /// `Connection` names fields besides the known ones: look for them at the end.
    nominates: bool,
}

impl Facts {
    /// Adds one field line. `request` has a `Host`; in responses it is an ordinary field.
    #[inline]
    pub(crate) fn see(&mut self, field: &Field, buffer: &[u8], request: bool) -> Result<(), HeadError> {
        if field.known == Known::Other {
            return Ok(());
        }
        let value = field.value.of(buffer);
        match field.known {
            Known::Other | Known::KeepAlive | Known::ProxyConnection | Known::Te => {}
            Known::Host if request => {
                if self.host.is_some() {
                    return Err(HeadError::HostRepeated);
                }
                if !chars::is_authority(value) {
                    return Err(HeadError::HostInvalid);
                }
                self.host = Some(field.value);
            }
            Known::Host => {}
            Known::ContentLength => {
                if self.length.is_some() || (value.contains(&b',') && length_list(value)) {
                    return Err(HeadError::LengthRepeated);
                }
                self.length = Some(length(value)?);
            }
            Known::TransferEncoding => self.see_transfer_encoding(value)?,
            Known::Connection => self.see_connection(value)?,
            Known::Upgrade => self.upgrade = Some(field.value),
            Known::Expect => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
        }
        Ok(())
    }

    fn see_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        self.transfer_encoding = true;
        let mut any = false;
        for coding in value.split(|byte| *byte == b',').map(trim) {
            // Nothing may follow chunked, and it may not be applied twice (RFC 9112, 6.1).
            if self.chunked || coding.is_empty() {
                return Err(HeadError::TransferEncodingInvalid);
            }
            any = true;
            if coding.eq_ignore_ascii_case(b"chunked") {
                self.chunked = true;
            } else if chars::all_token(coding.split(|byte| *byte == b';').next().map(trim).unwrap_or_default()) {
                return Err(HeadError::TransferEncodingUnsupported);
            } else {
                return Err(HeadError::TransferEncodingInvalid);
            }
        }
        if any {
            Ok(())
        } else {
            Err(HeadError::TransferEncodingInvalid)
        }
    }

    fn see_connection(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for option in tokens(value) {
            if !chars::all_token(option) {
                return Err(HeadError::ConnectionInvalid);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                match Known::of(option) {
                    Known::Upgrade => self.connection_upgrade = true,
                    // A sender that has these removed on the way changes what the next hop reads.
                    Known::Host | Known::ContentLength => return Err(HeadError::ConnectionNamesFraming),
                    Known::Other | Known::Expect => self.nominates = true,
                    Known::TransferEncoding
                    | Known::Connection
                    | Known::KeepAlive
                    | Known::ProxyConnection
                    | Known::Te => {}
                }
            }
        }
        Ok(())
    }

    /// Rules over the whole head, and the marks on fields that go no further.
    pub(crate) fn finish(&self, version: Version, fields: &mut Fields, buffer: &[u8]) -> Result<(), HeadError> {
        if self.transfer_encoding {
            if version == Version::Http10 {
                return Err(HeadError::TransferEncodingInOldVersion);
            }
            if self.length.is_some() {
                return Err(HeadError::LengthWithTransferEncoding);
            }
        }
        for index in 0..fields.len() {
            let Some(field) = fields.list.get(index).copied() else {
                break;
            };
            let hop = field.known.is_hop_by_hop()
                || (self.nominates
                    && matches!(field.known, Known::Other | Known::Expect)
                    && nominated(fields, buffer, field.name.of(buffer)));
            if hop {
                fields.mark_hop(index);
            }
        }
        Ok(())
    }

    /// Whether the sender is ready to use the connection for another message.
    pub(crate) fn persistent(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }

    /// The protocol to upgrade to, if the sender asks for it in both fields (and speaks a version that knows it).
    pub(crate) fn wants_upgrade(&self, version: Version) -> Option<Span> {
        self.upgrade
            .filter(|protocol| self.connection_upgrade && version == Version::Http11 && !protocol.is_empty())
    }
}

#[cold]
fn nominated(fields: &Fields, buffer: &[u8], name: &[u8]) -> bool {
    fields
        .iter()
        .filter(|field| field.known == Known::Connection)
        .any(|field| tokens(field.value.of(buffer)).any(|option| option.eq_ignore_ascii_case(name)))
}

/// The members of a comma-separated list; empty members are skipped (RFC 9110, 5.6.1).
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|option| !option.is_empty())
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t'))
        .map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

/// Digits only, below 2^63 (19 digits at most, so that no sum of lengths overflows).
fn length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::LengthInvalid);
    }
    let number = value.iter().fold(0_u64, |sum, digit| {
        sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    });
    if number > i64::MAX as u64 {
        Err(HeadError::LengthInvalid)
    } else {
        Ok(number)
    }
}

fn length_list(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .all(|part| length(part).is_ok())
}
