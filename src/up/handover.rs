//! The way out of our network namespace: the process outside makes a socket in the machine's own namespace and hands it in;
//! what is done with it is done inside.
//!
//! One byte asks for one socket, an answer of one byte brings it. The byte of being ready goes the same way and has no answer.

use futures::future::BoxFuture;
use mizzen_node::Outside;
use parking_lot::Mutex;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// Everything is up.
pub(super) const READY: u8 = b'R';
const TCP4: u8 = b't';
const TCP6: u8 = b'T';
const UDP4: u8 = b'u';
const UDP6: u8 = b'U';

/// A peer that does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// As resolvers do, before they ask the next server.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer over UDP.
const DATAGRAM: usize = 4096;

/// Outside: answers until the other side is gone; `ready` is called for its byte.
pub(super) async fn serve(stream: UnixStream, mut ready: impl FnMut()) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        let (family, kind) = match byte[0] {
            READY => {
                ready();
                continue;
            }
            TCP4 => (AddressFamily::INET, SocketType::STREAM),
            TCP6 => (AddressFamily::INET6, SocketType::STREAM),
            UDP4 => (AddressFamily::INET, SocketType::DGRAM),
            UDP6 => (AddressFamily::INET6, SocketType::DGRAM),
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = rustix::net::socket_with(family, kind, flags, None);
        let code = made
            .as_ref()
            .err()
            .map_or(0, |errno| u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX));
        let sent = |stream: &tokio::net::UnixStream| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut message = SendAncillaryBuffer::new(&mut space);
            let handed: Vec<_> = made.iter().map(AsFd::as_fd).collect();
            if !handed.is_empty() {
                message.push(SendAncillaryMessage::ScmRights(&handed));
            }
            let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&[code])], &mut message, SendFlags::NOSIGNAL);
            sent.map_err(io::Error::from)
        };
        stream.async_io(Interest::WRITABLE, || sent(&stream)).await?;
    }
}

/// Inside: sockets of the machine's own network.
#[derive(Clone)]
pub(super) struct HostNetwork(Arc<Mutex<UnixStream>>);

impl HostNetwork {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Says that everything is up.
    pub(super) fn ready(&self) -> io::Result<()> {
        self.0.lock().write_all(&[READY])
    }

    async fn socket(&self, kind: u8) -> io::Result<OwnedFd> {
        let stream = Arc::clone(&self.0);
        let asked = tokio::task::spawn_blocking(move || ask(&mut stream.lock(), kind)).await;
        asked.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(if to.is_ipv4() { TCP4 } else { TCP6 }).await?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        tokio::time::timeout(PATIENCE, socket.connect(to))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn query(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let socket = self.socket(if server.is_ipv4() { UDP4 } else { UDP6 }).await?;
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
        socket.connect(server).await?;
        socket.send(query).await?;
        let mut answer = vec![0; DATAGRAM];
        let received = tokio::time::timeout(RESOLVER_PATIENCE, socket.recv(&mut answer)).await;
        answer.truncate(received.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?);
        // Truncated: the whole answer is to be had over TCP.
        if answer.get(2).is_some_and(|flags| flags & 2 != 0) {
            return self.query_whole(server, query).await;
        }
        Ok(answer)
    }

    async fn query_whole(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let asked = async {
            let mut stream = self.connect(server).await?;
            let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(RESOLVER_PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Outside for HostNetwork {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        let host = self.clone();
        Box::pin(async move { host.connect(to).await })
    }

    fn resolve(&self, query: Vec<u8>) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let host = self.clone();
        Box::pin(async move {
            let text = tokio::fs::read_to_string("/etc/resolv.conf").await?;
            let mut outcome = Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the machine has no name server",
            ));
            for server in name_servers(&text) {
                outcome = host.query(server, &query).await;
                if outcome.is_ok() {
                    break;
                }
            }
            outcome
        })
    }
}

fn ask(stream: &mut UnixStream, kind: u8) -> io::Result<OwnedFd> {
    stream.write_all(&[kind])?;
    let mut code = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        &*stream,
        &mut [IoSliceMut::new(&mut code)],
        &mut message,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    if code[0] != 0 {
        return Err(io::Error::from_raw_os_error(code[0].into()));
    }
    let handed = message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    handed.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The servers of a `resolv.conf`.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(str::split_whitespace);
    let addresses = words.filter_map(|mut words| (words.next()? == "nameserver").then(|| words.next())?);
    // A scope is one of the machine's links, which are not ours.
    let addresses = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# x\nsearch a.example\nnameserver 127.0.0.53\nnameserver  ::1 # local\nnameserver fe80::1%eth0\noptions edns0\n";
        let expected: Vec<SocketAddr> = vec!["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }

    #[tokio::test]
    async fn a_socket_comes_in_and_reaches_the_machine() {
        let (outer, inner) = UnixStream::pair().unwrap();
        let told = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&told);
        let server = tokio::spawn(serve(outer, move || *counted.lock() += 1));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = HostNetwork::new(inner);
        let address = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(host.dial(address), listener.accept());
        connected.unwrap().write_all(b"hello").await.unwrap();
        let mut text = String::new();
        accepted.unwrap().0.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        host.ready().unwrap();
        drop(host);
        server.await.unwrap().unwrap();
        assert_eq!(*told.lock(), 1);
    }
}
