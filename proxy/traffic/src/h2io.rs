//! A stream of an HTTP/2 connection as a byte stream that speaks HTTP/1.1.
//!
//! In: the `h2` crate's stream handles. Out: [`Stream`], which reads as the HTTP/1.1 form of the peer's message and, when
//! HTTP/1.1 bytes are written to it, sends them as frames. So the request path knows one form of an exchange (head, body,
//! trailers) whatever the two sides speak. Trailers travel as chunked trailers. A virtual connection carries one exchange.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use mizzen_http::{
    BodyReader, Framing, Limits, Method, Parsed, RequestParser, ResponseParser, put_chunk_head, put_last_chunk,
};

/// How much of what we write may wait for the peer's flow-control window.
const PENDING_LIMIT: usize = 64 * 1024;

/// One exchange over HTTP/2, seen as a connection.
#[derive(Debug)]
pub struct Stream {
    side: Side,
    reading: Reading,
    recv: Option<RecvStream>,
    writing: Writing,
    send: Option<SendStream<Bytes>>,
    /// Content that waits for window.
    pending: BytesMut,
    /// What ends the message once `pending` is sent.
    finish: Option<Finish>,
}

enum Side {
    Server {
        respond: SendResponse<Bytes>,
        head_only: bool,
    },
    Client {
        sender: SendRequest<Bytes>,
        response: Option<ResponseFuture>,
        request: Option<Box<(Request<()>, bool)>>,
        secure: bool,
    },
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server { .. } => "Server",
            Self::Client { .. } => "Client",
        })
    }
}

#[derive(Debug)]
struct Reading {
    ready: BytesMut,
    chunked: bool,
    done: bool,
}

#[derive(Debug)]
enum Writing {
    Head(Vec<u8>),
    Body(BodyReader),
    Done,
}

#[derive(Debug)]
enum Finish {
    Plain,
    Trailers(Box<HeaderMap>),
}

