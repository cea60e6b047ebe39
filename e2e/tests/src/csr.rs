//! A client of the running certificate authority that may be anybody: it shows what token it likes and asks for what name it
//! likes. `istio.v1.auth.IstioCertificateService/CreateCertificate`, through `kubectl port-forward`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic_prost::ProstCodec;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::cluster::{Cluster, Output};
use crate::scenario::Csr;

/// How long a connection or an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
const CONTROL_PLANE: &str = "istiod-basic.istio-system.svc";

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// The names in the certificate, one per line, or why there is none: `<gRPC code>: <message>`.
pub(crate) async fn ask(cluster: &Cluster, namespace: &str, asked: &Csr, name: Option<&str>) -> anyhow::Result<Output> {
    let token = token(cluster, namespace, asked).await?;
    let roots = [
        "get",
        "configmap",
        "-n",
        namespace,
        "istio-ca-root-cert",
        "-o",
        r"jsonpath={.data.root-cert\.pem}",
    ];
    let root = cluster.must(&roots).await?;
    let (_forwards, port) = forward().await?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(root))
        .domain_name(CONTROL_PLANE);
    let channel = Channel::from_shared(format!("https://127.0.0.1:{port}"))?
        .tls_config(tls)?
        .connect_timeout(LIMIT)
        .timeout(LIMIT)
        .connect()
        .await
        .context("the control plane at port 15012")?;
    let mut request = tonic::Request::new(CertificateRequest { csr: request(name)? });
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse()?);
    }
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
    let answer = client
        .unary::<_, CertificateResponse, _>(request, path, ProstCodec::default())
        .await;
    Ok(match answer {
        Ok(answer) => Output {
            success: true,
            text: names(&answer.into_inner())?,
        },
        Err(status) => Output {
            success: false,
            text: format!("{:?}: {}\n", status.code(), status.message()),
        },
    })
}

async fn token(cluster: &Cluster, namespace: &str, asked: &Csr) -> anyhow::Result<Option<String>> {
    const BOUND: &str = "revoked-token";
    let Some(account) = &asked.account else {
        return Ok(None);
    };
    let mut args = vec![
        "create",
        "token",
        account,
        "-n",
        namespace,
        "--audience",
        &asked.audience,
    ];
    if asked.revoked {
        cluster
            .must(&["create", "secret", "generic", BOUND, "-n", namespace])
            .await?;
        args.extend(["--bound-object-kind", "Secret", "--bound-object-name", BOUND]);
    }
    let token = cluster.must(&args).await;
    if asked.revoked {
        cluster.must(&["delete", "secret", BOUND, "-n", namespace]).await?;
    }
    Ok(Some(token?.trim().to_owned()))
}

/// The forwarding, which ends when it is dropped, and its port on this machine.
async fn forward() -> anyhow::Result<(Child, u16)> {
    let mut child = Command::new("kubectl")
        .args(["port-forward", "-n", "istio-system", "service/istiod-basic", ":15012"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run kubectl")?;
    let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let first = tokio::time::timeout(LIMIT, lines.next_line()).await;
    let line = first.context("kubectl port-forward says nothing")??.unwrap_or_default();
    let port = line
        .split(" -> ")
        .next()
        .and_then(|own| own.rsplit(':').next()?.parse().ok());
    let Some(port) = port else {
        bail!("kubectl port-forward: {line:?}");
    };
    // It goes on writing a line per connection, and must have where to.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, port))
}

fn request(name: Option<&str>) -> anyhow::Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = name {
        params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
    }
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

fn names(answer: &CertificateResponse) -> anyhow::Result<String> {
    let leaf = answer.cert_chain.first().context("an empty chain")?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.as_bytes())?;
    let (_, leaf) = X509Certificate::from_der(&pem.contents)?;
    let names = leaf.subject_alternative_name()?.context("no names")?;
    Ok(names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => format!("{uri}\n"),
            other => format!("{other:?}\n"),
        })
        .collect())
}
