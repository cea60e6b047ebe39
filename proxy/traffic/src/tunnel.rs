//! Opaque bytes both ways: TCP services, upgrades, passthrough.
//!
//! In: two connections and what was already read from them. Out: the bytes of each on the other, ends passed on, how many
//! there were. Memory is held per direction only while bytes wait in it.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::buffer::Input;
use crate::conn::Conn;
use crate::timer::Timer;

/// What passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes from the client to the upstream.
    pub up: u64,
    /// Bytes from the upstream to the client.
    pub down: u64,
}

/// How a tunnel ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum End {
    /// Both sides ended in order.
    Finished,
    /// Nothing moved for too long.
    Idle,
    /// The client's side broke.
    Downstream,
    /// The upstream's side broke.
    Upstream,
}

#[derive(Debug, Default)]
struct Direction {
    waiting: Input,
    state: State,
    bytes: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    Ending,
    Ended,
}

enum Fault {
    Read,
    Write,
}

impl Direction {
    /// Moves what can be moved; says whether anything was.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Conn, to: &mut Conn, moved: &mut bool) -> Result<(), Fault> {
        match self.run(cx, from, to, moved) {
            Poll::Ready(Err(fault)) => Err(fault),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn run(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
        moved: &mut bool,
    ) -> Poll<Result<(), Fault>> {
        loop {
            while !self.waiting.is_empty() {
                let count = ready!(to.poll_write(cx, self.waiting.filled())).map_err(|_| Fault::Write)?;
                if count == 0 {
                    return Poll::Ready(Err(Fault::Write));
                }
                self.waiting.consume(count);
                self.bytes += count as u64;
                *moved = true;
            }
            self.waiting.release();
            ready!(to.poll_flush(cx)).map_err(|_| Fault::Write)?;
            match self.state {
                State::Copying => {
                    let count =
                        ready!(from.poll_fill(cx, &mut self.waiting, crate::buffer::SIZE)).map_err(|_| Fault::Read)?;
                    *moved = true;
                    if count == 0 {
                        self.state = State::Ending;
                    }
                }
                State::Ending => {
                    ready!(to.poll_shutdown(cx)).map_err(|_| Fault::Write)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Copies until both directions ended, one broke, or nothing moved for `idle`. `counted` hears of bytes as they pass.
pub async fn run(
    client: &mut Conn,
    client_first: Input,
    upstream: &mut Conn,
    upstream_first: Input,
    timer: &mut Timer,
    idle: Option<Duration>,
    mut counted: impl FnMut(Passed),
) -> (Passed, End) {
    let mut up = Direction {
        waiting: client_first,
        ..Direction::default()
    };
    let mut down = Direction {
        waiting: upstream_first,
        ..Direction::default()
    };
    let mut told = Passed::default();
    timer.set(idle.map(|idle| Instant::now() + idle));
    let end = std::future::poll_fn(|cx| {
        let mut moved = false;
        let result = up.poll(cx, client, upstream, &mut moved);
        if let Err(fault) = result {
            return Poll::Ready(match fault {
                Fault::Read => End::Downstream,
                Fault::Write => End::Upstream,
            });
        }
        if let Err(fault) = down.poll(cx, upstream, client, &mut moved) {
            return Poll::Ready(match fault {
                Fault::Read => End::Upstream,
                Fault::Write => End::Downstream,
            });
        }
        if moved {
            let now = Passed {
                up: up.bytes,
                down: down.bytes,
            };
            counted(Passed {
                up: now.up - told.up,
                down: now.down - told.down,
            });
            told = now;
            timer.set(idle.map(|idle| Instant::now() + idle));
        }
        if up.state == State::Ended && down.state == State::Ended {
            return Poll::Ready(End::Finished);
        }
        if timer.poll_expired(cx) {
            return Poll::Ready(End::Idle);
        }
        Poll::Pending
    })
    .await;
    timer.set(None);
    let passed = Passed {
        up: up.bytes,
        down: down.bytes,
    };
    counted(Passed {
        up: passed.up - told.up,
        down: passed.down - told.down,
    });
    (passed, end)
}

/// A connection that ends in order tells its peer; errors no longer matter.
pub async fn close(conn: &mut Conn) -> io::Result<()> {
    std::future::poll_fn(|cx| conn.poll_shutdown(cx)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (a.unwrap(), b.unwrap().0)
    }

    // C5
    #[tokio::test]
    async fn half_close_is_passed_on_and_both_directions_are_counted() {
        let ((mut app, client), (upstream, mut server)) = (pair().await, pair().await);
        let tunnel = tokio::spawn(async move {
            let (mut client, mut upstream) = (Conn::from(client), Conn::from(upstream));
            let mut first = Input::none();
            first.extend(b"he");
            let mut timer = Timer::new();
            run(
                &mut client,
                first,
                &mut upstream,
                Input::none(),
                &mut timer,
                None,
                |_| {},
            )
            .await
        });
        app.write_all(b"llo").await.unwrap();
        app.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        server.write_all(&vec![7; 100_000]).await.unwrap();
        drop(server);
        heard.clear();
        app.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 100_000);
        assert_eq!(tunnel.await.unwrap(), (Passed { up: 5, down: 100_000 }, End::Finished));
    }

    #[tokio::test]
    async fn silent_tunnel_ends() {
        let scanner = tokio::spawn(crate::timer::scan());
        let ((_app, client), (upstream, _server)) = (pair().await, pair().await);
        let (mut client, mut upstream) = (Conn::from(client), Conn::from(upstream));
        let mut timer = Timer::new();
        let idle = Some(Duration::from_millis(40));
        let (passed, end) = run(
            &mut client,
            Input::none(),
            &mut upstream,
            Input::none(),
            &mut timer,
            idle,
            |_| {},
        )
        .await;
        assert_eq!((passed, end), (Passed::default(), End::Idle));
        scanner.abort();
    }
}