impl Stream {
    /// The server's side of a stream: reads as the request, takes the response.
    pub fn server(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let (parts, recv) = request.into_parts();
        let mut head = BytesMut::with_capacity(512);
        let mut out = HeadWriter(&mut head);
        out.text(parts.method.as_str().as_bytes());
        out.text(b" ");
        let authority = parts
            .uri
            .authority()
            .map(|authority| authority.as_str().as_bytes().to_vec());
        if parts.method == http::Method::CONNECT {
            out.text(authority.as_deref().unwrap_or_default());
        } else {
            out.text(parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
        }
        out.text(b" HTTP/1.1\r\n");
        let authority = authority.or_else(|| parts.headers.get("host").map(|host| host.as_bytes().to_vec()));
        out.field(b"host", authority.as_deref().unwrap_or_default());
        let bodiless = recv.is_end_stream();
        let chunked = !bodiless && !parts.headers.contains_key("content-length");
        out.fields(&parts.headers);
        if chunked {
            out.text(b"transfer-encoding: chunked\r\n");
        } else if bodiless && !parts.headers.contains_key("content-length") && parts.method == http::Method::POST {
            out.text(b"content-length: 0\r\n");
        }
        out.text(b"\r\n");
        Self {
            side: Side::Server {
                respond,
                head_only: parts.method == http::Method::HEAD,
            },
            reading: Reading {
                ready: head,
                chunked,
                done: bodiless,
            },
            recv: Some(recv),
            writing: Writing::Head(Vec::new()),
            send: None,
            pending: BytesMut::new(),
            finish: None,
        }
    }

    /// The client's side of a stream to be opened on `sender`'s connection: takes the request, reads as the response.
    pub fn client(sender: SendRequest<Bytes>, secure: bool) -> Self {
        Self {
            side: Side::Client {
                sender,
                response: None,
                request: None,
                secure,
            },
            reading: Reading {
                ready: BytesMut::new(),
                chunked: false,
                done: false,
            },
            recv: None,
            writing: Writing::Head(Vec::new()),
            send: None,
            pending: BytesMut::new(),
            finish: None,
        }
    }

    /// Ends the exchange with an error, when it has not ended in order.
    pub fn reset(&mut self) {
        if let Some(send) = &mut self.send {
            send.send_reset(Reason::INTERNAL_ERROR);
        } else if let Side::Server { respond, .. } = &mut self.side {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// Ready when the client has reset the stream.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match (&mut self.send, &mut self.side) {
            (Some(send), _) => send.poll_reset(cx),
            (None, Side::Server { respond, .. }) => respond.poll_reset(cx),
            (None, Side::Client { .. }) => return Poll::Pending,
        };
        reset.map(|_| ())
    }

    /// Ready when a read would give bytes or the end.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.reading.ready.is_empty() && !self.reading.done {
            if let Side::Client { response, .. } = &mut self.side
                && self.recv.is_none()
            {
                let Some(future) = response else { return Poll::Pending };
                let response = ready!(Pin::new(future).poll(cx)).map_err(as_io)?;
                self.begin_response(response);
                continue;
            }
            ready!(self.poll_body(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        let reading = &mut self.reading;
        match ready!(recv.poll_data(cx)) {
            Some(data) => {
                let data = data.map_err(as_io)?;
                // The window opens as bytes are taken; `ready` is drained before more is asked for, which bounds it.
                recv.flow_control().release_capacity(data.len()).map_err(as_io)?;
                if data.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                if reading.chunked {
                    put_chunk_head(&mut PutBytes(&mut reading.ready), data.len());
                    reading.ready.extend_from_slice(&data);
                    reading.ready.extend_from_slice(b"\r\n");
                } else {
                    reading.ready.extend_from_slice(&data);
                }
            }
            None => {
                let trailers = ready!(recv.poll_trailers(cx)).map_err(as_io)?;
                if reading.chunked {
                    let trailers = trailers.unwrap_or_default();
                    let fields = trailers
                        .iter()
                        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
                    put_last_chunk(&mut PutBytes(&mut reading.ready), fields);
                }
                reading.done = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn begin_response(&mut self, response: Response<RecvStream>) {
        let (parts, recv) = response.into_parts();
        let mut out = HeadWriter(&mut self.reading.ready);
        out.text(b"HTTP/1.1 ");
        out.text(parts.status.as_str().as_bytes());
        out.text(b" ");
        out.text(mizzen_http::reason(parts.status.as_u16()).as_bytes());
        out.text(b"\r\n");
        let bodiless = recv.is_end_stream();
        let chunked = !bodiless && !parts.headers.contains_key("content-length");
        out.fields(&parts.headers);
        let may_have_body = !matches!(parts.status.as_u16(), 100..=199 | 204 | 304);
        if chunked && may_have_body {
            out.text(b"transfer-encoding: chunked\r\n");
        } else if bodiless && may_have_body && !parts.headers.contains_key("content-length") {
            out.text(b"content-length: 0\r\n");
        }
        out.text(b"\r\n");
        self.reading.chunked = chunked && may_have_body;
        self.reading.done = bodiless;
        self.recv = Some(recv);
    }

    /// Reads the message's HTTP/1.1 form; 0 bytes is its end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?;
        let count = self.reading.ready.len().min(buffer.len());
        let piece = self.reading.ready.split_to(count);
        if let Some(front) = buffer.get_mut(..count) {
            front.copy_from_slice(&piece);
        }
        if self.reading.ready.is_empty() {
            self.reading.ready = BytesMut::new();
        }
        Poll::Ready(Ok(count))
    }

    /// Takes HTTP/1.1 bytes of our message.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.pending.len() >= PENDING_LIMIT {
            ready!(self.poll_flush(cx))?;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = match &mut self.writing {
                Writing::Head(_) => self.take_head(rest)?,
                Writing::Body(reader) => {
                    let event = reader
                        .next(rest)
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                    let data = rest
                        .get(event.consumed - event.data..event.consumed)
                        .unwrap_or_default();
                    self.pending.extend_from_slice(data);
                    if event.done {
                        self.end_body();
                    }
                    event.consumed
                }
                // Nothing may follow the message.
                Writing::Done => rest.len(),
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn end_body(&mut self) {
        let Writing::Body(reader) = std::mem::replace(&mut self.writing, Writing::Done) else {
            return;
        };
        self.finish = Some(if reader.has_trailers() {
            let mut map = HeaderMap::new();
            for (name, value) in reader.trailers() {
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                    map.append(name, value);
                }
            }
            Finish::Trailers(Box::new(map))
        } else {
            Finish::Plain
        });
    }

    /// Collects the head; returns how many bytes of `bytes` belong to it.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Writing::Head(head) = &mut self.writing else {
            return Ok(0);
        };
        let before = head.len();
        head.extend_from_slice(bytes);
        let head = std::mem::take(head);
        let parsed = match &mut self.side {
            Side::Server { respond, head_only } => response_parts(&head, *head_only, respond, &mut self.send),
            Side::Client { request, secure, .. } => request_parts(&head, request, *secure),
        };
        match parsed? {
            None => {
                self.writing = Writing::Head(head);
                Ok(bytes.len())
            }
            Some((length, framing)) => {
                self.writing = match framing {
                    None => Writing::Head(Vec::new()),
                    Some(Framing::None | Framing::Length(0)) => Writing::Done,
                    Some(framing) => Writing::Body(BodyReader::new(framing)),
                };
                Ok(length.saturating_sub(before))
            }
        }
    }

    /// Marks the end of a close-delimited message.
    pub fn finish(&mut self) {
        if matches!(self.writing, Writing::Body(_)) {
            self.end_body();
        }
    }

    /// Sends what waits, as far as the peer's window allows.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Side::Client {
            sender,
            response,
            request,
            ..
        } = &mut self.side
            && request.is_some()
        {
            ready!(sender.poll_ready(cx)).map_err(as_io)?;
            if let Some(ready) = request.take() {
                let (request, end) = *ready;
                let (future, send) = sender.send_request(request, end).map_err(as_io)?;
                *response = Some(future);
                self.send = Some(send);
            }
        }
        let Some(send) = &mut self.send else {
            return Poll::Ready(Ok(()));
        };
        while !self.pending.is_empty() {
            send.reserve_capacity(self.pending.len());
            let capacity = match ready!(send.poll_capacity(cx)) {
                Some(capacity) => capacity.map_err(as_io)?,
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
            let piece = self.pending.split_to(capacity.min(self.pending.len())).freeze();
            let last = self.pending.is_empty() && matches!(self.finish, Some(Finish::Plain));
            if last {
                self.finish = None;
            }
            send.send_data(piece, last).map_err(as_io)?;
        }
        match self.finish.take() {
            Some(Finish::Plain) => send.send_data(Bytes::new(), true).map_err(as_io)?,
            Some(Finish::Trailers(trailers)) => send.send_trailers(*trailers).map_err(as_io)?,
            None => {}
        }
        Poll::Ready(Ok(()))
    }
}

type HeadTaken = Option<(usize, Option<Framing>)>;

/// Parses a whole response head and sends it; `None` when it is not complete. An interim response is swallowed.
fn response_parts(
    head: &[u8],
    head_only: bool,
    respond: &mut SendResponse<Bytes>,
    send: &mut Option<SendStream<Bytes>>,
) -> io::Result<HeadTaken> {
    let mut parser = ResponseParser::new(Limits {
        head: 65_535,
        fields: 128,
    });
    parser.reset(if head_only { Method::Head } else { Method::Get });
    if parser.parse(head).map_err(invalid)? == Parsed::Partial {
        return Ok(None);
    }
    let parsed = parser.head();
    if parsed.is_interim() {
        return Ok(Some((parsed.len(), None)));
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(parsed.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.version_mut() = Version::HTTP_2;
    copy_fields(parsed.fields().end_to_end(head), response.headers_mut());
    let framing = parsed.framing();
    let end = matches!(framing, Framing::None | Framing::Length(0));
    *send = Some(respond.send_response(response, end).map_err(as_io)?);
    Ok(Some((parsed.len(), Some(framing))))
}

/// Parses a whole request head and keeps it until the connection takes a new stream; `None` when it is not complete.
fn request_parts(head: &[u8], waiting: &mut Option<Box<(Request<()>, bool)>>, secure: bool) -> io::Result<HeadTaken> {
    let mut parser = RequestParser::new(Limits {
        head: 65_535,
        fields: 128,
    });
    if parser.parse(head).map_err(invalid)? == Parsed::Partial {
        return Ok(None);
    }
    let parsed = parser.head();
    let view = parsed.view(head);
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = http::Method::from_bytes(view.method()).map_err(invalid)?;
    let scheme = if secure { "https" } else { "http" };
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(view.authority())
        .path_and_query(view.path())
        .build()
        .map_err(invalid)?;
    copy_fields(parsed.fields().end_to_end(head), request.headers_mut());
    if view
        .field(b"content-type")
        .is_some_and(|kind| kind.starts_with(b"application/grpc"))
    {
        // `te` is about one connection in HTTP/1.1; gRPC servers insist on it.
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    }
    let framing = parsed.framing();
    let end = matches!(framing, Framing::None | Framing::Length(0));
    *waiting = Some(Box::new((request, end)));
    Ok(Some((parsed.len(), Some(framing))))
}

fn copy_fields<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, map: &mut HeaderMap) {
    for (name, value) in fields {
        // Both were checked by our own parser; what `http` is stricter about is left out rather than failing the request.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
}

struct HeadWriter<'a>(&'a mut BytesMut);

impl HeadWriter<'_> {
    fn text(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.text(name);
        self.text(b": ");
        self.text(value);
        self.text(b"\r\n");
    }

    /// All end-to-end fields; cookies are joined again (RFC 9113, 8.2.3).
    fn fields(&mut self, map: &HeaderMap) {
        for (name, value) in map {
            if matches!(
                name.as_str(),
                "host" | "cookie" | "te" | "connection" | "transfer-encoding"
            ) {
                continue;
            }
            self.field(name.as_str().as_bytes(), value.as_bytes());
        }
        let mut cookies = map.get_all("cookie").iter().peekable();
        if cookies.peek().is_some() {
            self.text(b"cookie: ");
            while let Some(cookie) = cookies.next() {
                self.text(cookie.as_bytes());
                if cookies.peek().is_some() {
                    self.text(b"; ");
                }
            }
            self.text(b"\r\n");
        }
    }
}

struct PutBytes<'a>(&'a mut BytesMut);

impl mizzen_http::Put for PutBytes<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// `REFUSED_STREAM` is told apart: the peer says that it did nothing with the request. So is the reset of just this stream
/// (`ConnectionAborted`) from the end of the connection (`ConnectionReset`), which may have met the request by chance.
fn as_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    let kind = match error.reason() {
        Some(Reason::REFUSED_STREAM) => io::ErrorKind::ConnectionRefused,
        _ if error.is_reset() => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}
