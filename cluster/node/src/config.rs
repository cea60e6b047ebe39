//! What a caller says about its node: names, addresses, the table of images and the way to the outside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use parking_lot::RwLock;
use tokio::net::TcpStream;

/// One node.
#[derive(Clone)]
pub struct NodeConfig {
    /// Its name, also that of its object.
    pub name: String,
    /// The `kubernetes.io/…` version that it says it runs, as the API server's: `v1.33.0`.
    pub version: String,
    /// Its own address (`hostIP`), given to the bridge; in no range below.
    pub address: Ipv4Addr,
    /// Where the pods' addresses are from; the first is the bridge's, and the DNS server's.
    pub pods: Ipv4Net,
    /// The API server's service range.
    pub services: Ipv4Net,
    /// Where the addresses of services of type LoadBalancer are from.
    pub load_balancers: Ipv4Net,
    /// The cluster's domain: `cluster.local`.
    pub domain: String,
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// A folder of this node's own: pods' volumes and logs.
    pub state: PathBuf,
    /// Program and arguments that end in [`crate::helper_main`]: usually this program with a hidden subcommand.
    pub helper: Vec<OsString>,
    /// What runs for an image.
    pub images: Images,
    /// A writable folder of the cgroup v2 tree with the controllers `cpu`, `memory` and `pids`, if there is one.
    pub cgroup: Option<PathBuf>,
    /// The port of the kubelet's HTTPS API where the caller serves it, said in the node's object; 0 is none.
    pub kubelet_port: u16,
    /// How pods reach what is not of the cluster, if they do.
    pub outside: Option<Arc<dyn Outside>>,
}

impl NodeConfig {
    /// The bridge's address: the pods' gateway and name server.
    pub fn gateway(&self) -> Ipv4Addr {
        self.pods.hosts().next().unwrap_or(self.pods.network())
    }
}

/// The way out of the node's network namespace.
pub trait Outside: Send + Sync + 'static {
    /// Connects to an address outside.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;
    /// Answers a DNS query (a whole message, as over UDP) that is not about the cluster.
    fn resolve(&self, query: Vec<u8>) -> BoxFuture<'static, io::Result<Vec<u8>>>;
}

/// What an image is here: a program of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The program, an absolute path. A container also sees it as `/usr/local/bin/<its name>`.
    pub program: PathBuf,
    /// Arguments before those of the container.
    pub args: Vec<String>,
    /// Environment before that of the container.
    pub env: BTreeMap<String, String>,
    /// The user where the pod names none; 0 if absent.
    pub user: Option<u32>,
    /// Capabilities (`NET_RAW`) that the program keeps where the kernel maps no user into our namespace but the one who started us, so
    /// that it cannot be given the user that its pod names. In such a namespace it has no others.
    pub unmapped_capabilities: Vec<String>,
    /// More files: path in the container to path on this machine.
    pub files: BTreeMap<PathBuf, PathBuf>,
}

/// The table of images; rows may come and go while the node runs.
#[derive(Clone, Default)]
pub struct Images(Arc<RwLock<BTreeMap<String, Image>>>);

impl Images {
    /// Adds or replaces a row. A reference without tag stands for every tag.
    pub fn insert(&self, reference: impl Into<String>, image: Image) {
        self.0.write().insert(reference.into(), image);
    }

    /// The row of a reference: exact, then without tag or digest, then without Docker's default registry.
    pub fn find(&self, reference: &str) -> Option<Image> {
        let rows = self.0.read();
        let name = name(reference);
        let short = name
            .strip_prefix("docker.io/library/")
            .or(name.strip_prefix("docker.io/"));
        [Some(reference), Some(name), short]
            .into_iter()
            .flatten()
            .find_map(|key| rows.get(key).cloned())
    }
}

/// A reference without tag and digest.
fn name(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        // A colon before a slash is a registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_reference_then_by_name() {
        let images = Images::default();
        let program = |path: &str| Image {
            program: path.into(),
            ..Image::default()
        };
        images.insert("shop", program("/any"));
        images.insert("shop:v2", program("/v2"));
        images.insert("host:5000/shop", program("/port"));
        let found = |reference| images.find(reference).map(|image| image.program);
        assert_eq!(found("shop:v2"), Some("/v2".into()));
        assert_eq!(found("shop:v1"), Some("/any".into()));
        assert_eq!(found("docker.io/library/shop@sha256:00"), Some("/any".into()));
        assert_eq!(found("host:5000/shop:x"), Some("/port".into()));
        assert_eq!(found("host:5000/other"), None);
    }
}
