//! The inner process: the first of its namespaces. It is told all on its command line, brings everything up, says so, and ends in order
//! when it is asked to.

use super::apps::{self, App};
use super::handover::HostNetwork;
use super::images::{REGISTRY, TAG, Table, Users};
use super::inside::Inside;
use super::state::{Record, State, write_private};
use super::{gateway, namespaces};
use crate::failure::Failure;
use crate::install::{self, progress::Progress};
use crate::output;
use rustix::fd::{FromRawFd as _, OwnedFd, RawFd};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// The mesh that is made.
pub(super) const MESH_NAMESPACE: &str = "istio-system";

/// What the inner process is told. Numbers are descriptors that it inherits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(super) name: String,
    pub(super) state: PathBuf,
    pub(super) record: Record,
    pub(super) images: Table,
    pub(super) apps: Vec<App>,
    pub(super) profile: Vec<String>,
    pub(super) sample: bool,
    pub(super) background: bool,
    pub(super) descriptors: Descriptors<RawFd>,
}

/// What is inherited.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Descriptors<D> {
    /// Where the API is reached from outside.
    pub(super) api: D,
    /// Where the gateway is reached from outside.
    pub(super) gateway: D,
    /// Brings sockets of the machine's network.
    pub(super) control: D,
    /// Says when to stop.
    pub(super) stop: D,
    /// Keeps others from the state folder.
    pub(super) lock: D,
}

impl Descriptors<RawFd> {
    fn take(&self) -> rustix::io::Result<Descriptors<OwnedFd>> {
        let own = |number: RawFd| {
            #[expect(unsafe_code, reason = "descriptors are inherited by their numbers")]
            // SAFETY: the process that started this one handed each over once, for this.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            // Pods do not inherit them again.
            fcntl_setfd(&descriptor, FdFlags::CLOEXEC).map(|()| descriptor)
        };
        Ok(Descriptors {
            api: own(self.api)?,
            gateway: own(self.gateway)?,
            control: own(self.control)?,
            stop: own(self.stop)?,
            lock: own(self.lock)?,
        })
    }
}

/// Runs as the first process of new namespaces.
pub(crate) fn run(told: &str) -> anyhow::Result<ExitCode> {
    let machine: Machine = serde_json::from_str(told)?;
    let descriptors = machine.descriptors.take()?;
    namespaces::settle()?;
    start_log(&machine.state)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(machine.live(descriptors))
}

/// What is not for the user goes to `log` in the state folder.
fn start_log(folder: &std::path::Path) -> anyhow::Result<()> {
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.join("log"))?;
    crate::start_logging_to("info,kube_client=warn,hyper=warn", log);
    Ok(())
}

impl Machine {
    async fn live(self, descriptors: Descriptors<OwnedFd>) -> anyhow::Result<ExitCode> {
        let Descriptors {
            api,
            gateway,
            control,
            stop,
            lock,
        } = descriptors;
        let listener = |descriptor| tokio::net::TcpListener::from_std(std::net::TcpListener::from(descriptor));
        let (api, gateway) = (listener(api)?, listener(gateway)?);
        rustix::io::ioctl_fionbio(&stop, true)?;
        let mut stop = pipe::Receiver::from_owned_fd(stop)?;
        let mut progress = Progress::new(install::progress::Output::Text);
        let host = HostNetwork::new(control.into());
        // Whoever holds the other end and goes has asked, too.
        let asked = async move { stop.read_u8().await.is_ok() };
        tokio::pin!(asked);
        let mut inside = None;
        let outcome = tokio::select! {
            outcome = self.bring_up(&mut inside, api, gateway, host.clone(), &mut progress) => Some(outcome),
            _ = &mut asked => None,
        };
        let code = match outcome {
            Some(Ok(())) => {
                progress.end(Ok(()));
                output::line(&self.instructions());
                if self.background {
                    super::detach::let_go(&self.state());
                }
                host.ready()?;
                let broken = async {
                    match &mut inside {
                        Some(inside) => inside.broken().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = &mut asked => ExitCode::SUCCESS,
                    what = broken => {
                        eprintln!("error: {what}; see {}", self.state.join("log").display());
                        ExitCode::FAILURE
                    }
                }
            }
            Some(Err(failure)) => progress.end(Err(failure)),
            // Ctrl-C during the start is a wish that is granted.
            None => ExitCode::SUCCESS,
        };
        if let Some(inside) = inside {
            inside.stop().await;
        }
        drop(lock);
        Ok(code)
    }

    async fn bring_up(
        &self,
        inside: &mut Option<Inside>,
        api: tokio::net::TcpListener,
        gateway: tokio::net::TcpListener,
        host: HostNetwork,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        progress.start("cluster");
        let started = inside.insert(Inside::start(&self.state, api, self.images.images(Users::here()), host).await?);
        let client = started.client.clone();
        started.tasks.spawn(gateway::serve(gateway, client.clone()));
        let kubeconfig = self.state.join("kubeconfig");
        let text = started.kubeconfig(&format!("mizzen-{}", self.name), &self.record.api)?;
        write_private(&kubeconfig, text.as_bytes()).map_err(|error| {
            let what = format!("{} cannot be written", kubeconfig.display());
            Failure::new(what, error.to_string(), "make room, or make the folder writable")
        })?;
        started.run_pods().await?;
        progress.done(
            &format!("API {} · kubeconfig {}", self.record.api, kubeconfig.display()),
            "",
        );
        let sample = self.sample.then(|| "tutorial".to_owned());
        let args = install::Args::for_machine(self.profile.clone(), sample, REGISTRY, TAG);
        install::into(client.clone(), &args, Some(&self.record.gateway), progress).await?;
        for app in &self.apps {
            apps::install(app, client.clone(), progress).await?;
        }
        Ok(())
    }

    fn state(&self) -> State {
        State {
            name: self.name.clone(),
            folder: self.state.clone(),
        }
    }

    fn instructions(&self) -> String {
        let flag = self.state().flag();
        let mut text = "\nTry:\n".to_owned();
        let mut add = |line: &str| {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        };
        if self.sample {
            add(&format!("curl {}/", self.record.gateway));
        }
        add(&format!(
            "export KUBECONFIG={}",
            self.state.join("kubeconfig").display()
        ));
        add("kubectl get smcp,smmr,pods -A");
        if self.sample {
            add("cd e2e/scenarios/canary && kubectl apply -n tutorial -f destination-rule.yaml -f 90-10.yaml");
        }
        if let Some(why) = self.images.without_envoy(Users::here()) {
            text.push_str(why);
            text.push('\n');
        }
        if self.background {
            text.push_str(&format!("Stop with `mizzen down{flag}`."));
        } else {
            text.push_str(&format!(
                "Stop with Ctrl-C, or `mizzen down{flag}` from another terminal."
            ));
        }
        text
    }
}
