//! One connection, whatever carries it: plain TCP, TLS, or a stream of an HTTP/2 connection that speaks HTTP/1.1 bytes.
//!
//! In: a socket and, for TLS, a finished or unfinished rustls session. Out: poll-style reads and writes that never take a
//! buffer before the socket is readable. TLS goes through rustls' buffered interface; its limits count as back-pressure.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::Connection as Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::Input;
use crate::h2io::Stream;
use crate::tls::{Alpn, Peer};

/// A connection to a peer.
#[derive(Debug)]
pub struct Conn {
    io: Io,
    /// What the TLS handshake proved; `None` without TLS or without a client certificate.
    pub peer: Option<Arc<Peer>>,
    /// Protocol that was negotiated.
    pub alpn: Alpn,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<Tls>),
    H2(Box<Stream>),
}

#[derive(Debug)]
struct Tls {
    socket: TcpStream,
    session: Session,
    /// The peer closed its TCP side.
    eof: bool,
}

impl From<TcpStream> for Conn {
    fn from(socket: TcpStream) -> Self {
        Self {
            io: Io::Plain(socket),
            peer: None,
            alpn: Alpn::None,
        }
    }
}

impl From<Stream> for Conn {
    fn from(stream: Stream) -> Self {
        Self {
            io: Io::H2(Box::new(stream)),
            peer: None,
            alpn: Alpn::H2,
        }
    }
}

impl Conn {
    /// Runs the handshake of `session` over `socket` to its end.
    pub async fn handshake(socket: TcpStream, session: Session) -> io::Result<Self> {
        let mut tls = Box::new(Tls {
            socket,
            session,
            eof: false,
        });
        std::future::poll_fn(|cx| tls.poll_handshake(cx)).await?;
        let alpn = tls.session.alpn_protocol().map_or(Alpn::None, Alpn::parse);
        let peer = Peer::from_chain(tls.session.peer_certificates()).map(Arc::new);
        Ok(Self {
            io: Io::Tls(tls),
            peer,
            alpn,
        })
    }

    /// The socket of a connection that nothing carries but TCP.
    pub fn into_plain(self) -> Option<TcpStream> {
        match self.io {
            Io::Plain(socket) => Some(socket),
            Io::Tls(_) | Io::H2(_) => None,
        }
    }

    /// Whether TLS carries it.
    pub fn is_tls(&self) -> bool {
        matches!(self.io, Io::Tls(_))
    }

    /// Whether it is a stream of a shared HTTP/2 connection.
    pub fn is_h2(&self) -> bool {
        matches!(self.io, Io::H2(_))
    }

    /// The stream, when it is one.
    pub fn h2(&mut self) -> Option<&mut Stream> {
        match &mut self.io {
            Io::H2(stream) => Some(stream),
            _ => None,
        }
    }

    /// Server name that the TLS client asked for.
    pub fn server_name(&self) -> Option<&str> {
        match &self.io {
            Io::Tls(tls) => match &tls.session {
                Session::Server(session) => session.server_name(),
                Session::Client(_) => None,
            },
            _ => None,
        }
    }

