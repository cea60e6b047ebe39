//! HTTP/2 from clients: one task drives the connection, each stream is served like a connection with one request.
//!
//! In: a connection that begins with the HTTP/2 preface. Out: served streams. Draining sends GOAWAY and lets streams end; a
//! connection without streams for longer than the listener allows ends the same way.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::buffer::{Input, Pooled, SIZE};
use crate::conn::Conn;
use crate::exchange::{Exchange, Scratch};
use crate::h2io::Stream;
use crate::info::Info;
use crate::timer::Timer;
use crate::worker::Phase;

/// Streams at once on one connection, unless the listener says otherwise (Istio's default is far higher than a
/// sidecar needs; this bounds memory).
const STREAMS: u32 = 1024;
/// The client's preface must be complete within this time, unless the listener limits the time of a head.
const PREFACE_TIME: Duration = Duration::from_secs(60);

/// Serves the connection to its end.
pub async fn serve(mut info: Info, conn: Conn, input: Input) {
    info.h2 = true;
    let info = Rc::new(info);
    let io = Prefixed { first: input, conn };
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(info.http.max_concurrent_streams.unwrap_or(STREAMS).min(STREAMS))
        .max_header_list_size(info.http.max_request_head_bytes.max(16 * 1024))
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024);
    let limit = info.http.request_headers_timeout.unwrap_or(PREFACE_TIME);
    let mut connection = match tokio::time::timeout(limit, builder.handshake::<_, Bytes>(io)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "HTTP/2 connection refused");
            return;
        }
        Err(_) => {
            tracing::debug!(error = "no preface in time", "HTTP/2 connection refused");
            return;
        }
    };
    let mut phases = info.worker.shared.phase.clone();
    let outbound = info.outbound();
    let mut draining = false;
    let streams = Rc::new(Streams::none());
    // How long there may be no streams: first as configured, then, once GOAWAY is out, until the client must be gone.
    let mut limit = info.http.idle_timeout;
    let mut ending = false;
    // Looks when the limit may be reached; streams only note when the last of them ended.
    let mut look = std::pin::pin!(tokio::time::sleep(limit.unwrap_or_default()));
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = phases.wait_for(|phase| *phase == Phase::Ended || (*phase == Phase::Draining && !outbound)), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
            () = &mut look, if limit.is_some() => {
                let now = Instant::now();
                let mut next = streams.deadline(limit.unwrap_or_default(), now);
                if next <= now {
                    if ending {
                        return;
                    }
                    ending = true;
                    connection.graceful_shutdown();
                    limit = Some(info.http.drain_timeout);
                    next = now + info.http.drain_timeout;
                }
                look.as_mut().reset(next);
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (info, running) = (info.clone(), Running::new(&streams));
        tokio::task::spawn_local(async move {
            let _running = running;
            serve_stream(&info, Stream::server(request, respond)).await;
        });
    }
}

/// How many streams are served, and since when none.
#[derive(Debug)]
struct Streams {
    running: Cell<usize>,
    since: Cell<Instant>,
}

impl Streams {
    fn none() -> Self {
        Self {
            running: Cell::new(0),
            since: Cell::new(Instant::now()),
        }
    }

    /// When there may have been no streams for `limit`.
    fn deadline(&self, limit: Duration, now: Instant) -> Instant {
        let since = if self.running.get() > 0 { now } else { self.since.get() };
        since + limit
    }
}

/// Counts as a stream while it lives.
#[derive(Debug)]
struct Running(Rc<Streams>);

impl Running {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.running.set(streams.running.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let left = self.0.running.get().saturating_sub(1);
        self.0.running.set(left);
        if left == 0 {
            self.0.since.set(Instant::now());
        }
    }
}

async fn serve_stream(info: &Info, stream: Stream) {
    let mut conn = Conn::from(stream);
    let (mut input, mut timer) = (Input::none(), Timer::new());
    let mut scratch = Pooled::<Scratch>::take();
    scratch.request.reset();
    loop {
        match conn.fill(&mut input, 65_535 + SIZE).await {
            Ok(count) if count > 0 => {}
            _ => break,
        }
        match scratch.request.parse(input.filled()) {
            Ok(mizzen_http::Parsed::Complete) => {
                let served = match Exchange::new(&mut conn, &mut timer, &mut input, &mut scratch) {
                    Ok(mut exchange) => {
                        crate::forward::serve(info, &mut exchange).await;
                        exchange.finish();
                        true
                    }
                    Err(_) => false,
                };
                if served {
                    // What waits for the client's window still goes out.
                    let _client_gone = std::future::poll_fn(|cx| conn.poll_flush(cx)).await;
                    return;
                }
                break;
            }
            Ok(mizzen_http::Parsed::Partial) => {}
            Err(error) => {
                tracing::debug!(error = %error, category = error.category(), "request refused");
                break;
            }
        }
    }
    if let Some(stream) = conn.h2() {
        stream.reset();
    }
}

/// A connection of which some bytes were read already.
struct Prefixed {
    first: Input,
    conn: Conn,
}

impl AsyncRead for Prefixed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let count = this.first.len().min(buffer.remaining());
            buffer.put_slice(this.first.filled().get(..count).unwrap_or_default());
            this.first.consume(count);
            this.first.release();
            return Poll::Ready(Ok(()));
        }
        AsyncRead::poll_read(Pin::new(&mut this.conn), cx, buffer)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().conn.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().conn.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().conn.poll_shutdown(cx)
    }
}
