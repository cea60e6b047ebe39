//! A node for an API server that runs elsewhere: `kubelet NODE ADDRESS STATE [--serve CERT KEY] IMAGE=PROGRAM…` with KUBECONFIG set. It
//! takes over the network namespace that it is started in, so start it in one of its own, as root of it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mizzen_node::{Image, Images, NodeConfig, Streams, helper_main, start};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const PORT: u16 = 10250;

fn main() -> anyhow::Result<std::process::ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("helper", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return Ok(helper_main(rest));
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Runtime::new()?.block_on(run(&arguments))?;
    Ok(std::process::ExitCode::SUCCESS)
}

async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [name, address, state, rest @ ..] = arguments else {
        anyhow::bail!("usage: kubelet NODE ADDRESS STATE IMAGE=PROGRAM…")
    };
    let (serve, rows) = match rest {
        [flag, certificate, key, rows @ ..] if flag == "--serve" => (Some((certificate, key)), rows),
        rows => (None, rows),
    };
    let images = Images::default();
    for row in rows {
        let (image, program) = row.split_once('=').context("IMAGE=PROGRAM")?;
        images.insert(
            image,
            Image {
                program: program.into(),
                ..Image::default()
            },
        );
    }
    let config = NodeConfig {
        name: name.clone(),
        version: "v1.33.0".to_owned(),
        address: address.parse()?,
        pods: "10.244.0.0/16".parse()?,
        services: "10.96.0.0/16".parse()?,
        load_balancers: "10.97.0.0/24".parse()?,
        domain: "cluster.local".to_owned(),
        bridge: "pods0".to_owned(),
        state: PathBuf::from(state),
        helper: vec!["/proc/self/exe".into(), "helper".into()],
        images,
        cgroup: std::env::var_os("CGROUP").map(PathBuf::from),
        kubelet_port: if serve.is_some() { PORT } else { 0 },
        outside: None,
    };
    let client = kube::Client::try_default().await?;
    let mut node = start(client, config).await?;
    println!("node {name} runs");
    if let Some((certificate, key)) = serve {
        let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?;
        let listener = tokio::net::TcpListener::bind((address.as_str(), PORT)).await?;
        tokio::spawn(accept(listener, Arc::new(tls).into(), node.streams()));
    }
    tokio::select! {
        () = node.failed() => anyhow::bail!("a task of the node has ended"),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: tokio_rustls::TlsAcceptor, streams: Streams) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, streams) = (tls.clone(), streams.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let streams = streams.clone();
                async move { Ok::<_, std::convert::Infallible>(streams.serve_kubelet(request).await) }
            });
            _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}
