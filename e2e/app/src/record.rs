//! Remembers requests as they arrived, for those who want to know what a proxy before the service let through.

use http::{HeaderMap, header};
use parking_lot::Mutex;

/// Enough for any test between two looks; what comes then is dropped, and the last line says so.
const MOST: usize = 10_000;

#[derive(Default)]
pub(crate) struct Record(Mutex<Vec<String>>);

impl Record {
    /// A request whose body had so many bytes, or broke off.
    pub(crate) fn add(&self, method: &http::Method, target: &http::Uri, headers: &HeaderMap, body: Option<usize>) {
        let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
        let codings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
        let hosts = headers.get_all(header::HOST).iter().count();
        let framing = match (lengths + codings > 1, hosts > 1) {
            (true, _) => " two framings",
            (false, true) => " two hosts",
            (false, false) => "",
        };
        let line = match body {
            Some(bytes) => format!("{method} {target} {bytes}{framing} whole"),
            None => format!("{method} {target}{framing} broken"),
        };
        let mut lines = self.0.lock();
        if lines.len() < MOST {
            lines.push(line);
        }
    }

    /// All since the last call, one per line, and `end`.
    pub(crate) fn take(&self) -> String {
        let mut lines = std::mem::take(&mut *self.0.lock());
        lines.push("end".to_owned());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_each_request_once() {
        let record = Record::default();
        let target = http::Uri::from_static("/a?b");
        let mut headers = HeaderMap::new();
        record.add(&http::Method::GET, &target, &headers, Some(0));
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("3"));
        headers.insert(header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"));
        record.add(&http::Method::POST, &target, &headers, None);
        assert_eq!(record.take(), "GET /a?b 0 whole\nPOST /a?b two framings broken\nend");
        assert_eq!(record.take(), "end");
    }
}
