//! The outgoing head: spans of the received one, without what goes no further, with what the proxy adds.

use crate::body::Framing;
use crate::chars;
use crate::error::EditError;
use crate::fields::{Fields, Known};
use crate::reply::put_number;
use crate::request::{RequestHead, TargetForm};
use crate::response::ResponseHead;

/// Where bytes are written to.
pub trait Put {
    /// Appends all of them.
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<A: smallvec::Array<Item = u8>> Put for smallvec::SmallVec<A> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What the outgoing head says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    /// Nothing: HTTP/1.1 connections persist.
    #[default]
    Persistent,
    /// `connection: keep-alive`, for clients of HTTP/1.0.
    KeepAlive,
    /// `connection: close`.
    Close,
    /// `connection: upgrade`; the received `Upgrade` field is passed on.
    Upgrade,
}

/// Changes to one head, kept apart from it until it is written. Reuse one per connection or worker: it keeps its memory.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    removed: u128,
    lines: Vec<u8>,
    path: Option<usize>,
    authority: Option<usize>,
    /// New path, then new authority.
    target: Vec<u8>,
    framing: Option<Framing>,
    connection: Connection,
}

impl Edit {
    /// Forgets earlier changes and begins with those that every proxy makes: fields about the received connection go.
    pub fn begin(&mut self, fields: &Fields) {
        self.removed = fields.hop;
        self.lines.clear();
        self.target.clear();
        self.path = None;
        self.authority = None;
        self.framing = None;
        self.connection = Connection::default();
    }

    /// Removes the received fields of this name; says whether there were any. Framing fields and `Host` stay: see
    /// [`framing`](Self::framing) and [`authority`](Self::authority).
    pub fn remove(&mut self, fields: &Fields, buffer: &[u8], name: &[u8]) -> bool {
        let mut any = false;
        for (index, field) in fields.iter().enumerate() {
            let stays = matches!(
                field.known,
                Known::Host | Known::ContentLength | Known::TransferEncoding
            );
            if !stays && field.name.of(buffer).eq_ignore_ascii_case(name) {
                self.removed |= 1 << index;
                any = true;
            }
        }
        any
    }

