//! A TCP service that answers each line with its own name in front, and the client for it.

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// To where, and what.
#[derive(clap::Args)]
pub struct ClientArgs {
    /// host:port
    address: String,
    /// The line to send
    #[arg(default_value = "hello")]
    line: String,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 5.0)]
    timeout: f64,
}

pub(crate) async fn run_client(args: ClientArgs) -> anyhow::Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(&args.address)
            .await
            .with_context(|| format!("cannot connect to {}", args.address))?;
        stream.write_all(format!("{}\n", args.line).as_bytes()).await?;
        let mut answer = String::new();
        let read = BufReader::new(stream).read_line(&mut answer).await?;
        anyhow::ensure!(read > 0, "the connection was closed without an answer");
        print!("{answer}");
        Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs_f64(args.timeout), exchange)
        .await
        .context("no answer in time")?
}

/// Serves until the listener fails; each connection ends when its client closes it.
pub(crate) async fn serve(listener: TcpListener, name: String) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let name = name.clone();
        tokio::spawn(async move {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if write.write_all(format!("{name} {line}\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        });
    }
}
