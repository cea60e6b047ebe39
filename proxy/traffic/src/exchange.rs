//! One HTTP exchange between two connections: the seam at which whatever carries requests meets.
//!
//! In: a request whose head is parsed, a client connection, an upstream connection. Out: the response at the client, both
//! directions moving at once (early answers, `100 Continue`, upgrades), and what there is to tell about it ([`Seen`]). Request
//! head, body, response head, body and trailers pass here in HTTP/1.1 form; streams of HTTP/2 speak that form through
//! `h2io`. It never decides where a request goes: that is `forward`.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use mizzen_decide::path;
use mizzen_http::{BodyError, BodyReader, Edit, Framing, HeadError, Limits, Parsed, RequestParser, ResponseParser};

use crate::buffer::{Input, Output, Recycle, SIZE};
use crate::conn::Conn;
use crate::timer::Timer;
use crate::upstream::Upstream;

/// Largest response head.
const RESPONSE_HEAD: usize = 60 * 1024;
/// Most bytes of a request's body kept for another try.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// Parsers and edits; large, so idle connections do not hold them.
#[derive(Debug)]
pub struct Scratch {
    /// Reads the request's head.
    pub request: RequestParser,
    /// Reads the response's head.
    pub response: ResponseParser,
    /// Changes to either head.
    pub edit: Edit,
    /// A rewritten path or a redirect's location.
    pub text: Vec<u8>,
}

thread_local! {
    #[expect(clippy::vec_box, reason = "values move in and out of the list; boxes keep that cheap")]
    static SCRATCH: std::cell::RefCell<Vec<Box<Scratch>>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Recycle for Scratch {
    fn fresh() -> Self {
        Self {
            request: RequestParser::new(Limits::default()),
            response: ResponseParser::new(Limits {
                head: RESPONSE_HEAD,
                ..Limits::default()
            }),
            edit: Edit::default(),
            text: Vec::new(),
        }
    }

    fn pool(f: impl FnOnce(&mut Vec<Box<Self>>)) {
        // At thread exit the list may be gone already; then there is nothing to reuse.
        let _gone = SCRATCH.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut() {
                f(&mut pool);
            }
        });
    }
}

/// Why there is no response head from an upstream.
#[derive(Debug)]
pub enum Fail {
    /// The client went away.
    ClientGone,
    /// The client's body is malformed.
    ClientBody(BodyError),
    /// The upstream closed or reset the connection before its response head.
    Closed,
    /// The upstream reset the stream, not the connection: it had seen the request.
    Reset,
    /// The upstream refused the stream and did nothing with it.
    Refused,
    /// The upstream's response is malformed.
    Protocol(HeadError),
    /// A deadline passed.
    Timeout(Which),
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Of the whole request.
    Request,
    /// Of this try.
    Try,
    /// Nothing moved.
    Idle,
}

/// How the part after the response head ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All of it was passed on.
    Complete,
    /// The client went away.
    ClientGone,
    /// The upstream broke off.
    Truncated,
    /// The response's body is malformed.
    Malformed,
    /// A deadline passed.
    Timeout(Which),
}

/// What is counted while an exchange runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Bytes of the request's body, as on the wire.
    pub received: u64,
    /// Bytes of the response's body sent to the client.
    pub sent: u64,
    /// Bytes of the response's head.
    pub head_sent: u64,
}

/// Deadlines of an exchange.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadlines {
    /// Limit of the whole, counted from the end of the request.
    pub total: Option<Duration>,
    /// End of the whole, once the request has been read.
    pub request: Option<Instant>,
    /// Limit of each try.
    pub per_try: Option<Duration>,
    /// End of this try.
    pub this_try: Option<Instant>,
    /// Limit of silence.
    pub idle: Option<Duration>,
}

/// The two directions of one exchange.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The client.
    pub down: &'a mut Conn,
    /// The connection's timer.
    pub timer: &'a mut Timer,
    /// The request's head, and behind it what came with it.
    pub input: &'a mut Input,
    /// Parsers and edits.
    pub scratch: &'a mut Scratch,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Counters.
    pub seen: Seen,
    /// Whether the upstream's bytes of the request must be kept for another try.
    pub keep: bool,

    head: usize,
    inline: usize,
    request: BodyReader,
    /// Body bytes that came later than the head, or what follows the request.
    body: Input,
    replay: Vec<u8>,
    replay_broken: bool,
    /// Bytes for the upstream.
    out: Output,
    send_broken: bool,
    watch_client: bool,

    from_up: Input,
    response: BodyReader,
    /// Bytes of `from_up` that were checked and may go to the client.
    checked: usize,
    decode: bool,
    /// Bytes for the client.
    to_down: Output,
}

