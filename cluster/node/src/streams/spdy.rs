//! SPDY/3.1 as Kubernetes' clients speak it (moby/spdystream): streams that the other side opens, no flow control, no push.
//!
//! The frames are those of <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>; headers are compressed with zlib and the
//! protocol's dictionary.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::session::{self, Channel, Ends, Wanted};
use super::{Refusal, StreamBody};
use crate::launch::inside;
use crate::sandbox::Namespaces;

mod headers;

use headers::Headers;

const VERSION: &str = "x-stream-protocol-version";
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// Bounds for what the other side sends.
const FRAME_BYTES: usize = 1 << 20;
const STREAMS: usize = 4096;

/// Chooses among the protocols that a request offers.
pub(super) fn negotiate(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Refusal> {
    let offered: Vec<&str> = headers
        .get_all(VERSION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let found = known.iter().find(|known| offered.contains(known));
    found
        .copied()
        .ok_or_else(|| Refusal::Upgrade(format!("none of the protocols {offered:?} is known here")))
}

/// The answer that switches.
pub(super) fn switching(protocol: &'static str) -> Response<StreamBody> {
    let mut response = Response::new(http_body_util::Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("SPDY/3.1"));
    headers.insert(VERSION, header::HeaderValue::from_static(protocol));
    response
}

/// What happens on a connection.
#[derive(Debug)]
enum Event {
    Opened(u32, HashMap<String, String>),
    Data(u32, Bytes),
    /// The other side sends no more on it.
    Closed(u32),
}

/// A connection: events come in, frames go out.
struct Connection {
    events: mpsc::Receiver<Event>,
    frames: mpsc::Sender<Bytes>,
    // Reads and writes until it is dropped.
    tasks: JoinSet<()>,
}

impl Connection {
    fn new<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: T) -> Self {
        let (mut reader, mut writer) = tokio::io::split(io);
        let (events_tx, events) = mpsc::channel(16);
        let (frames, mut frames_rx) = mpsc::channel::<Bytes>(16);
        let replies = frames.downgrade();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut headers = Headers::new();
            while let Some((control, flags, body)) = read(&mut reader).await {
                if take(&mut headers, control, flags, &body, &events_tx, &replies)
                    .await
                    .is_none()
                {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            while let Some(frame) = frames_rx.recv().await {
                if writer.write_all(&frame).await.is_err() {
                    return;
                }
            }
            _ = writer.shutdown().await;
        });
        Self { events, frames, tasks }
    }

    /// Ends once all that was to be said has been.
    async fn close(self) {
        let Self {
            frames,
            mut tasks,
            mut events,
        } = self;
        drop(frames);
        // The other side closes when it has read everything; the limit is for one that does not.
        let drained = async {
            while events.recv().await.is_some() {}
            while tasks.join_next().await.is_some() {}
        };
        _ = tokio::time::timeout(Duration::from_secs(5), drained).await;
    }
}

/// One frame: the control type or the stream's number, flags, body.
async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Option<(Result<u16, u32>, u8, Vec<u8>)> {
    let first = reader.read_u32().await.ok()?;
    let second = reader.read_u32().await.ok()?;
    let flags = u8::try_from(second >> 24).ok()?;
    let length = usize::try_from(second & 0x00ff_ffff)
        .ok()
        .filter(|length| *length <= FRAME_BYTES)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.ok()?;
    let control = first & 0x8000_0000 != 0;
    let kind = if control {
        Ok(u16::try_from(first & 0xffff).ok()?)
    } else {
        Err(first)
    };
    Some((kind, flags, body))
}

/// Understands a frame; `None` ends the connection.
async fn take(
    headers: &mut Headers,
    kind: Result<u16, u32>,
    flags: u8,
    body: &[u8],
    events: &mpsc::Sender<Event>,
    replies: &mpsc::WeakSender<Bytes>,
) -> Option<()> {
    let number = || {
        body.get(..4)?
            .try_into()
            .ok()
            .map(u32::from_be_bytes)
            .map(|number| number & 0x7fff_ffff)
    };
    match kind {
        Err(stream) => {
            if !body.is_empty() {
                events
                    .send(Event::Data(stream, Bytes::copy_from_slice(body)))
                    .await
                    .ok()?;
            }
            if flags & FIN != 0 {
                events.send(Event::Closed(stream)).await.ok()?;
            }
        }
        Ok(SYN_STREAM) => {
            let stream = number()?;
            let read = headers.read(body.get(10..)?)?;
            let mut reply = stream.to_be_bytes().to_vec();
            reply.extend_from_slice(&headers.empty()?);
            replies.upgrade()?.send(control(SYN_REPLY, 0, &reply)).await.ok()?;
            events.send(Event::Opened(stream, read)).await.ok()?;
            if flags & FIN != 0 {
                events.send(Event::Closed(stream)).await.ok()?;
            }
        }
        Ok(RST_STREAM) => events.send(Event::Closed(number()?)).await.ok()?,
        Ok(PING) => replies.upgrade()?.send(control(PING, 0, body)).await.ok()?,
        Ok(GOAWAY) => return None,
        Ok(_) => {}
    }
    Some(())
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 8);
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap_or(0));
    out.put_slice(body);
    out.freeze()
}

fn data(stream: u32, flags: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 8);
    out.put_u32(stream);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap_or(0));
    out.put_slice(body);
    out.freeze()
}

