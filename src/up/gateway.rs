//! The port that is reached from outside: its connections go to the mesh's ingress gateway.

use super::machine::MESH_NAMESPACE;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once.
const CONNECTIONS: usize = 1024;

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, client: Client) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await;
        let Ok((mut stream, _)) = listener.accept().await else {
            // Most often too many open files: wait until some are closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let client = client.clone();
        tokio::spawn(async move {
            let connected = match address(&client).await {
                Some(address) => TcpStream::connect(address).await.ok(),
                None => None,
            };
            if let Some(mut gateway) = connected {
                let _ = (stream.set_nodelay(true), gateway.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut gateway).await;
            } else {
                let text = "the mesh has no gateway that answers; see kubectl get pods,services -n istio-system\n";
                let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length:";
                let _ = stream
                    .write_all(format!("{head} {}\r\n\r\n{text}", text.len()).as_bytes())
                    .await;
            }
            drop(permit);
        });
    }
}

/// The gateway's address, which may change.
async fn address(client: &Client) -> Option<SocketAddr> {
    let services: Api<Service> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    let spec = services.get_opt("istio-ingressgateway").await.ok()??.spec?;
    let http = spec
        .ports
        .iter()
        .flatten()
        .find(|port| matches!(port.name.as_deref(), Some("http2" | "http")))?;
    let address: IpAddr = spec.cluster_ip?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(http.port).ok()?))
}
