//! Ending containers gracefully: the hook, SIGTERM, patience, SIGKILL; sidecars after the others.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use rustix::process::Signal;
use tokio::time::Instant;

use super::state::Kind;
use crate::exec;
use crate::probe::{self, Target};

/// Kubelet gives every container at least this long.
const LEAST: Duration = Duration::from_secs(2);

/// Runs a hook; an error is told as kubelet tells it.
pub(crate) async fn hook(target: &Target, handler: &LifecycleHandler, limit: Duration) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        return match exec::run(&target.config, &target.running, command.clone(), limit).await {
            Ok(Some((0, _))) => Ok(()),
            Ok(Some((code, output))) => Err(format!("command '{}' exited with {code}: {output}", command.join(" "))),
            Ok(None) => Err(format!("command '{}' did not end in time", command.join(" "))),
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &handler.http_get {
        return probe::http(action, &target.container, target.address, limit)
            .await
            .map(|_| ());
    }
    if let Some(action) = &handler.sleep {
        let pause = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        tokio::time::sleep(pause.min(limit)).await;
    }
    Ok(())
}

/// Ends one container within `grace`.
pub(crate) async fn stop(target: &Target, grace: Duration) {
    let until = Instant::now() + grace;
    let lifecycle = target.container.lifecycle.as_ref();
    let process = &target.running.process;
    if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        && !grace.is_zero()
    {
        tokio::select! {
            done = tokio::time::timeout_at(until, hook(target, handler, grace)) => {
                if let Ok(Err(error)) = done {
                    let message = format!("PreStopHook failed: {error}");
                    target.recorder.tell(&target.pod, Some(target.field.clone()), true, "FailedPreStopHook", message);
                }
            }
            _ = process.ended() => {}
        }
    }
    process.signal(signal(lifecycle.and_then(|lifecycle| lifecycle.stop_signal.as_deref())));
    let patience = until.max(Instant::now() + LEAST.min(grace));
    if tokio::time::timeout_at(patience, process.ended()).await.is_err() {
        process.signal(Signal::KILL);
        process.ended().await;
    }
}

fn signal(name: Option<&str>) -> Signal {
    match name {
        Some("SIGINT") => Signal::INT,
        Some("SIGQUIT") => Signal::QUIT,
        Some("SIGHUP") => Signal::HUP,
        Some("SIGUSR1") => Signal::USR1,
        Some("SIGUSR2") => Signal::USR2,
        Some("SIGKILL") => Signal::KILL,
        _ => Signal::TERM,
    }
}

/// Ends a pod's containers: sidecars wait until the others have ended, then end one after the other, the last first.
pub(crate) async fn stop_all(running: Vec<(Kind, Target)>, grace: Duration) {
    let until = Instant::now() + grace;
    let (sidecars, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|(kind, _)| *kind == Kind::Sidecar);
    join_all(others.iter().map(|(_, target)| stop(target, grace))).await;
    for (_, target) in sidecars.iter().rev() {
        stop(
            target,
            until.saturating_duration_since(Instant::now()).max(LEAST.min(grace)),
        )
        .await;
    }
}

/// What is needed to say that a container is about to end.
pub(crate) fn tell(target: &Target, message: String) {
    target
        .recorder
        .tell(&target.pod, Some(target.field.clone()), false, "Killing", message);
}

/// The name of a container in its pod's object.
pub(crate) fn field(kind: Kind, container: &Container) -> String {
    match kind {
        Kind::Main => format!("spec.containers{{{}}}", container.name),
        _ => format!("spec.initContainers{{{}}}", container.name),
    }
}

/// Ends all at once.
pub(crate) async fn kill(running: &[Arc<exec::Running>]) {
    for running in running {
        running.process.signal(Signal::KILL);
    }
    join_all(running.iter().map(|running| running.process.ended())).await;
}
