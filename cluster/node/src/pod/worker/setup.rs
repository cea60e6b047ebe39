//! What a pod needs around its containers: volumes, a sandbox, the files under `/etc`; and taking it away again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use super::{FIRST_RETRY, Worker, since};
use crate::node::Live;
use crate::pod::env::Sources;
use crate::pod::start::hostname;
use crate::pod::volumes::{self, Tokens};
use crate::sandbox;
use crate::services::Protocol;

impl Worker {
    /// Volumes, then the sandbox; an error is an event's reason and message.
    pub(super) async fn set_up(&mut self) -> Result<(), (&'static str, String)> {
        self.mount().await?;
        if self.facts.address.is_none() {
            let (address, namespaces) = if self.host_network() {
                (self.node.config.address, None)
            } else {
                let failed = |error: &dyn std::fmt::Display| {
                    (
                        "FailedCreatePodSandBox",
                        format!("Failed to create pod sandbox: {error}"),
                    )
                };
                let address = self.node.allocate().map_err(|error| failed(&error))?;
                self.own_address = Some(address);
                let security = self
                    .pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.security_context.clone())
                    .unwrap_or_default();
                let sysctls = security
                    .sysctls
                    .into_iter()
                    .flatten()
                    .map(|one| (one.name, one.value))
                    .collect();
                let made = sandbox::create(&self.node.config, hostname(&self.pod), address, sysctls).await;
                let made = made.map_err(|error| {
                    self.node.release(address);
                    failed(&error)
                })?;
                self.publish_host_ports(address);
                (address, Some(made))
            };
            self.write_etc(address)
                .map_err(|error| ("FailedCreatePodSandBox", error.to_string()))?;
            self.facts.address = Some(address);
            self.namespaces = namespaces;
            if let Some(live) = self.live_entry() {
                live.namespaces.lock().clone_from(&self.namespaces);
            }
        }
        self.retry = FIRST_RETRY;
        Ok(())
    }

    pub(super) fn enlist(&self) {
        let key = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let live = Live {
            uid: self.pod.uid().unwrap_or_default(),
            folder: self.folder.clone(),
            namespaces: parking_lot::Mutex::default(),
            waiting: parking_lot::Mutex::default(),
            names: self.containers.iter().map(|c| (c.kind, c.spec.name.clone())).collect(),
            containers: parking_lot::Mutex::default(),
        };
        self.node.registry.lock().insert(key, Arc::new(live));
    }

    pub(super) async fn mount(&mut self) -> Result<(), (&'static str, String)> {
        let told = |name: &str, error: &dyn std::fmt::Display| {
            (
                "FailedMount",
                format!("MountVolume.SetUp failed for volume {name:?} : {error}"),
            )
        };
        let sources = Sources::fetch(&self.node.client, &self.pod).await;
        self.sources = sources.map_err(|error| ("FailedMount", format!("reading config maps and secrets: {error}")))?;
        let spec = self.pod.spec.clone().unwrap_or_default();
        let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
        let group = group.and_then(|group| u32::try_from(group).ok());
        let mut mounted = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            let sources = volume
                .projected
                .iter()
                .flat_map(|projected| projected.sources.iter().flatten());
            for token in sources.filter_map(|source| source.service_account_token.clone()) {
                let key = (volume.name.clone(), token.path.clone());
                if self
                    .tokens
                    .get(&key)
                    .is_none_or(|(_, until)| *until <= Timestamp::now())
                {
                    let seconds = token.expiration_seconds.unwrap_or(3600);
                    let issued = self.token(token.audience, seconds).await;
                    self.tokens
                        .insert(key, issued.map_err(|error| told(&volume.name, &error))?);
                }
            }
            let tokens: Tokens = self
                .tokens
                .iter()
                .map(|(key, (token, _))| (key.clone(), token.clone()))
                .collect();
            let content = volumes::content(volume, &self.pod, &self.sources, &tokens, &self.place());
            let folder = self.folder.join("volumes").join(&volume.name);
            let ready = content.and_then(|content| volumes::set_up(&folder, &content, group));
            mounted.insert(volume.name.clone(), ready.map_err(|error| told(&volume.name, &error))?);
        }
        self.volumes = Some(mounted);
        Ok(())
    }

    /// A token for the pod's service account, and when to ask for the next: after 80 % of its life.
    pub(super) async fn token(&self, audience: Option<String>, seconds: i64) -> Result<(String, Timestamp), String> {
        let account = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.into_iter().collect(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(self.pod.name_any()),
                    uid: self.pod.uid(),
                }),
                expiration_seconds: Some(seconds),
            },
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> =
            Api::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let issued = api
            .create_token_request(&account, &PostParams::default(), &request)
            .await;
        let status = issued
            .map_err(|error| format!("failed to fetch token: {error}"))?
            .status;
        let status = status.ok_or("failed to fetch token: the answer has none")?;
        let now = Timestamp::now();
        Ok((
            status.token,
            now + since(now, status.expiration_timestamp.0).mul_f64(0.8),
        ))
    }

    pub(super) async fn refresh(&mut self) {
        if self.volumes.is_some()
            && let Err((reason, message)) = self.mount().await
        {
            self.tell(None, true, reason, message);
        }
    }

    pub(super) fn write_etc(&self, address: Ipv4Addr) -> std::io::Result<()> {
        let folder = self.folder.join("etc");
        std::fs::create_dir_all(&folder)?;
        let spec = self.pod.spec.clone().unwrap_or_default();
        let name = hostname(&self.pod);
        let (namespace, domain) = (self.pod.namespace().unwrap_or_default(), &self.node.config.domain);
        let names = match &spec.subdomain {
            Some(subdomain) => format!("{name}.{subdomain}.{namespace}.svc.{domain}\t{name}"),
            None => name.clone(),
        };
        let mut hosts = format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{names}\n"
        );
        for alias in spec.host_aliases.iter().flatten() {
            hosts.push_str(&format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.clone().unwrap_or_default().join("\t")
            ));
        }
        std::fs::write(folder.join("hosts"), hosts)?;
        std::fs::write(folder.join("hostname"), format!("{name}\n"))?;
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
        if policy != "None" {
            servers.push(self.node.config.gateway().to_string());
        }
        if policy.starts_with("ClusterFirst") {
            search = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            options.push("ndots:5".to_owned());
        }
        let more = spec.dns_config.unwrap_or_default();
        servers.extend(more.nameservers.unwrap_or_default());
        search.extend(more.searches.unwrap_or_default());
        for option in more.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            options.retain(|known| known.split(':').next() != Some(name.as_str()));
            options.push(
                option
                    .value
                    .map_or_else(|| name.clone(), |value| format!("{name}:{value}")),
            );
        }
        let mut text = String::new();
        if !search.is_empty() {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        servers
            .iter()
            .for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        std::fs::write(folder.join("resolv.conf"), text)
    }

    pub(super) fn publish_host_ports(&self, address: Ipv4Addr) {
        let ports = self
            .containers
            .iter()
            .flat_map(|container| container.spec.ports.iter().flatten());
        let mut all = self.node.stores.host_ports.lock();
        let mut changed = false;
        for port in ports {
            let number = port
                .host_port
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| *number > 0);
            let inner = u16::try_from(port.container_port).ok();
            if let (Some(number), Some(inner), Some(protocol)) =
                (number, inner, Protocol::parse(port.protocol.as_deref()))
            {
                all.insert((protocol, number), SocketAddrV4::new(address, inner));
                changed = true;
            }
        }
        drop(all);
        if changed {
            self.node.stores.touch();
        }
    }

    pub(super) fn drop_network(&mut self) {
        self.namespaces = None;
        if let Some(live) = self.live_entry() {
            *live.namespaces.lock() = None;
            live.containers.lock().clear();
        }
        if let Some(address) = self.own_address.take() {
            let mut ports = self.node.stores.host_ports.lock();
            let before = ports.len();
            ports.retain(|_, backend| *backend.ip() != address);
            let changed = ports.len() != before;
            drop(ports);
            if changed {
                self.node.stores.touch();
            }
            sandbox::remove(address);
            self.node.release(address);
        }
    }

    pub(super) fn clean_up(&mut self) {
        self.drop_network();
        let key = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let mut registry = self.node.registry.lock();
        if registry
            .get(&key)
            .is_some_and(|live| Some(&live.uid) == self.pod.uid().as_ref())
        {
            registry.remove(&key);
        }
        drop(registry);
        crate::node::remove_pod_folder(&self.folder);
    }
}