impl<'a> Exchange<'a> {
    /// An exchange whose request head was parsed from the front of `input` by `scratch.request`.
    pub fn new(
        down: &'a mut Conn,
        timer: &'a mut Timer,
        input: &'a mut Input,
        scratch: &'a mut Scratch,
    ) -> Result<Self, BodyError> {
        let head = scratch.request.head().len();
        let mut request = BodyReader::new(scratch.request.head().framing());
        let inline = request.pass(input.filled().get(head..).unwrap_or_default())?.consumed;
        Ok(Self {
            down,
            timer,
            input,
            scratch,
            deadlines: Deadlines::default(),
            seen: Seen {
                received: inline as u64,
                ..Seen::default()
            },
            keep: false,
            head,
            inline,
            request,
            body: Input::none(),
            replay: Vec::new(),
            replay_broken: false,
            out: Output::none(),
            send_broken: false,
            watch_client: true,
            from_up: Input::none(),
            response: BodyReader::new(Framing::None),
            checked: 0,
            decode: false,
            to_down: Output::none(),
        })
    }

    /// The bytes of the request's head (and what came with it).
    pub fn head_bytes(&self) -> &[u8] {
        self.input.filled()
    }

    /// Brings the request's path into normal form, for everything that looks at it or sends it on; `false`: it has none.
    pub fn normalize_path(&mut self, rules: path::Rules) -> bool {
        let change = |target: &mut [u8]| path::normalize(target, rules).ok();
        self.scratch
            .request
            .change_path(self.input.filled_mut(), change)
            .is_some()
    }

    /// Length of the request's head.
    pub fn head_len(&self) -> usize {
        self.head
    }

    /// Whether the whole request has been read.
    pub fn request_done(&self) -> bool {
        self.request.is_done()
    }

    /// Whether the request can be sent once more from what was kept.
    pub fn can_replay(&self) -> bool {
        !self.replay_broken
    }

    /// Bytes that follow the response head already.
    pub fn response_rest(&mut self) -> Input {
        std::mem::take(&mut self.from_up)
    }

    /// Bytes of the request's side that were read beyond what was passed on.
    pub fn client_rest(&mut self) -> Input {
        let mut rest = std::mem::take(&mut self.body);
        if rest.is_empty() {
            rest.extend(self.input.filled().get(self.head + self.inline..).unwrap_or_default());
        }
        rest
    }

    /// Begins a try: writes the head by `edit`, then the body so far.
    pub fn begin_try(&mut self) {
        self.out = Output::none();
        self.from_up = Input::none();
        self.send_broken = false;
        self.checked = 0;
        let out = self.out.vec();
        let bytes = self.input.filled();
        self.scratch.edit.write_request(self.scratch.request.head(), bytes, out);
        out.extend_from_slice(bytes.get(self.head..self.head + self.inline).unwrap_or_default());
        out.extend_from_slice(&self.replay);
        self.scratch.response.reset(self.scratch.request.head().method());
        self.from_up.release();
    }

    /// Sets the deadlines of a try that begins at `now`.
    pub fn arm(&mut self, now: Instant) {
        let deadlines = &mut self.deadlines;
        if self.request.is_done() && deadlines.request.is_none() {
            deadlines.request = deadlines.total.map(|total| now + total);
        }
        deadlines.this_try = deadlines.per_try.map(|limit| now + limit);
        self.rearm(now);
    }

    fn rearm(&mut self, now: Instant) {
        let idle = self.deadlines.idle.map(|idle| now + idle);
        let first = [self.deadlines.request, self.deadlines.this_try, idle]
            .into_iter()
            .flatten()
            .min();
        self.timer.set(first);
    }

    fn which(&self) -> Which {
        let at = self.timer.deadline();
        if at.is_some() && at == self.deadlines.request {
            Which::Request
        } else if at.is_some() && at == self.deadlines.this_try {
            Which::Try
        } else {
            Which::Idle
        }
    }

