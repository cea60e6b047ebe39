//! A pod's streams: a request for logs, exec, attach or port-forward comes in, text or an upgraded connection goes out. Access has been
//! decided before.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody as Streamed};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::logs;
use crate::node::{Live, Node};
use crate::pod::start;
use crate::pod::state::Kind;

mod session;
mod spdy;
mod websocket;

/// The body of an answer.
pub type StreamBody = UnsyncBoxBody<Bytes, Infallible>;

/// Serves the streams of a node's pods.
#[derive(Clone)]
pub struct Streams {
    node: Arc<Node>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("pods {0:?} not found")]
    NoPod(String),
    #[error("{0}")]
    Bad(String),
    #[error("the server could not find the requested resource")]
    NoSuchStream,
    #[error("unable to upgrade: {0}")]
    Upgrade(String),
}

/// What the query says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let mut bytes = Vec::new();
            let mut rest = part.bytes();
            while let Some(byte) = rest.next() {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                bytes.push(match byte {
                    b'+' => b' ',
                    b'%' => match (digit(rest.next()), digit(rest.next())) {
                        (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(b'?'),
                        _ => b'?',
                    },
                    other => other,
                });
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Kubelets have their own names for some flags.
    fn flag(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| matches!(self.get(name), Some("true" | "1" | "True")))
    }
}

impl Streams {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Answers for a pod's `log`, `exec`, `attach` or `portforward`; the request carries hyper's upgrade. Errors are Status objects.
    pub async fn serve<B>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        request: Request<B>,
    ) -> Response<StreamBody> {
        let answered = self.answer(namespace, name, subresource, None, request).await;
        answered.unwrap_or_else(|refusal| {
            let (code, reason) = refusal.status();
            let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": refusal.to_string(), "reason": reason, "code": code.as_u16()});
            let mut response = Response::new(full(status.to_string()));
            *response.status_mut() = code;
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/json"),
            );
            response
        })
    }

    /// Answers on a kubelet's own paths, for an API server elsewhere: `/containerLogs/…`, `/exec/…`, `/attach/…`, `/portForward/…`.
    pub async fn serve_kubelet<B>(&self, request: Request<B>) -> Response<StreamBody> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answered = match parts.as_slice() {
            ["containerLogs", namespace, name, container] => {
                self.answer(namespace, name, "log", Some(container), request).await
            }
            [verb @ ("exec" | "attach"), namespace, name, rest @ ..] => {
                self.answer(namespace, name, verb, rest.last().copied(), request).await
            }
            ["portForward", namespace, name, ..] => self.answer(namespace, name, "portforward", None, request).await,
            _ => Err(Refusal::NoSuchStream),
        };
        answered.unwrap_or_else(|refusal| {
            let mut response = Response::new(full(refusal.to_string()));
            *response.status_mut() = refusal.status().0;
            response
        })
    }

    async fn answer<B>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        container: Option<&str>,
        mut request: Request<B>,
    ) -> Result<Response<StreamBody>, Refusal> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let key = (namespace.to_owned(), name.to_owned());
        let live = self
            .node
            .registry
            .lock()
            .get(&key)
            .cloned()
            .ok_or_else(|| Refusal::NoPod(name.to_owned()))?;
        let container = || live.container(name, container.or(query.get("container")));
        match subresource {
            "log" => log(&live, name, &container()?, &query),
            "exec" | "attach" => {
                let container = container()?;
                let running = live.containers.lock().get(&container).cloned();
                let running = running.filter(|running| running.process.exit().is_none());
                let running = running.ok_or_else(|| Refusal::Bad(format!("container not found ({container:?})")))?;
                let wanted = session::Wanted {
                    config: self.node.config.clone(),
                    running,
                    command: (subresource == "exec").then(|| query.all("command")),
                    stdin: query.flag(&["stdin", "input"]),
                    stdout: query.flag(&["stdout", "output"]),
                    stderr: query.flag(&["stderr", "error"]),
                    terminal: query.flag(&["tty"]),
                };
                if wanted.command.as_ref().is_some_and(Vec::is_empty) {
                    return Err(Refusal::Bad(
                        "you must specify at least one command for the container".to_owned(),
                    ));
                }
                match Upgrade::of(request.headers()) {
                    Some(Upgrade::Spdy) => {
                        let protocols = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];
                        let protocol = spdy::negotiate(request.headers(), &protocols)?;
                        let upgrade = hyper::upgrade::on(&mut request);
                        tokio::spawn(async move {
                            if let Ok(upgraded) = upgrade.await {
                                spdy::channels(hyper_util::rt::TokioIo::new(upgraded), wanted).await;
                            }
                        });
                        Ok(spdy::switching(protocol))
                    }
                    Some(Upgrade::WebSocket) => websocket::channels(&mut request, wanted),
                    None => Err(Refusal::Upgrade("the request asks for none".to_owned())),
                }
            }
            "portforward" => {
                let namespaces = live.namespaces.lock().clone();
                match Upgrade::of(request.headers()) {
                    Some(Upgrade::Spdy) => {
                        let protocol = spdy::negotiate(request.headers(), &["portforward.k8s.io"])?;
                        let upgrade = hyper::upgrade::on(&mut request);
                        tokio::spawn(async move {
                            if let Ok(upgraded) = upgrade.await {
                                spdy::ports(hyper_util::rt::TokioIo::new(upgraded), namespaces).await;
                            }
                        });
                        Ok(spdy::switching(protocol))
                    }
                    Some(Upgrade::WebSocket) => {
                        let ports = query
                            .all("ports")
                            .iter()
                            .flat_map(|all| all.split(','))
                            .filter_map(|p| p.parse().ok())
                            .collect();
                        websocket::ports(&mut request, namespaces, ports)
                    }
                    None => Err(Refusal::Upgrade("the request asks for none".to_owned())),
                }
            }
            _ => Err(Refusal::NoSuchStream),
        }
    }
}

