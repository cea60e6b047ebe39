//! Field lines as spans over the caller's buffer.

use smallvec::SmallVec;

/// A range of the buffer that the head was parsed from; the head limit keeps offsets in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub(crate) start: u16,
    pub(crate) end: u16,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: offset(start),
            end: offset(end),
        }
    }

    /// The bytes, from the same buffer that was parsed (empty for any other).
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer
            .get(usize::from(self.start)..usize::from(self.end))
            .unwrap_or_default()
    }

    /// The bytes, to be changed where they are.
    pub(crate) fn of_mut(self, buffer: &mut [u8]) -> &mut [u8] {
        buffer
            .get_mut(usize::from(self.start)..usize::from(self.end))
            .unwrap_or_default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// An offset into a head. Limits are clamped so that no offset is out of range.
pub(crate) fn offset(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}

/// Fields that the codec itself has to do with, or that proxies ask for in every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Known {
    /// Any other field.
    #[default]
    Other,
    /// `host`
    Host,
    /// `content-length`
    ContentLength,
    /// `transfer-encoding`
    TransferEncoding,
    /// `connection`
    Connection,
    /// `keep-alive`
    KeepAlive,
    /// `proxy-connection`
    ProxyConnection,
    /// `te`
    Te,
    /// `upgrade`
    Upgrade,
    /// `expect`
    Expect,
}

impl Known {
    /// Which known field a name (in any case) is.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let is = |lower: &[u8]| name.eq_ignore_ascii_case(lower);
        match name.len() {
            2 if is(b"te") => Self::Te,
            4 if is(b"host") => Self::Host,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::KeepAlive,
            14 if is(b"content-length") => Self::ContentLength,
            16 if is(b"proxy-connection") => Self::ProxyConnection,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }

    /// Fields about this connection only; they are never passed on as they came.
    #[inline]
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection | Self::KeepAlive | Self::ProxyConnection | Self::Te | Self::Upgrade
        )
    }

    /// Fields that only the codec writes.
    #[inline]
    pub(crate) fn is_reserved(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Upgrade
        )
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Field {
    /// The name as written.
    pub name: Span,
    /// The value without surrounding white space.
    pub value: Span,
    /// Which one it is.
    pub known: Known,
}

/// The field lines of a head, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    pub(crate) list: SmallVec<[Field; 64]>,
    /// Where the empty line begins that ends the head.
    pub(crate) end: u16,
    /// Bit i: field i is about this connection only (or a framing field that must not be passed on).
    pub(crate) hop: u128,
}

impl Fields {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The lines in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// The value of the first field with this name (in any case).
    #[inline]
    pub fn value<'b>(&self, buffer: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
        self.values(buffer, name).next()
    }

    /// The values of all fields with this name (in any case), in order.
    #[inline]
    pub fn values<'b>(&self, buffer: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
        self.list
            .iter()
            .filter(move |field| {
                usize::from(field.name.end - field.name.start) == name.len()
                    && field.name.of(buffer).eq_ignore_ascii_case(name)
            })
            .map(move |field| field.value.of(buffer))
    }

    /// Names and values in order; names as written.
    pub fn pairs<'b>(&self, buffer: &'b [u8]) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        self.list
            .iter()
            .map(move |field| (field.name.of(buffer), field.value.of(buffer)))
    }

    /// Names and values in order without the fields about this connection only: what another protocol version passes on.
    pub fn end_to_end<'b>(&self, buffer: &'b [u8]) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        let hop = self.hop;
        self.list.iter().enumerate().filter_map(move |(index, field)| {
            let passed = hop & (1 << index) == 0 && !matches!(field.known, Known::Host | Known::TransferEncoding);
            passed.then(|| (field.name.of(buffer), field.value.of(buffer)))
        })
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.end = 0;
        self.hop = 0;
    }

    /// Where line `index` begins; `len()` is the end of the last line.
    pub(crate) fn line_start(&self, index: usize) -> usize {
        usize::from(self.list.get(index).map_or(self.end, |field| field.name.start))
    }

    pub(crate) fn mark_hop(&mut self, index: usize) {
        self.hop |= 1_u128
            .checked_shl(u32::try_from(index).unwrap_or(u32::MAX))
            .unwrap_or(0);
    }
}