    /// Something moved: silence is counted from now.
    fn progress(&mut self) {
        let finished = self.request.is_done() && self.deadlines.request.is_none() && self.deadlines.total.is_some();
        if self.deadlines.idle.is_some() || finished {
            let now = Instant::now();
            if finished {
                self.deadlines.request = self.deadlines.total.map(|total| now + total);
            }
            self.rearm(now);
        }
    }

    /// Sends the request to its end. Errors say which side broke.
    fn poll_send(&mut self, cx: &mut Context<'_>, up: &mut Conn) -> Poll<Result<(), Fail>> {
        loop {
            while !self.out.is_empty() {
                let count = ready!(up.poll_write(cx, self.out.pending())).map_err(|error| closed(&error))?;
                if count == 0 {
                    return Poll::Ready(Err(Fail::Closed));
                }
                self.out.advance(count);
            }
            ready!(up.poll_flush(cx)).map_err(|error| closed(&error))?;
            if self.request.is_done() {
                self.out.release();
                return Poll::Ready(Ok(()));
            }
            if self.body.is_empty() {
                match self.down.poll_fill(cx, &mut self.body, SIZE) {
                    Poll::Pending => {
                        self.out.release();
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Fail::ClientGone)),
                    Poll::Ready(Ok(_)) => {}
                }
            }
            let progress = self.request.pass(self.body.filled()).map_err(Fail::ClientBody)?;
            let piece = self.body.filled().get(..progress.consumed).unwrap_or_default();
            self.seen.received += piece.len() as u64;
            self.out.vec().extend_from_slice(piece);
            if self.keep && !self.replay_broken && self.replay.len() + piece.len() <= REPLAY_LIMIT {
                self.replay.extend_from_slice(piece);
            } else {
                self.replay_broken = true;
                self.replay = Vec::new();
            }
            self.body.consume(progress.consumed);
            self.body.release();
            self.progress();
        }
    }

    /// Runs a try until the response head is complete in `scratch.response` (its bytes in [`Self::response_bytes`]).
    pub fn poll_response_head(&mut self, cx: &mut Context<'_>, up: &mut Upstream) -> Poll<Result<(), Fail>> {
        if !self.send_broken {
            match self.poll_send(cx, &mut up.conn) {
                Poll::Ready(Err(fail @ (Fail::ClientGone | Fail::ClientBody(_)))) => return Poll::Ready(Err(fail)),
                Poll::Ready(Err(Fail::Refused)) => return Poll::Ready(Err(Fail::Refused)),
                // It may have answered before it closed: look.
                Poll::Ready(Err(_)) => self.send_broken = true,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if let Poll::Ready(result) = self.poll_head(cx, &mut up.conn) {
            return Poll::Ready(result);
        }
        if self.send_broken {
            return Poll::Ready(Err(Fail::Closed));
        }
        if self.request.is_done() && self.client_gone(cx) {
            return Poll::Ready(Err(Fail::ClientGone));
        }
        if self.timer.poll_expired(cx) {
            return Poll::Ready(Err(Fail::Timeout(self.which())));
        }
        Poll::Pending
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, up: &mut Conn) -> Poll<Result<(), Fail>> {
        loop {
            if !self.from_up.is_empty() {
                match self
                    .scratch
                    .response
                    .parse(self.from_up.filled())
                    .map_err(Fail::Protocol)?
                {
                    Parsed::Complete if self.scratch.response.head().is_interim() => {
                        self.interim(cx);
                        continue;
                    }
                    Parsed::Complete => return Poll::Ready(Ok(())),
                    Parsed::Partial => {}
                }
            }
            match ready!(up.poll_fill(cx, &mut self.from_up, RESPONSE_HEAD + SIZE)) {
                Ok(0) => return Poll::Ready(Err(Fail::Closed)),
                Ok(_) => self.progress(),
                Err(error) => return Poll::Ready(Err(closed(&error))),
            }
        }
    }

    /// Passes `100 Continue` and other interim responses on as they are; clients of HTTP/1.0 get none.
    fn interim(&mut self, cx: &mut Context<'_>) {
        let length = self.scratch.response.head().len();
        if self.scratch.request.head().version() == mizzen_http::Version::Http11 {
            let bytes = self.from_up.filled().get(..length).unwrap_or_default();
            self.to_down.vec().extend_from_slice(bytes);
            // What cannot be sent at once goes out with the final response.
            while let Poll::Ready(Ok(count)) = self.down.poll_write(cx, self.to_down.pending()) {
                self.to_down.advance(count);
                if self.to_down.is_empty() {
                    let _later = self.down.poll_flush(cx);
                    break;
                }
            }
        }
        self.from_up.consume(length);
        self.scratch.response.reset(self.scratch.request.head().method());
    }

    /// Notices a client that leaves while it waits. What it sends meanwhile is the next request.
    fn client_gone(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(stream) = self.down.h2() {
            // The end of an HTTP/2 request says nothing about the client; a reset does.
            return stream.poll_gone(cx).is_ready();
        }
        if !self.watch_client || !self.body.is_empty() || self.input.len() > self.head + self.inline {
            return false;
        }
        match self.down.poll_fill(cx, &mut self.body, SIZE) {
            Poll::Pending => false,
            Poll::Ready(Ok(0) | Err(_)) => true,
            Poll::Ready(Ok(_)) => {
                self.watch_client = false;
                false
            }
        }
    }

    /// The bytes that the response head was parsed from.
    pub fn response_bytes(&self) -> &[u8] {
        self.from_up.filled()
    }

    /// Takes the response: its head goes out as `scratch.edit` says, its body follows. `decode`: without chunk framing (for clients
    /// of HTTP/1.0). Returns the length of the head that will be sent.
    pub fn accept_response(&mut self, decode: bool) -> Result<usize, BodyError> {
        let head = self.scratch.response.head();
        let before = self.to_down.pending().len();
        self.scratch
            .edit
            .write_response(head, self.from_up.filled(), self.to_down.vec());
        let sent = self.to_down.pending().len() - before;
        self.seen.head_sent = sent as u64;
        self.response = BodyReader::new(head.framing());
        self.from_up.consume(head.len());
        self.decode = decode && head.framing() == Framing::Chunked;
        if head.framing() == Framing::Tunnel {
            return Ok(sent);
        }
        self.check()?;
        if self.checked > 0 && self.checked <= self.to_down.space() {
            let body = self.from_up.filled().get(..self.checked).unwrap_or_default();
            self.to_down.vec().extend_from_slice(body);
            self.seen.sent += self.checked as u64;
            self.from_up.consume(self.checked);
            self.checked = 0;
        }
        Ok(sent)
    }

    /// The outgoing response head, until it is sent; for access logs.
    pub fn outgoing(&self) -> &[u8] {
        self.to_down.pending()
    }

    /// Checks what came from the upstream.
    fn check(&mut self) -> Result<(), BodyError> {
        if !self.decode {
            self.checked = self.response.pass(self.from_up.filled())?.consumed;
            return Ok(());
        }
        while !self.response.is_done() && !self.from_up.is_empty() {
            let event = self.response.next(self.from_up.filled())?;
            let data = self
                .from_up
                .filled()
                .get(event.consumed - event.data..event.consumed)
                .unwrap_or_default();
            self.to_down.vec().extend_from_slice(data);
            self.seen.sent += data.len() as u64;
            self.from_up.consume(event.consumed);
        }
        Ok(())
    }

    /// Relays until the response has been passed on; the rest of the request goes its way meanwhile.
    pub fn poll_relay(&mut self, cx: &mut Context<'_>, up: &mut Upstream) -> Poll<Ended> {
        if !self.send_broken && !self.request.is_done() {
            match self.poll_send(cx, &mut up.conn) {
                Poll::Ready(Err(Fail::ClientGone | Fail::ClientBody(_))) => return Poll::Ready(Ended::ClientGone),
                // It has answered; that it takes no more of the request is its affair.
                Poll::Ready(Err(_)) => self.send_broken = true,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        } else if !self.send_broken && !self.out.is_empty() && self.poll_send(cx, &mut up.conn).is_ready() {
            self.out.release();
        }
        if let Poll::Ready(ended) = self.poll_response(cx, &mut up.conn) {
            return Poll::Ready(ended);
        }
        if self.request.is_done() && self.client_gone(cx) {
            return Poll::Ready(Ended::ClientGone);
        }
        if self.timer.poll_expired(cx) {
            return Poll::Ready(Ended::Timeout(self.which()));
        }
        Poll::Pending
    }

    fn poll_response(&mut self, cx: &mut Context<'_>, up: &mut Conn) -> Poll<Ended> {
        loop {
            while !self.to_down.is_empty() {
                match ready!(self.down.poll_write(cx, self.to_down.pending())) {
                    Ok(count) if count > 0 => self.to_down.advance(count),
                    _ => return Poll::Ready(Ended::ClientGone),
                }
            }
            while self.checked > 0 {
                let piece = self.from_up.filled().get(..self.checked).unwrap_or_default();
                match ready!(self.down.poll_write(cx, piece)) {
                    Ok(count) if count > 0 => {
                        self.from_up.consume(count);
                        self.checked -= count.min(self.checked);
                        self.seen.sent += count as u64;
                    }
                    _ => return Poll::Ready(Ended::ClientGone),
                }
            }
            if self.response.is_done() {
                self.to_down.release();
                return match ready!(self.down.poll_flush(cx)) {
                    Ok(()) => Poll::Ready(Ended::Complete),
                    Err(_) => Poll::Ready(Ended::ClientGone),
                };
            }
            if self.from_up.is_empty() {
                match up.poll_fill(cx, &mut self.from_up, SIZE) {
                    Poll::Pending => {
                        self.to_down.release();
                        return match self.down.poll_flush(cx) {
                            Poll::Ready(Err(_)) => Poll::Ready(Ended::ClientGone),
                            _ => Poll::Pending,
                        };
                    }
                    Poll::Ready(Ok(0)) => {
                        if self.response.end_of_input().is_err() {
                            return Poll::Ready(Ended::Truncated);
                        }
                        self.response = BodyReader::new(Framing::None);
                        if let Some(stream) = self.down.h2() {
                            stream.finish();
                        }
                        continue;
                    }
                    Poll::Ready(Ok(_)) => self.progress(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Ended::Truncated),
                }
            }
            if self.check().is_err() {
                return Poll::Ready(Ended::Malformed);
            }
        }
    }

    /// Sends just the response's head, before a tunnel begins.
    pub fn poll_relay_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.to_down.is_empty() {
            let count = ready!(self.down.poll_write(cx, self.to_down.pending()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.to_down.advance(count);
        }
        self.down.poll_flush(cx)
    }

    /// Trailers of the response, once it is complete.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.response.trailers()
    }

    /// Whether the upstream's connection can carry another exchange.
    pub fn upstream_reusable(&self) -> bool {
        self.request.is_done()
            && !self.send_broken
            && self.out.is_empty()
            && self.from_up.is_empty()
            && self.scratch.response.head().keep_alive()
            && !matches!(self.scratch.response.head().framing(), Framing::Close | Framing::Tunnel)
    }

    /// Reads and drops the rest of the request, if it is short; says whether it was.
    pub async fn drain_request(&mut self) -> bool {
        /// More than this is not worth reading to save a connection.
        const WORTH: u64 = 64 * 1024;
        /// Nor is waiting longer.
        const TIME: Duration = Duration::from_secs(5);
        let limit = self.seen.received + WORTH;
        self.timer.set(Some(Instant::now() + TIME));
        while !self.request.is_done() {
            if self.request.remaining().is_some_and(|left| left > WORTH) || self.seen.received > limit {
                return false;
            }
            if self.body.is_empty() {
                let filled = std::future::poll_fn(|cx| match self.down.poll_fill(cx, &mut self.body, SIZE) {
                    Poll::Ready(result) => Poll::Ready(result.unwrap_or(0)),
                    Poll::Pending if self.timer.poll_expired(cx) => Poll::Ready(0),
                    Poll::Pending => Poll::Pending,
                });
                if filled.await == 0 {
                    return false;
                }
            }
            let Ok(progress) = self.request.pass(self.body.filled()) else {
                return false;
            };
            self.seen.received += progress.consumed as u64;
            self.body.consume(progress.consumed);
        }
        true
    }

    /// Sends a whole response of our own.
    pub async fn send(&mut self, response: &[u8]) -> io::Result<()> {
        self.seen.head_sent = response.len() as u64;
        self.to_down.advance(self.to_down.pending().len());
        self.down.write_all(response).await
    }

    /// Ends the exchange: what follows the request becomes the front of the input again.
    pub fn finish(self) {
        let Self {
            input,
            mut body,
            head,
            inline,
            timer,
            ..
        } = self;
        timer.set(None);
        input.consume(head + inline);
        if input.is_empty() && !body.is_empty() {
            std::mem::swap(input, &mut body);
        }
        input.release();
    }
}

fn closed(error: &io::Error) -> Fail {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fail::Refused,
        io::ErrorKind::ConnectionAborted => Fail::Reset,
        _ => Fail::Closed,
    }
}
