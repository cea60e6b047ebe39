//! One request to this pod's own agent or admin port, for hooks in containers that have no other program.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};

use super::dial;

const LIMIT: usize = 64 * 1024 * 1024;

/// Asks the sidecar in this pod: `request POST drain`.
#[derive(Debug, Clone, clap::Args)]
pub struct RequestArgs {
    /// GET or POST
    pub method: String,
    /// Path, with or without its first slash
    pub path: String,
    /// Port on loopback: 15020 is the agent, 15000 admin
    #[arg(long = "debug-port", default_value_t = 15020)]
    pub port: u16,
    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 10)]
    pub timeout: u64,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Method or path cannot be sent.
    #[error("request {method} {path}: cannot be sent: {reason}")]
    Bad {
        /// As given.
        method: String,
        /// As given.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers.
    #[error("port {port} of this pod: {reason}; is the sidecar running?")]
    Unreachable {
        /// Which port.
        port: u16,
        /// What is wrong.
        reason: String,
    },
    /// It says no.
    #[error("port {port} of this pod answered {status}: {body}")]
    Refused {
        /// Which port.
        port: u16,
        /// Its status.
        status: StatusCode,
        /// Its text.
        body: String,
    },
}

/// Sends the request; the result is the body of the answer.
pub async fn request(args: &RequestArgs) -> Result<String, RequestError> {
    let bad = |reason: String| RequestError::Bad {
        method: args.method.clone(),
        path: args.path.clone(),
        reason,
    };
    let method = Method::from_bytes(args.method.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let request = Request::builder()
        .method(method)
        .uri(format!("/{}", args.path.trim_start_matches('/')))
        .header(http::header::HOST, format!("127.0.0.1:{}", args.port))
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| bad(error.to_string()))?;
    let unreachable = |reason: String| RequestError::Unreachable {
        port: args.port,
        reason,
    };
    let exchange = async {
        let stream = dial::connect(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port)
            .await
            .map_err(|error| error.to_string())?;
        let exchange = dial::exchange(stream, request)
            .await
            .map_err(|error| error.to_string())?;
        let status = exchange.response.status();
        let body = Limited::new(exchange.response, LIMIT)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let (status, body) = tokio::time::timeout(Duration::from_secs(args.timeout), exchange)
        .await
        .map_err(|_elapsed| unreachable(format!("no answer within {} s", args.timeout)))?
        .map_err(unreachable)?;
    if status.is_success() {
        Ok(body)
    } else {
        Err(RequestError::Refused {
            port: args.port,
            status,
            body: body.trim().to_owned(),
        })
    }
}
