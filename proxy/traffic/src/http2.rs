//! HTTP/2 from clients: one task drives the connection, each stream is served like a connection with one request.
//!
//! In: a connection that begins with the HTTP/2 preface. Out: served streams. Draining sends GOAWAY and lets streams end.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
    let mut connection = match builder.handshake::<_, Bytes>(io).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(error = %error, "HTTP/2 connection refused");
            return;
        }
    };
    let mut phases = info.worker.shared.phase.clone();
    let outbound = info.outbound();
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = phases.wait_for(|phase| *phase == Phase::Ended || (*phase == Phase::Draining && !outbound)), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let info = info.clone();
        tokio::task::spawn_local(async move { serve_stream(&info, Stream::server(request, respond)).await });
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