enum Upgrade {
    Spdy,
    WebSocket,
}

impl Upgrade {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let wanted = headers.get(header::UPGRADE)?.to_str().ok()?;
        if wanted.eq_ignore_ascii_case("SPDY/3.1") {
            Some(Self::Spdy)
        } else if wanted.eq_ignore_ascii_case("websocket") {
            Some(Self::WebSocket)
        } else {
            None
        }
    }
}

impl Refusal {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoPod(_) | Self::NoSuchStream => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Bad(_) | Self::Upgrade(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
        }
    }
}

impl Live {
    /// The container that is meant: the one that is named, or the only one.
    fn container(&self, pod: &str, named: Option<&str>) -> Result<String, Refusal> {
        if let Some(name) = named {
            let known = self.names.iter().any(|(_, known)| known == name);
            return known
                .then(|| name.to_owned())
                .ok_or_else(|| Refusal::Bad(format!("container {name} is not valid for pod {pod}")));
        }
        let of = |main: bool| -> Vec<&str> {
            self.names
                .iter()
                .filter(|(kind, _)| (*kind == Kind::Main) == main)
                .map(|(_, name)| name.as_str())
                .collect()
        };
        match of(true).as_slice() {
            [only] => Ok((*only).to_owned()),
            several => {
                let init = match of(false).as_slice() {
                    [] => String::new(),
                    init => format!(" or one of the init containers: [{}]", init.join(" ")),
                };
                let all = several.join(" ");
                Err(Refusal::Bad(format!(
                    "a container name must be specified for pod {pod}, choose one of: [{all}]{init}"
                )))
            }
        }
    }
}

fn full(text: String) -> StreamBody {
    Full::new(Bytes::from(text)).boxed_unsync()
}

fn log(live: &Live, pod: &str, container: &str, query: &Query) -> Result<Response<StreamBody>, Refusal> {
    let running = live.containers.lock().get(container).cloned();
    let folder = start::folder(&live.folder, container);
    let written = || {
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
            .max()
    };
    let Some(latest) = running.as_ref().map(|running| running.attempt).or_else(written) else {
        let reason = live.waiting.lock().get(container).cloned();
        let why = match reason.as_deref() {
            Some("ErrImagePull" | "ImagePullBackOff") => "trying and failing to pull image",
            Some(reason) => reason,
            None => "ContainerCreating",
        };
        return Err(Refusal::Bad(format!(
            "container {container:?} in pod {pod:?} is waiting to start: {why}"
        )));
    };
    let previous = query.flag(&["previous"]);
    let attempt = if previous { latest - 1 } else { latest };
    let path = logs::path(&folder, attempt);
    if previous && !path.exists() {
        return Err(Refusal::Bad(format!(
            "previous terminated container {container:?} in pod {pod:?} not found"
        )));
    }
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<i64>().ok());
    let ago =
        number("sinceSeconds").map(|seconds| Timestamp::now() - std::time::Duration::from_secs(seconds.unsigned_abs()));
    let ask = logs::Ask {
        follow: query.flag(&["follow"]) && !previous,
        tail: number("tailLines").and_then(|lines| usize::try_from(lines).ok()),
        since: ago.or_else(|| query.get("sinceTime").and_then(|time| time.parse().ok())),
        timestamps: query.flag(&["timestamps"]),
        limit: number("limitBytes").and_then(|bytes| usize::try_from(bytes).ok()),
    };
    let (tx, rx) = mpsc::channel(64);
    let live = running.filter(|_| !previous).map(|running| Arc::clone(&running.output));
    tokio::spawn(logs::send(path, ask, live, tx));
    let frames = futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|bytes| (bytes, rx)) });
    let body = Streamed::new(frames.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync();
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_the_api_and_of_kubelets_are_understood() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%26b&input=1&tty=true&stderr=false");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a&b"]);
        assert!(query.flag(&["stdin", "input"]) && query.flag(&["tty"]) && !query.flag(&["stderr"]));
    }
}
