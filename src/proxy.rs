//! The sidecar's program and the sample's, inside this one: images of `mizzen up` are programs of this machine, and one is enough.

pub(crate) use mizzen_app::Command as Sample;
pub(crate) use mizzen_proxy::command::Command as Sidecar;
use std::process::ExitCode;

/// Runs in the role of `mizzen-proxy`.
pub(crate) fn sidecar(command: Sidecar) -> anyhow::Result<ExitCode> {
    mizzen_proxy::command::run(command)
}

/// Runs in the role of `mizzen-app`.
pub(crate) fn sample(command: Sample) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(mizzen_app::run(command))?;
    Ok(ExitCode::SUCCESS)
}
