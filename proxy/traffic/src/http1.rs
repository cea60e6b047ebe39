//! HTTP/1.1 from clients: one task per connection, requests one after the other.
//!
//! In: a connection and what was read of it while its protocol was found out. Out: served requests. Between requests the
//! connection holds no buffer; slow or silent clients are cut off by the connection's timer.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use mizzen_http::{Connection, HeadError, Parsed};

use crate::buffer::{Input, Pooled, SIZE};
use crate::conn::Conn;
use crate::exchange::{Exchange, Scratch};
use crate::forward;
use crate::info::Info;
use crate::reply::{How, Local};
use crate::timer::Timer;

/// A client that began a head must end it within this time, unless the listener says otherwise.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// How long a client may keep a connection without a request, unless the listener says otherwise.
const IDLE_TIME: Duration = Duration::from_secs(3600);

enum Head {
    Complete,
    /// The client closed between requests, or went away in the middle of a head.
    Closed,
    Bad(HeadError),
    Slow,
    Idle,
}

/// Serves the connection to its end.
pub async fn serve(info: &Info, mut conn: Conn, mut input: Input) {
    let mut timer = Timer::new();
    loop {
        if input.is_empty() && !wait_for_request(info, &mut conn, &mut timer).await {
            break;
        }
        let mut scratch = Pooled::<Scratch>::take();
        match read_head(info, &mut conn, &mut input, &mut scratch, &mut timer).await {
            Head::Complete => {}
            Head::Closed | Head::Idle => break,
            Head::Slow => {
                refuse(info, &mut conn, &Local::bad_request(408)).await;
                break;
            }
            Head::Bad(error) => {
                tracing::debug!(error = %error, category = error.category(), "request refused");
                refuse(info, &mut conn, &Local::bad_request(error.status())).await;
                break;
            }
        }
        let keep = match Exchange::new(&mut conn, &mut timer, &mut input, &mut scratch) {
            Ok(mut exchange) => {
                let keep = forward::serve(info, &mut exchange).await;
                exchange.finish();
                keep
            }
            Err(_) => {
                refuse(info, &mut conn, &Local::bad_request(400)).await;
                false
            }
        };
        if !keep {
            break;
        }
    }
    linger(&mut conn, &mut timer).await;
}

/// Waits until the client sends something; `false`: the connection is to be closed.
async fn wait_for_request(info: &Info, conn: &mut Conn, timer: &mut Timer) -> bool {
    let idle = info.http.idle_timeout.unwrap_or(IDLE_TIME);
    let mut armed = false;
    poll_fn(|cx| {
        if let Poll::Ready(result) = conn.poll_readable(cx) {
            return Poll::Ready(result.is_ok());
        }
        if !armed {
            armed = true;
            timer.set(Some(Instant::now() + idle));
        }
        // Asking the timer also registers this task to be woken when the process begins to drain.
        if timer.poll_expired(cx) || forward::closing(info) {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    })
    .await
}

async fn read_head(info: &Info, conn: &mut Conn, input: &mut Input, scratch: &mut Scratch, timer: &mut Timer) -> Head {
    scratch.request.reset();
    let limit = usize::try_from(info.http.max_request_head_bytes)
        .unwrap_or(usize::MAX)
        .clamp(SIZE, 65_535);
    if input.is_empty() {
        // The ordinary case: one read, one whole head, no deadline set or cleared.
        match conn.fill(input, limit + SIZE).await {
            Ok(0) | Err(_) => return Head::Closed,
            Ok(_) => {}
        }
    }
    let mut armed = false;
    loop {
        match scratch.request.parse(input.filled()) {
            Ok(Parsed::Complete) => return Head::Complete,
            Ok(Parsed::Partial) if input.len() > limit => return Head::Bad(HeadError::TooLarge),
            Ok(Parsed::Partial) => {}
            Err(error) => return Head::Bad(error),
        }
        if !armed {
            armed = true;
            let limit = info.http.request_headers_timeout.unwrap_or(HEAD_TIME);
            timer.set(Some(Instant::now() + limit));
        }
        let filled = poll_fn(|cx| match conn.poll_fill(cx, input, limit + SIZE) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if timer.poll_expired(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        match filled {
            None if input.is_empty() => return Head::Idle,
            None => return Head::Slow,
            Some(Ok(0) | Err(_)) => return Head::Closed,
            Some(Ok(_)) => {}
        }
    }
}

/// Answers what is not a request.
async fn refuse(info: &Info, conn: &mut Conn, local: &Local) {
    let mut text = Vec::with_capacity(256);
    let date = info.worker.date();
    let how = How {
        grpc: false,
        head_only: false,
        connection: Connection::Close,
        server: info.http.server_name.as_bytes(),
        date: date.as_bytes(),
    };
    local.write(&how, &mut text);
    // The client may be gone; there is nobody else to tell.
    let _unheard = conn.write_all(&text).await;
    let peer = info.labels(None);
    info.worker.shard.request(&crate::telemetry::Observation {
        peer,
        protocol: crate::telemetry::Protocol::Http,
        status: local.status,
        flags: local.flags,
        micros: 0,
        request_bytes: 0,
        response_bytes: text.len() as u64,
    });
}

/// Closes so that the client can still read the answer: our side ends, then what it sends is read and dropped for a moment.
async fn linger(conn: &mut Conn, timer: &mut Timer) {
    const MOMENT: Duration = Duration::from_secs(1);
    const MOST: usize = 256 * 1024;
    if conn.is_h2() {
        return;
    }
    timer.set(Some(Instant::now() + MOMENT));
    let mut dropped = 0;
    let mut shut = false;
    let mut input = Input::none();
    poll_fn(|cx| {
        if !shut {
            match conn.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending if timer.poll_expired(cx) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            match conn.poll_fill(cx, &mut input, SIZE) {
                Poll::Ready(Ok(count)) if count > 0 && dropped < MOST => {
                    dropped += count;
                    input.consume(count);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if timer.poll_expired(cx) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
