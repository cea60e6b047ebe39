//! HTTP/1.1 over byte buffers.
//!
//! Comes in: the bytes that a peer sent, in the caller's own buffer, and what the caller decided to change. Goes out: heads as
//! spans over that buffer ([`RequestHead`], [`ResponseHead`]), how far a body reaches ([`BodyReader`]), and the bytes of the
//! outgoing head ([`Edit`], [`LocalReply`]). It never does I/O, never reads a clock, never allocates on the path of an ordinary
//! message (at most 64 fields, no trailers), and never guesses: what RFC 9112 leaves ambiguous is refused with one [`HeadError`]
//! or [`BodyError`] each.
//!
//! The loop of a proxy:
//! ```
//! use mizzen_http::{BodyReader, Edit, Limits, Parsed, RequestParser};
//! let received = b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhi";
//! let mut parser = RequestParser::new(Limits::default());
//! assert_eq!(parser.parse(received), Ok(Parsed::Complete));
//! let head = parser.head();
//!
//! let mut edit = Edit::default();
//! edit.begin(head.fields());
//! edit.set(head.fields(), received, b"x-request-id", b"7").unwrap();
//! let mut out = Vec::new();
//! edit.write_request(head, received, &mut out);
//! assert_eq!(out, b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nx-request-id: 7\r\n\r\n");
//!
//! let mut body = BodyReader::new(head.framing());
//! let progress = body.pass(&received[head.len()..]).unwrap();
//! assert_eq!((progress.consumed, progress.done), (2, true));
//! ```

mod body;
mod chars;
mod edit;
mod error;
mod fields;
mod reply;
mod request;
mod response;
mod scan;

pub use body::{BodyEvent, BodyReader, Framing, Progress, put_chunk_head, put_last_chunk};
pub use edit::{Connection, Edit, Put};
pub use error::{BodyError, EditError, HeadError};
pub use fields::{Field, Fields, Known, Span};
pub use reply::{CONTINUE, LocalReply, put_field, reason};
pub use request::{Method, Request, RequestHead, RequestParser, TargetForm};
pub use response::{Response, ResponseHead, ResponseParser};
pub use scan::{Limits, Parsed, Version};
