//! Starting one container: image, rights, environment and files come together in an order; a process comes back.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::env::{Place, Sources, environment, expand};
use super::{security, volumes};
use crate::cgroups;
use crate::config::Image;
use crate::exec::Running;
use crate::launch::{Ids, Launch, launch};
use crate::logs::{self, Stream};
use crate::node::Node;
use crate::order::{Bind, Order, Root, View};
use crate::sandbox::Namespaces;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its configuration cannot be resolved: tried again, as it may come true.
    #[error("{0}")]
    Config(String),
    /// The program cannot be run: counts as an end with code 128.
    #[error("{0}")]
    Run(String),
}

/// What a container is started with.
pub(crate) struct Start<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) image: Image,
    pub(crate) attempt: i32,
    pub(crate) sources: &'a Sources,
    pub(crate) place: &'a Place,
    /// The pod's own folder.
    pub(crate) folder: &'a Path,
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
    pub(crate) namespaces: Option<Arc<Namespaces>>,
}

/// The folder of a container's logs and scratch space.
pub(crate) fn folder(pod: &Path, container: &str) -> PathBuf {
    pod.join("containers").join(container)
}

/// Where a container leaves its last words.
pub(crate) fn last_words(pod: &Path, container: &str) -> PathBuf {
    folder(pod, container).join("termination-log")
}

