//! Who asks.

use std::fmt::Write as _;

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
}

/// A proxy: its workload, what it is for, and how it takes its configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    workload: ObjectKey,
    kind: NodeKind,
    on_demand: bool,
}

impl Scope {
    /// The scope of a proxy that proved an identity and stands in that workload. `on_demand`: it asks for virtual hosts
    /// when traffic needs them, instead of taking whole route configurations.
    ///
    /// # Errors
    /// When the workload has another identity.
    pub fn new(caller: &SpiffeId, workload: &Workload, kind: NodeKind, on_demand: bool) -> Result<Self, ScopeError> {
        let key = workload.key.clone();
        if *caller.namespace() != key.namespace || *caller.service_account() != workload.service_account {
            return Err(ScopeError::Identity {
                caller: caller.clone(),
                workload: key,
            });
        }
        Ok(Self {
            workload: key,
            kind,
            on_demand,
        })
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

    /// A key such that two proxies for which it is the same get the same bytes for that name (and names, for the name
    /// `*`, stand for the list of a type). It holds for that mesh: ask again when the mesh has changed.
    #[must_use]
    pub fn shared_key(&self, mesh: &Mesh, type_url: TypeUrl, name: &str) -> String {
        let view = View::new(mesh, self);
        match (type_url, ClusterName::parse(name)) {
            (
                TypeUrl::Cluster,
                Some(ClusterName::Passthrough | ClusterName::BlackHole | ClusterName::InboundPassthrough),
            ) => "all".to_owned(),
            (TypeUrl::Cluster, Some(ClusterName::Inbound { .. })) => self.own(&view),
            // Endpoints of a whole service look the same from everywhere.
            (TypeUrl::Endpoints, Some(ClusterName::Outbound { subset: None, host, .. }))
                if mesh
                    .service(&host)
                    .is_some_and(|service| service.export_to == mizzen_model::ExportTo::All) =>
            {
                "all".to_owned()
            }
            (TypeUrl::Listener, _) if name == VIRTUAL_OUTBOUND => format!("{:?}", self.kind),
            (TypeUrl::Listener, _) if name == VIRTUAL_INBOUND => self.own(&view),
            (TypeUrl::Cluster | TypeUrl::Listener, None) if name == "*" => self.own(&view),
            (TypeUrl::Listener | TypeUrl::Route, _) if self.kind == NodeKind::Gateway => self.own(&view),
            (TypeUrl::Route, _) if self.on_demand => format!("on demand {}", self.seen(&view)),
            _ => self.seen(&view),
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