/// A program's channels as streams.
pub(super) async fn channels<T>(io: T, wanted: Wanted)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::new(io);
    let mut streams: HashMap<Channel, u32> = HashMap::new();
    let expected = wanted.channels();
    let mut early = Vec::new();
    // Kubelet waits as long for all of them.
    let open = async {
        while streams.len() < expected.len() {
            match connection.events.recv().await? {
                Event::Opened(stream, headers) => {
                    let channel = headers.get("streamtype").and_then(|name| Channel::named(name))?;
                    streams.insert(channel, stream);
                }
                other => early.push(other),
            }
        }
        Some(())
    };
    if tokio::time::timeout(Duration::from_secs(30), open)
        .await
        .ok()
        .flatten()
        .is_none()
    {
        return;
    }
    let (stdin_tx, stdin) = mpsc::channel(16);
    let (sizes_tx, sizes) = mpsc::channel(16);
    let (out, mut out_rx) = mpsc::channel(16);
    let mut program = JoinSet::new();
    program.spawn(session::run(wanted, Ends { stdin, sizes, out }));
    let frames = connection.frames.clone();
    let of = |channel: Channel| streams.get(&channel).copied();
    let (stdin_stream, resize_stream) = (of(Channel::Stdin), of(Channel::Resize));
    let input = async {
        let mut stdin_tx = Some(stdin_tx);
        let mut early = early.into_iter();
        loop {
            let event = match early.next() {
                Some(event) => event,
                None => match connection.events.recv().await {
                    Some(event) => event,
                    None => return,
                },
            };
            match event {
                Event::Data(stream, bytes) if Some(stream) == stdin_stream => {
                    if let Some(stdin) = &stdin_tx {
                        _ = stdin.send(bytes).await;
                    }
                }
                Event::Closed(stream) if Some(stream) == stdin_stream => stdin_tx = None,
                Event::Data(stream, bytes) if Some(stream) == resize_stream => _ = sizes_tx.send(bytes).await,
                _ => {}
            }
        }
    };
    let output = async {
        while let Some((channel, bytes)) = out_rx.recv().await {
            if let Some(stream) = streams.get(&channel)
                && frames.send(data(*stream, 0, &bytes)).await.is_err()
            {
                return;
            }
        }
        for channel in [
            Channel::Stdout,
            Channel::Stderr,
            Channel::Error,
            Channel::Stdin,
            Channel::Resize,
        ] {
            if let Some(stream) = streams.get(&channel) {
                _ = frames.send(data(*stream, FIN, &[])).await;
            }
        }
    };
    let complete = tokio::select! {
        () = input => false,
        () = output => true,
    };
    drop(program);
    drop(frames);
    if complete {
        connection.close().await;
    }
}

/// Connects to a port on the pod's loopback interface.
pub(super) async fn dial(namespaces: Option<Arc<Namespaces>>, port: u16) -> Result<TcpStream, String> {
    let connected = inside(namespaces, move || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    connected.await.and_then(TcpStream::from_std).map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => error.to_string(),
        };
        format!("error forwarding port {port} to pod: failed to connect to localhost:{port} inside namespace: dial tcp4 127.0.0.1:{port}: connect: {reason}")
    })
}

/// A pod's ports: each connection is a pair of streams with the same request id, one for errors.
pub(super) async fn ports<T>(io: T, namespaces: Option<Arc<Namespaces>>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::new(io);
    let mut errors: HashMap<String, u32> = HashMap::new();
    let mut inputs: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(event) = connection.events.recv().await {
        while tasks.try_join_next().is_some() {}
        match event {
            Event::Opened(stream, headers) => {
                let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
                if errors.len() + inputs.len() > STREAMS {
                    break;
                }
                match header("streamtype").as_str() {
                    "error" => _ = errors.insert(header("requestid"), stream),
                    "data" => {
                        let Ok(port) = header("port").parse() else { continue };
                        let error_stream = errors.remove(&header("requestid"));
                        let (tx, rx) = mpsc::channel(16);
                        inputs.insert(stream, tx);
                        let pair = (stream, error_stream);
                        tasks.spawn(forward(namespaces.clone(), port, pair, rx, connection.frames.clone()));
                    }
                    _ => {}
                }
            }
            Event::Data(stream, bytes) => {
                if let Some(input) = inputs.get(&stream) {
                    // One that is over takes nothing more.
                    _ = input.send(bytes).await;
                }
            }
            Event::Closed(stream) => _ = inputs.remove(&stream),
        }
    }
}

async fn forward(
    namespaces: Option<Arc<Namespaces>>,
    port: u16,
    (stream, error_stream): (u32, Option<u32>),
    mut input: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Bytes>,
) {
    match dial(namespaces, port).await {
        Ok(connected) => {
            let (mut reader, mut writer) = connected.into_split();
            let output = async {
                let mut buffer = vec![0; 16 << 10];
                loop {
                    let length = reader.read(&mut buffer).await.unwrap_or(0);
                    if length == 0
                        || frames
                            .send(data(stream, 0, buffer.get(..length).unwrap_or_default()))
                            .await
                            .is_err()
                    {
                        return;
                    }
                }
            };
            let input = async {
                while let Some(bytes) = input.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                _ = writer.shutdown().await;
                // The answer may still be on its way.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = output => {}
                () = input => {}
            }
        }
        Err(error) => {
            if let Some(error_stream) = error_stream {
                _ = frames.send(data(error_stream, 0, error.as_bytes())).await;
            }
        }
    }
    for stream in [Some(stream), error_stream].into_iter().flatten() {
        _ = frames.send(data(stream, FIN, &[])).await;
    }
}

#[cfg(test)]
mod tests;
