//! Runs the controllers against the cluster of the current kubeconfig, which should have none of its own:
//! `cargo run -p mizzen-controllers --example controllers`. Ends on Ctrl-C.

use kube::{Client, Config};
use mizzen_controllers::{Options, run};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let debug = tracing_subscriber::filter::Targets::new().with_target("mizzen_controllers", tracing::Level::DEBUG);
    use tracing_subscriber::layer::SubscriberExt as _;
    let layers = tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer())
        .with(debug);
    tracing::subscriber::set_global_default(layers)?;
    let config = Config::infer().await?;
    let certificates = config.root_cert.clone().unwrap_or_default();
    let pem = pem(&certificates);
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        end.cancel();
    });
    run(
        Client::try_from(config)?,
        Options {
            root_ca: pem,
            schedule: true,
        },
        shutdown,
    )
    .await;
    Ok(())
}

fn pem(certificates: &[Vec<u8>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in certificates {
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