    /// Appends a field.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), EditError> {
        if !chars::all_token(name) {
            return Err(EditError::Name);
        }
        if Known::of(name).is_reserved() {
            return Err(EditError::Reserved);
        }
        if !chars::all_value(value) {
            return Err(EditError::Value);
        }
        crate::reply::put_field(&mut self.lines, name, value);
        Ok(())
    }

    /// Replaces the received fields of this name by one.
    pub fn set(&mut self, fields: &Fields, buffer: &[u8], name: &[u8], value: &[u8]) -> Result<(), EditError> {
        self.add(name, value)?;
        self.remove(fields, buffer, name);
        Ok(())
    }

    /// Another path and query (request). Has no effect with CONNECT.
    pub fn path(&mut self, path: &[u8]) -> Result<(), EditError> {
        if !(path.starts_with(b"/") || path == b"*") || !chars::all_target(path) {
            return Err(EditError::Path);
        }
        let authority = self.authority.map(|_| self.take_authority());
        self.target.clear();
        self.target.extend_from_slice(path);
        self.path = Some(path.len());
        if let Some(authority) = authority {
            self.put_authority(&authority);
        }
        Ok(())
    }

    /// Another authority (request): what `Host` will say.
    pub fn authority(&mut self, authority: &[u8]) -> Result<(), EditError> {
        if !chars::is_authority(authority) {
            return Err(EditError::Authority);
        }
        self.put_authority(authority);
        Ok(())
    }

    /// Another framing of the body; without it the received fields are passed on, which is right when the body's bytes are passed
    /// on as they are. [`Framing::None`] and the close-delimited framings write no field.
    pub fn framing(&mut self, framing: Framing) {
        self.framing = Some(framing);
    }

    /// What to say about the connection.
    pub fn connection(&mut self, connection: Connection) {
        self.connection = connection;
    }

    /// Writes the request head, as HTTP/1.1 and in origin form (CONNECT and `OPTIONS *` excepted).
    pub fn write_request<W: Put + ?Sized>(&self, head: &RequestHead, buffer: &[u8], out: &mut W) {
        let request = head.view(buffer);
        out.put(request.method());
        out.put(b" ");
        match (head.form, self.path) {
            (TargetForm::Authority, _) => out.put(request.authority()),
            (_, Some(length)) => out.put(self.target.get(..length).unwrap_or_default()),
            // `OPTIONS http://host` asks about the server as a whole (RFC 9112, 3.2.4).
            (TargetForm::Absolute, None) if head.path.is_empty() && request.method() == b"OPTIONS" => out.put(b"*"),
            (_, None) => out.put(request.path()),
        }
        out.put(b" HTTP/1.1\r\n");
        let replaced = match self.authority {
            Some(from) => self.target.get(from..),
            // The authority of an absolute target counts; a request of HTTP/1.0 may have none.
            None if head.form == TargetForm::Absolute || head.authority.is_none() => Some(request.authority()),
            None => None,
        };
        if let Some(authority) = replaced {
            crate::reply::put_field(out, b"host", authority);
        }
        self.write_fields(&head.fields, buffer, replaced.is_some(), out);
    }

    /// Writes the response head, as HTTP/1.1.
    pub fn write_response<W: Put + ?Sized>(&self, head: &ResponseHead, buffer: &[u8], out: &mut W) {
        out.put(b"HTTP/1.1 ");
        put_number(out, u64::from(head.status));
        out.put(b" ");
        out.put(head.reason.of(buffer));
        out.put(b"\r\n");
        self.write_fields(&head.fields, buffer, false, out);
    }

    fn write_fields<W: Put + ?Sized>(&self, fields: &Fields, buffer: &[u8], without_host: bool, out: &mut W) {
        let mut removed = self.removed;
        if without_host || self.framing.is_some() || self.connection == Connection::Upgrade {
            for (index, field) in fields.iter().enumerate() {
                match field.known {
                    Known::Host if without_host => removed |= 1 << index,
                    Known::ContentLength | Known::TransferEncoding if self.framing.is_some() => removed |= 1 << index,
                    Known::Upgrade if self.connection == Connection::Upgrade => removed &= !(1 << index),
                    _ => {}
                }
            }
        }
        // Neighbouring lines that stay are one copy.
        let count = fields.len();
        let mut index = 0;
        while index < count {
            let skip = (removed >> index).trailing_ones() as usize;
            let first = (index + skip).min(count);
            let keep = removed
                .checked_shr(u32::try_from(first).unwrap_or(128))
                .unwrap_or(0)
                .trailing_zeros() as usize;
            let last = (first + keep).min(count);
            out.put(
                buffer
                    .get(fields.line_start(first)..fields.line_start(last))
                    .unwrap_or_default(),
            );
            index = last.max(first);
        }
        match self.framing {
            Some(Framing::Length(length)) => {
                out.put(b"content-length: ");
                put_number(out, length);
                out.put(b"\r\n");
            }
            Some(Framing::Chunked) => out.put(b"transfer-encoding: chunked\r\n"),
            Some(Framing::None | Framing::Close | Framing::Tunnel) | None => {}
        }
        match self.connection {
            Connection::Persistent => {}
            Connection::KeepAlive => out.put(b"connection: keep-alive\r\n"),
            Connection::Close => out.put(b"connection: close\r\n"),
            Connection::Upgrade => out.put(b"connection: upgrade\r\n"),
        }
        out.put(&self.lines);
        out.put(b"\r\n");
    }

    fn take_authority(&mut self) -> Vec<u8> {
        let from = self.authority.take().unwrap_or(self.target.len());
        self.target.get(from..).unwrap_or_default().to_vec()
    }

    fn put_authority(&mut self, authority: &[u8]) {
        self.target.truncate(self.path.unwrap_or(0));
        self.authority = Some(self.target.len());
        self.target.extend_from_slice(authority);
    }
}
