//! A program and the channels of whoever talks to it, whatever carries them.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::termios::Winsize;
use tokio::sync::{broadcast, mpsc};

use crate::config::NodeConfig;
use crate::exec::{self, Running};
use crate::launch::LaunchError;
use crate::logs::{self, Stream};
use crate::pod::start::terminal_pair;

/// The numbers that WebSocket messages begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
}

impl Channel {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "stdin" => Some(Self::Stdin),
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            "error" => Some(Self::Error),
            "resize" => Some(Self::Resize),
            _ => None,
        }
    }

    pub(super) fn number(number: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr, Self::Error, Self::Resize]
            .get(usize::from(number))
            .copied()
    }
}

/// What a request asks for.
pub(super) struct Wanted {
    pub(super) config: NodeConfig,
    pub(super) running: Arc<Running>,
    /// Absent: attach to what runs.
    pub(super) command: Option<Vec<String>>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) terminal: bool,
}

impl Wanted {
    /// The channels that the other side opens.
    pub(super) fn channels(&self) -> Vec<Channel> {
        let mut all = vec![Channel::Error];
        all.extend(self.stdin.then_some(Channel::Stdin));
        all.extend(self.stdout.then_some(Channel::Stdout));
        all.extend((self.stderr && !self.terminal).then_some(Channel::Stderr));
        all.extend(self.terminal.then_some(Channel::Resize));
        all
    }
}

/// The transport's side: bytes of stdin and new sizes come in (an end of stdin closes it), bytes of the other channels go out.
pub(super) struct Ends {
    pub(super) stdin: mpsc::Receiver<Bytes>,
    pub(super) sizes: mpsc::Receiver<Bytes>,
    pub(super) out: mpsc::Sender<(Channel, Bytes)>,
}

/// Runs it to its end, or until the transport goes away; the last message is the status on the error channel.
pub(super) async fn run(wanted: Wanted, ends: Ends) {
    let out = ends.out.clone();
    let work = async {
        match wanted.command.clone() {
            Some(command) => exec(&wanted, command, ends).await,
            None => Ok(attach(&wanted, ends).await),
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = out.closed() => return,
    };
    let status = match result {
        Ok(0) => serde_json::json!({"metadata": {}, "status": "Success"}),
        Ok(code) => serde_json::json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        Err(error) => serde_json::json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("error executing command in container: {error}")}),
    };
    _ = out.send((Channel::Error, Bytes::from(status.to_string()))).await;
}

async fn exec(wanted: &Wanted, command: Vec<String>, ends: Ends) -> Result<i32, LaunchError> {
    let failed = |error: std::io::Error| LaunchError::Process(error.to_string());
    let (stdio, sources, input, terminal): (_, Vec<(Channel, OwnedFd)>, Option<OwnedFd>, Option<OwnedFd>);
    if wanted.terminal {
        let (outer, inner) = terminal_pair().map_err(|errno| failed(errno.into()))?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(failed);
        stdio = [copy(&inner)?.into(), copy(&inner)?.into(), inner.into()];
        sources = vec![(Channel::Stdout, copy(&outer)?)];
        input = wanted.stdin.then(|| copy(&outer)).transpose()?;
        terminal = Some(outer);
    } else {
        let (out_reader, out_writer) = std::io::pipe().map_err(failed)?;
        let (error_reader, error_writer) = std::io::pipe().map_err(failed)?;
        let mut stdin = Stdio::null();
        let mut writer = None;
        if wanted.stdin {
            let (reader, end) = std::io::pipe().map_err(failed)?;
            stdin = reader.into();
            writer = Some(end.into());
        }
        stdio = [stdin, out_writer.into(), error_writer.into()];
        sources = vec![
            (Channel::Stdout, out_reader.into()),
            (Channel::Stderr, error_reader.into()),
        ];
        (input, terminal) = (writer, None);
    }
    let process = exec::start(&wanted.config, &wanted.running, command, stdio, wanted.terminal).await?;
    let mut outputs = tokio::task::JoinSet::new();
    for (channel, source) in sources {
        let source = logs::nonblocking(source).map_err(failed)?;
        let out = ends.out.clone();
        outputs.spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            loop {
                let length = logs::read(&source, &mut buffer).await;
                let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                if length == 0 || out.send((channel, bytes)).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut others = tokio::task::JoinSet::new();
    if let Some(input) = input {
        let (input, mut stdin) = (logs::nonblocking(input).map_err(failed)?, ends.stdin);
        others.spawn(async move {
            while let Some(bytes) = stdin.recv().await {
                if logs::write(&input, &bytes).await.is_err() {
                    return;
                }
            }
        });
    }
    if let Some(terminal) = terminal {
        others.spawn(sizes(ends.sizes, terminal));
    }
    let exit = process.ended().await;
    // What it left running may hold its output open; it is not waited for.
    let rest = async { while outputs.join_next().await.is_some() {} };
    _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    Ok(exit.code)
}

async fn sizes(mut sizes: mpsc::Receiver<Bytes>, terminal: OwnedFd) {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    while let Some(bytes) = sizes.recv().await {
        if let Ok(size) = serde_json::from_slice::<Size>(&bytes) {
            let size = Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            _ = rustix::termios::tcsetwinsize(&terminal, size);
        }
    }
}

async fn attach(wanted: &Wanted, ends: Ends) -> i32 {
    let running = &wanted.running;
    let mut chunks = running.output.chunks.subscribe();
    let out = ends.out;
    let copy = async {
        loop {
            match chunks.recv().await {
                Ok((Stream::Out, bytes)) if wanted.stdout => _ = out.send((Channel::Stdout, bytes)).await,
                Ok((Stream::Error, bytes)) if wanted.stderr => _ = out.send((Channel::Stderr, bytes)).await,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    };
    let mut stdin = ends.stdin;
    let input = async {
        while let Some(bytes) = stdin.recv().await {
            if let Some(to) = &*running.stdin.lock().await {
                _ = logs::write(to, &bytes).await;
            }
        }
        if running.stdin_once && wanted.stdin {
            running.stdin.lock().await.take();
        }
        std::future::pending::<()>().await;
    };
    let resize = async {
        if let Some(terminal) = running.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()) {
            sizes(ends.sizes, terminal).await;
        }
        std::future::pending::<()>().await;
    };
    let over = async {
        running.process.ended().await;
        running.output.complete().await;
    };
    tokio::select! {
        () = copy => {}
        () = input => {}
        () = resize => {}
        () = over => {}
    }
    0
}