impl Start<'_> {
    /// Starts it.
    pub(crate) async fn run(self) -> Result<Running, StartError> {
        let Self {
            node,
            pod,
            container,
            attempt,
            ..
        } = &self;
        let own = folder(self.folder, &container.name);
        let order = self.order(&own)?;
        let cgroup = self.cgroup();
        let failed = |error: std::io::Error| StartError::Run(format!("preparing the container: {error}"));
        let mut terminal = None;
        let mut stdin = None;
        let (stdio, sources) = if container.tty == Some(true) {
            let (outer, inner) = terminal_pair().map_err(|errno| failed(errno.into()))?;
            let copy = || inner.try_clone().map(Stdio::from);
            let stdio = [
                copy().map_err(failed)?,
                copy().map_err(failed)?,
                copy().map_err(failed)?,
            ];
            let source = outer.try_clone().map_err(failed)?;
            if container.stdin == Some(true) {
                stdin = Some(logs::nonblocking(outer.try_clone().map_err(failed)?).map_err(failed)?);
            }
            terminal = Some(outer);
            (stdio, vec![(Stream::Out, source)])
        } else {
            let (out_reader, out_writer) = std::io::pipe().map_err(failed)?;
            let (error_reader, error_writer) = std::io::pipe().map_err(failed)?;
            let input = if container.stdin == Some(true) {
                let (reader, writer) = std::io::pipe().map_err(failed)?;
                stdin = Some(logs::nonblocking(writer.into()).map_err(failed)?);
                reader.into()
            } else {
                Stdio::null()
            };
            let sources = vec![
                (Stream::Out, OwnedFd::from(out_reader)),
                (Stream::Error, error_reader.into()),
            ];
            ([input, out_writer.into(), error_writer.into()], sources)
        };
        let output = logs::capture(logs::path(&own, *attempt), sources).map_err(failed)?;
        let launched = Launch {
            order: order.clone(),
            ids: Ids::New,
            namespaces: self.namespaces.clone(),
            stdio,
            cgroup: cgroup.clone(),
        };
        let process = launch(&node.config, launched).await.map_err(|error| {
            if let Some(cgroup) = &cgroup {
                cgroups::remove(cgroup.clone());
            }
            StartError::Run(error.to_string())
        })?;
        let unique = format!(
            "{}/{}/{attempt}/{}",
            pod.uid().unwrap_or_default(),
            container.name,
            process.pid
        );
        let id = format!(
            "process://{}",
            Sha256::digest(unique)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        );
        Ok(Running {
            id,
            attempt: *attempt,
            process: Arc::new(process),
            output,
            order,
            namespaces: self.namespaces.clone(),
            stdin: stdin.into(),
            stdin_once: container.stdin_once == Some(true),
            terminal,
            cgroup,
        })
    }

    fn order(&self, own: &Path) -> Result<Order, StartError> {
        let Self {
            node,
            pod,
            container,
            image,
            ..
        } = self;
        let user = security::user(pod, container, image).map_err(StartError::Config)?;
        let services = node.stores.services();
        let mut env =
            environment(pod, container, &image.env, self.sources, &services, self.place).map_err(StartError::Config)?;
        let hostname = hostname(pod);
        let home = if user.uid == 0 { "/root" } else { "/" };
        for (name, value) in [("PATH", PATH), ("HOSTNAME", hostname.as_str()), ("HOME", home)] {
            env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        if container.tty == Some(true) {
            env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        let known = |name: &str| env.get(name).cloned();
        let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
            words.iter().flatten().map(|word| expand(word, known)).collect()
        };
        let in_view = image
            .program
            .file_name()
            .map(|name| Path::new("/usr/local/bin").join(name));
        let (mut command, fallback) = match expanded(&container.command) {
            said if !said.is_empty() => (said, None),
            _ => {
                let program = image.program.to_string_lossy().into_owned();
                (
                    std::iter::once(program).chain(image.args.iter().cloned()).collect(),
                    in_view.clone(),
                )
            }
        };
        command.extend(expanded(&container.args));
        let directory = container
            .working_dir
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".to_owned());
        let security = container.security_context.clone().unwrap_or_default();
        let view = View {
            scratch: make(&own.join("view"), 0o755)?,
            hidden: vec![node.config.state.clone()],
            binds: self.binds(own, in_view, &env)?,
            read_only: security.read_only_root_filesystem == Some(true),
        };
        Ok(Order {
            root: Root::New(view),
            command,
            fallback,
            directory: directory.into(),
            env,
            user,
            terminal: container.tty == Some(true),
        })
    }

    fn binds(
        &self,
        own: &Path,
        program: Option<PathBuf>,
        env: &BTreeMap<String, String>,
    ) -> Result<Vec<Bind>, StartError> {
        let mut binds = Vec::new();
        let mut bind = |source: PathBuf, target: &Path, read_only: bool| {
            binds.push(Bind {
                source,
                target: target.to_owned(),
                read_only,
            });
        };
        if let Some(target) = program {
            if !self.image.program.exists() {
                let program = self.image.program.display();
                return Err(StartError::Run(format!(
                    "the image stands for the program {program}, which does not exist"
                )));
            }
            bind(self.image.program.clone(), &target, true);
        }
        for (target, source) in &self.image.files {
            bind(source.clone(), target, true);
        }
        bind(make(&own.join("tmp"), 0o1777)?, Path::new("/tmp"), false);
        bind(make(&own.join("var-tmp"), 0o1777)?, Path::new("/var/tmp"), false);
        for name in ["hosts", "hostname", "resolv.conf"] {
            bind(self.folder.join("etc").join(name), &Path::new("/etc").join(name), false);
        }
        let words = last_words(self.folder, &self.container.name);
        std::fs::write(&words, []).map_err(|error| StartError::Run(format!("{}: {error}", words.display())))?;
        _ = std::fs::set_permissions(&words, std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let target = self
            .container
            .termination_message_path
            .as_deref()
            .unwrap_or("/dev/termination-log");
        bind(words, Path::new(target), false);
        let mut mounts: Vec<_> = self.container.volume_mounts.iter().flatten().collect();
        mounts.sort_by_key(|mount| Path::new(&mount.mount_path).components().count());
        for mount in mounts {
            let volume = self.volumes.get(&mount.name).ok_or_else(|| {
                StartError::Config(format!(
                    "volume {:?} of the container does not exist in the pod",
                    mount.name
                ))
            })?;
            let sub = match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) => path.clone(),
                (_, Some(path)) => expand(path, |name| env.get(name).cloned()),
                _ => String::new(),
            };
            let source = match sub.as_str() {
                "" => volume.clone(),
                sub => volumes::sub_path(volume, sub).map_err(StartError::Config)?,
            };
            let read_only = mount.read_only == Some(true) || self.is_made_of_objects(&mount.name);
            bind(source, Path::new(&mount.mount_path), read_only);
        }
        Ok(binds)
    }

    /// Programs may not write to what the node writes.
    fn is_made_of_objects(&self, volume: &str) -> bool {
        let volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.filter(|found| found.name == volume).any(|found| {
            found.config_map.is_some()
                || found.secret.is_some()
                || found.projected.is_some()
                || found.downward_api.is_some()
        })
    }

    /// A control group with the container's limits, where the machine lets us have one.
    fn cgroup(&self) -> Option<PathBuf> {
        let parent = self.node.config.cgroup.as_ref()?;
        let name = format!("{}-{}-{}", self.pod.uid()?, self.container.name, self.attempt);
        cgroups::create(parent.join(name), &self.container.resources.clone().unwrap_or_default())
    }
}

fn make(folder: &Path, mode: u32) -> Result<PathBuf, StartError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(mode)))
        .map_err(|error| StartError::Run(format!("{}: {error}", folder.display())))?;
    Ok(folder.to_owned())
}

/// A pod's host name: what it says, or its name as far as a host name is long.
pub(crate) fn hostname(pod: &Pod) -> String {
    let said = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let name = said.unwrap_or_else(|| pod.name_any());
    name.get(..name.len().min(63))
        .unwrap_or(&name)
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// Both sides of a new terminal: the outer one is read and written here.
pub(crate) fn terminal_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&outer)?;
    unlockpt(&outer)?;
    let name = ptsname(&outer, Vec::new())?;
    use rustix::fs::{Mode, OFlags, open};
    let inner = open(
        name.as_c_str(),
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok((outer, inner))
}
