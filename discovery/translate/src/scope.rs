//! Who asks.

use std::fmt::Write as _;
use std::sync::Arc;

use mizzen_model::{Mesh, ObjectKey, SpiffeId, Workload};

use crate::name::{ClusterName, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND};
use crate::resource::TypeUrl;
use crate::view::View;

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// It stands beside an application.
    Sidecar,
    /// It stands at the edge.
    Gateway,
}

/// Why a caller is not the workload that it says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Its identity is not the one that the workload has.
    #[error("{caller} is not the identity of {workload}: a proxy gets the configuration of its own workload only")]
    Identity {
        /// Who called.
        caller: SpiffeId,
        /// The workload that it asked for.
        workload: ObjectKey,
    },
    /// It says that it is something else than its pod is.
    #[error(
        "{workload} is no {}: a gateway is a pod of a single container istio-proxy with the arguments proxy router, and nothing else is one",
        if *claimed == NodeKind::Gateway { "gateway" } else { "sidecar" }
    )]
    Kind {
        /// The workload.
        workload: ObjectKey,
        /// What it says it is.
        claimed: NodeKind,
    },
}

/// A proxy: its workload, what it is for, and how it takes its configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    workload: ObjectKey,
    kind: NodeKind,
    on_demand: bool,
    native: bool,
}

impl Scope {
    /// The scope of a proxy that proved an identity and stands in that workload. `on_demand`: it asks for virtual hosts
    /// when traffic needs them, instead of taking whole route configurations.
    ///
    /// # Errors
    /// When the workload has another identity, or is of another kind.
    pub fn new(caller: &SpiffeId, workload: &Workload, kind: NodeKind, on_demand: bool) -> Result<Self, ScopeError> {
        let key = workload.key.clone();
        if *caller.namespace() != key.namespace || *caller.service_account() != workload.service_account {
            return Err(ScopeError::Identity {
                caller: caller.clone(),
                workload: key,
            });
        }
        if workload.gateway != (kind == NodeKind::Gateway) {
            return Err(ScopeError::Kind {
                workload: key,
                claimed: kind,
            });
        }
        Ok(Self {
            workload: key,
            kind,
            on_demand,
            native: on_demand,
        })
    }

    /// The same for the native proxy, which counts its own metrics and needs no loggers for that. (Who asks on demand is one.)
    #[must_use]
    pub fn for_native(self) -> Self {
        Self { native: true, ..self }
    }

    /// The workload.
    #[must_use]
    pub fn workload(&self) -> &ObjectKey {
        &self.workload
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> NodeKind {
        self.kind
    }

    /// Whether it asks for virtual hosts on demand.
    #[must_use]
    pub fn on_demand(&self) -> bool {
        self.on_demand
    }

    /// Whether it is the native proxy.
    #[must_use]
    pub fn native(&self) -> bool {
        self.native
    }

    /// By what it shares resources with other proxies in that mesh: ask again when the mesh has changed.
    #[must_use]
    pub fn shared_keys(&self, mesh: &Mesh) -> SharedKeys {
        let view = View::new(mesh, self);
        let plane = if self.native { "native" } else { "envoy" };
        let (own, seen, kind) = (self.own(&view), self.seen(&view), format!("{:?}", self.kind));
        let of_plane = |key: &str| Arc::from(format!("{key} {plane}"));
        SharedKeys {
            kind: self.kind,
            own_listener: of_plane(&own),
            seen_listener: of_plane(&seen),
            any_listener: of_plane(&kind),
            route: match (self.kind, self.on_demand) {
                (NodeKind::Gateway, _) => Arc::from(own.as_str()),
                (NodeKind::Sidecar, true) => Arc::from(format!("on demand {seen}")),
                (NodeKind::Sidecar, false) => Arc::from(seen.as_str()),
            },
            own: Arc::from(own),
            seen: Arc::from(seen),
            all: Arc::from("all"),
        }
    }

    /// What decides about outbound traffic.
    fn seen(&self, view: &View<'_>) -> String {
        let labels = view.mesh.deciding_labels(view.labels());
        format!("{:?} {} {labels:?}", self.kind, self.workload.namespace)
    }

    /// What decides about the workload's own listeners: replicas of one workload agree in it.
    fn own(&self, view: &View<'_>) -> String {
        let mut key = format!("{:?} {}", self.kind, self.workload.namespace);
        if let Some(workload) = view.workload {
            // writing to a String cannot fail
            let _ = write!(
                key,
                " {} {:?} {:?}",
                workload.service_account, workload.labels, workload.services
            );
        }
        key
    }
}

/// The keys of one proxy in one mesh, worked out once: there are thousands of resources, and few ways to share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedKeys {
    kind: NodeKind,
    own: Arc<str>,
    seen: Arc<str>,
    /// Envoy's listeners hold loggers.
    own_listener: Arc<str>,
    seen_listener: Arc<str>,
    any_listener: Arc<str>,
    route: Arc<str>,
    all: Arc<str>,
}

impl SharedKeys {
    /// A key such that two proxies for which it is the same get the same bytes for that name (and names, for the name
    /// `*`, stand for the list of a type).
    #[must_use]
    pub fn of(&self, mesh: &Mesh, type_url: TypeUrl, name: &str) -> Arc<str> {
        let key = match type_url {
            TypeUrl::Cluster | TypeUrl::Endpoints => return self.of_cluster(mesh, type_url, name),
            TypeUrl::Listener if name == VIRTUAL_OUTBOUND => &self.any_listener,
            TypeUrl::Listener if self.kind == NodeKind::Gateway || matches!(name, VIRTUAL_INBOUND | "*") => {
                &self.own_listener
            }
            TypeUrl::Listener => &self.seen_listener,
            TypeUrl::Route => &self.route,
            TypeUrl::VirtualHost => &self.seen,
        };
        key.clone()
    }

    fn of_cluster(&self, mesh: &Mesh, type_url: TypeUrl, name: &str) -> Arc<str> {
        let key = match (type_url, ClusterName::parse(name)) {
            (
                TypeUrl::Cluster,
                Some(ClusterName::Passthrough | ClusterName::BlackHole | ClusterName::InboundPassthrough),
            ) => &self.all,
            (TypeUrl::Cluster, Some(ClusterName::Inbound { .. })) => &self.own,
            (TypeUrl::Cluster, None) if name == "*" => &self.own,
            // Endpoints of a whole service look the same from everywhere.
            (TypeUrl::Endpoints, Some(ClusterName::Outbound { subset: None, host, .. }))
                if mesh
                    .service(&host)
                    .is_some_and(|service| service.export_to == mizzen_model::ExportTo::All) =>
            {
                &self.all
            }
            _ => &self.seen,
        };
        key.clone()
    }
}
