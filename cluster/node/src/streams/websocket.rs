//! Channels in WebSocket messages: `v5.channel.k8s.io` and `v4.channel.k8s.io` for programs, SPDY frames or channels for ports.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::session::{self, Channel, Ends, Wanted};
use super::{Refusal, StreamBody, spdy};
use crate::sandbox::Namespaces;

const PROTOCOL: &str = "sec-websocket-protocol";
/// A message larger than this is refused.
const MESSAGE_BYTES: usize = 4 << 20;
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The end that was wanted; without a code clients take it for a failure.
fn normal() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    }
}

fn choose(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Refusal> {
    let offered: Vec<&str> = headers
        .get_all(PROTOCOL)
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

/// Answers the handshake; `body` gets the connection.
fn accept<B, F>(
    request: &mut Request<B>,
    protocol: &'static str,
    body: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response<StreamBody>, Refusal>
where
    F: Future<Output = ()> + Send,
{
    let key = request
        .headers()
        .get("sec-websocket-key")
        .ok_or_else(|| Refusal::Upgrade("no key".to_owned()))?;
    let answer = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        body(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-accept", answer)
        .header(PROTOCOL, protocol)
        .body(http_body_util::Empty::new().boxed_unsync())
        .map_err(|error| Refusal::Upgrade(error.to_string()))
}

/// A program's channels.
pub(super) fn channels<B>(request: &mut Request<B>, wanted: Wanted) -> Result<Response<StreamBody>, Refusal> {
    let protocol = choose(request.headers(), &["v5.channel.k8s.io", "v4.channel.k8s.io"])?;
    accept(request, protocol, move |socket| async move {
        let (mut to, mut from) = socket.split();
        let (stdin_tx, stdin) = mpsc::channel(16);
        let (sizes_tx, sizes) = mpsc::channel(16);
        let (out, mut out_rx) = mpsc::channel::<(Channel, Bytes)>(16);
        let input = async move {
            let mut stdin_tx = Some(stdin_tx);
            while let Some(Ok(message)) = from.next().await {
                let Message::Binary(bytes) = message else { continue };
                let data = bytes.slice(1.min(bytes.len())..);
                match bytes.first() {
                    // The fifth version's way to close a channel.
                    Some(255) if data.first() == Some(&0) => stdin_tx = None,
                    Some(number) => match (Channel::number(*number), &stdin_tx) {
                        (Some(Channel::Stdin), Some(stdin)) if !data.is_empty() => _ = stdin.send(data).await,
                        (Some(Channel::Resize), _) => _ = sizes_tx.send(data).await,
                        _ => {}
                    },
                    None => {}
                }
            }
        };
        let output = async move {
            while let Some((channel, bytes)) = out_rx.recv().await {
                let mut message = BytesMut::with_capacity(bytes.len() + 1);
                message.extend_from_slice(&[channel as u8]);
                message.extend_from_slice(&bytes);
                if to.send(Message::Binary(message.freeze())).await.is_err() {
                    return;
                }
            }
            _ = to.send(Message::Close(Some(normal()))).await;
        };
        let program = tokio::spawn(session::run(wanted, Ends { stdin, sizes, out }));
        tokio::select! {
            () = input => {}
            () = output => {}
        }
        program.abort();
    })
}

/// A pod's ports: SPDY frames as kubectl tunnels them, or two channels for each port that the query names.
pub(super) fn ports<B>(
    request: &mut Request<B>,
    namespaces: Option<Arc<Namespaces>>,
    ports: Vec<u16>,
) -> Result<Response<StreamBody>, Refusal> {
    let protocol = choose(request.headers(), &[TUNNEL, "v4.channel.k8s.io"])?;
    accept(request, protocol, move |socket| async move {
        if protocol == TUNNEL {
            let (near, far) = tokio::io::duplex(64 << 10);
            tokio::join!(spdy::ports(near, namespaces), tunnel(socket, far));
        } else {
            forward(socket, namespaces, &ports).await;
        }
    })
}

async fn tunnel(socket: Socket, stream: tokio::io::DuplexStream) {
    let (mut to, mut from) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let input = async {
        while let Some(Ok(message)) = from.next().await {
            if let Message::Binary(bytes) = message
                && writer.write_all(&bytes).await.is_err()
            {
                break;
            }
        }
        _ = writer.shutdown().await;
    };
    let output = async {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let length = reader.read(&mut buffer).await.unwrap_or(0);
            let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            if length == 0 || to.send(Message::Binary(bytes)).await.is_err() {
                break;
            }
        }
        _ = to.send(Message::Close(Some(normal()))).await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}

/// Channels 2n and 2n+1 are the data and errors of the nth port; each begins with the port's number.
async fn forward(socket: Socket, namespaces: Option<Arc<Namespaces>>, ports: &[u16]) {
    let (mut to, mut from) = socket.split();
    let (out, mut out_rx) = mpsc::channel::<(u8, Bytes)>(16);
    let mut tasks = tokio::task::JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.iter().copied().enumerate().take(64) {
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
        for channel in [channel, channel + 1] {
            _ = out.send((channel, Bytes::copy_from_slice(&port.to_le_bytes()))).await;
        }
        let (tx, mut rx) = mpsc::channel::<Bytes>(16);
        inputs.push(tx);
        let (out, namespaces) = (out.clone(), namespaces.clone());
        tasks.spawn(async move {
            let stream = match spdy::dial(namespaces, port).await {
                Ok(stream) => stream,
                Err(error) => {
                    _ = out.send((channel + 1, Bytes::from(error))).await;
                    return;
                }
            };
            let (mut reader, mut writer) = stream.into_split();
            let input = async {
                while let Some(bytes) = rx.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            };
            let output = async {
                let mut buffer = vec![0; 16 << 10];
                loop {
                    let length = reader.read(&mut buffer).await.unwrap_or(0);
                    let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                    if length == 0 || out.send((channel, bytes)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = input => {}
                () = output => {}
            }
        });
    }
    drop(out);
    let output = async {
        while let Some((channel, bytes)) = out_rx.recv().await {
            let mut message = BytesMut::with_capacity(bytes.len() + 1);
            message.extend_from_slice(&[channel]);
            message.extend_from_slice(&bytes);
            if to.send(Message::Binary(message.freeze())).await.is_err() {
                break;
            }
        }
        _ = to.send(Message::Close(Some(normal()))).await;
    };
    let input = async {
        while let Some(Ok(message)) = from.next().await {
            if let Message::Binary(bytes) = message
                && let Some(port) = bytes.first().and_then(|channel| inputs.get(usize::from(channel / 2)))
            {
                _ = port.send(bytes.slice(1..)).await;
            }
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}