    /// The TLS version as access logs write it.
    pub fn tls_version(&self) -> Option<&'static str> {
        match &self.io {
            Io::Tls(tls) => tls.session.protocol_version().map(|version| match version {
                rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
                _ => "TLSv1.2",
            }),
            _ => None,
        }
    }

    /// Our address on this connection.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.io {
            Io::Plain(socket) => socket.local_addr().ok(),
            Io::Tls(tls) => tls.socket.local_addr().ok(),
            Io::H2(_) => None,
        }
    }

    /// Ready when a read would give bytes or the end; no buffer is needed to ask.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(socket) => socket.poll_read_ready(cx),
            Io::Tls(tls) => {
                if tls.eof || tls.has_plaintext()? {
                    return Poll::Ready(Ok(()));
                }
                tls.socket.poll_read_ready(cx)
            }
            Io::H2(stream) => stream.poll_readable(cx),
        }
    }

    /// Waits until a read would give bytes or the end.
    pub async fn readable(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Reads into `buffer`; 0 bytes is the end. A TLS stream cut without notice is an error (`UnexpectedEof`).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(socket) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Io::Tls(tls) => tls.poll_read(cx, buffer),
            Io::H2(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Reads more into `input`, up to `limit` bytes waiting in it. The memory is only taken once there is something to read.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, input: &mut Input, limit: usize) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?;
        let room = input.room(limit);
        if room.is_empty() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::OutOfMemory)));
        }
        match self.poll_read(cx, room) {
            Poll::Ready(Ok(count)) => {
                input.fill(count);
                Poll::Ready(Ok(count))
            }
            other => {
                input.release();
                other
            }
        }
    }

    /// Like [`Conn::poll_fill`], waiting.
    pub async fn fill(&mut self, input: &mut Input, limit: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx, input, limit)).await
    }

    /// Writes some of `bytes`. What TLS holds back is sent by [`Conn::poll_flush`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Io::Tls(tls) => tls.poll_write(cx, bytes),
            Io::H2(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Sends what is held back.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(tls) => tls.poll_flush(cx),
            Io::H2(stream) => stream.poll_flush(cx),
        }
    }

    /// Writes all of `bytes` and flushes.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        std::future::poll_fn(|cx| {
            while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
                sent += ready!(self.poll_write(cx, rest))?;
            }
            self.poll_flush(cx)
        })
        .await
    }

    /// Ends our direction: FIN, preceded by a close notification under TLS.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Io::Tls(tls) => {
                tls.session.send_close_notify();
                ready!(tls.poll_flush(cx))?;
                Pin::new(&mut tls.socket).poll_shutdown(cx)
            }
            Io::H2(stream) => stream.poll_flush(cx),
        }
    }

    /// Whether an idle connection is still good: the peer sent neither the end nor anything else. No system call unless the
    /// readiness flag is set.
    pub fn idle_ok(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self.poll_readable(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                // TLS may have something of its own to read (a session ticket): only a byte for us, or the end, is bad.
                let mut byte = [0];
                self.poll_read(&mut cx, &mut byte).is_pending()
            }
        }
    }
}

impl Tls {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.session.wants_write() {
                ready!(self.poll_send(cx))?;
            }
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn has_plaintext(&mut self) -> io::Result<bool> {
        // `process_new_packets` with nothing new costs nothing and tells how much waits.
        match self.session.process_new_packets() {
            Ok(state) => Ok(state.plaintext_bytes_to_read() > 0 || state.peer_has_closed()),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// One read from the socket into the session; 0 is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut reader = SocketIo {
            socket: &mut self.socket,
            cx,
        };
        let count = match self.session.read_tls(&mut reader) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if count == 0 {
            self.eof = true;
        }
        if let Err(error) = self.session.process_new_packets() {
            // The alert that tells the peer why is sent if that needs no waiting.
            let _best_effort = self.poll_send(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut writer = SocketIo {
            socket: &mut self.socket,
            cx,
        };
        match self.session.write_tls(&mut writer) {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.eof {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_receive(cx))?;
            if self.session.wants_write() {
                // Answers of the session itself (key updates); nobody waits for them.
                let _sent_later = self.poll_send(cx)?;
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let accepted = self.session.writer().write(bytes)?;
            if accepted > 0 || bytes.is_empty() {
                // Records go out with the flush, so that head and body share one send.
                return Poll::Ready(Ok(accepted));
            }
            // The session's buffer is full: back-pressure.
            ready!(self.poll_send(cx))?;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Lets rustls read and write a tokio socket: "would block" stands for pending, with the waker registered.
struct SocketIo<'a, 'c, 'w> {
    socket: &'a mut TcpStream,
    cx: &'c mut Context<'w>,
}

impl Read for SocketIo<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.socket).poll_read(self.cx, &mut buffer) {
            Poll::Ready(Ok(())) => Ok(buffer.filled().len()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for SocketIo<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For the `h2` crate, which drives a connection of its own.
impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let count = ready!(Self::poll_read(this, cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self.get_mut(), cx)
    }
}
