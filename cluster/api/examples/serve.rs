//! Serves the API alone: `cargo run -p mizzen-api --example serve -- ADDRESS KUBECONFIG [STATE]` writes a kubeconfig and serves until
//! interrupted. Without a state folder everything is in memory.

#![expect(clippy::print_stderr, reason = "a program on its own")]

use mizzen_api::{Api, Options};
use std::error::Error;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(kubeconfig)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve ADDRESS KUBECONFIG [STATE]".into());
    };
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let state = arguments.next().map(Into::into);
    let api = Api::open(Options {
        state,
        advertise: Some(address),
        ..Options::default()
    })
    .await?;
    std::fs::write(&kubeconfig, api.kubeconfig("local", &format!("https://{address}"))?)?;
    eprintln!("serving on https://{address}");
    api.serve(listener, async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await?;
    Ok(())
}
