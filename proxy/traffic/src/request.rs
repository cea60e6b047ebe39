//! A request's head as decisions see it.

use std::borrow::Cow;

use mizzen_decide::Request;
use mizzen_http::RequestHead;

/// Fields that change how a proxy treats a request (timeouts, retries): only proxies of the mesh may send them.
pub const INTERNAL: &str = "x-envoy-";

/// A parsed head with its bytes and the scheme it came by.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The head.
    pub head: &'a RequestHead,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// It came over TLS.
    pub secure: bool,
    /// It came from outside of the mesh: what only proxies may say to each other is not heard.
    pub edge: bool,
}

impl Request for View<'_> {
    fn method(&self) -> &[u8] {
        self.head.view(self.bytes).method()
    }

    fn path(&self) -> &[u8] {
        self.head.view(self.bytes).path()
    }

    fn authority(&self) -> &[u8] {
        self.head.view(self.bytes).authority()
    }

    fn scheme(&self) -> &[u8] {
        if self.secure { b"https" } else { b"http" }
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if self.edge && name.starts_with(INTERNAL) {
            return None;
        }
        joined(self.head.fields().values(self.bytes, name.as_bytes()))
    }
}

/// One value as it is; several joined by commas.
pub fn joined<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(Cow::Owned(all))
}
