//! Letting proxies in: who they are decides what they see.

use std::{net::IpAddr, sync::Arc, time::Instant};

use mizzen_ca::Caller;
use mizzen_model::{Kind, ObjectKey, ObjectName};
use mizzen_translate::{NodeKind, Scope};
use mizzen_xds::{Mailbox, Nack, Opened, Refused, Resource, ResourceType, Source, StreamId, wire::Node};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Hub, audience::Audience};
use crate::status::StatusEvent;

/// `MIZZEN_ON_DEMAND` in a node's metadata: the proxy asks for virtual hosts when traffic needs them.
const ON_DEMAND: &str = "MIZZEN_ON_DEMAND";

/// How the native proxy calls itself. It is believed: who lies gets his own configuration in the other's form.
const NATIVE: &str = "mizzen-proxy";

/// What a node id says: `sidecar~<ip>~<pod>.<namespace>~<domain>`.
#[derive(Debug, PartialEq, Eq)]
struct NodeId<'a> {
    kind: NodeKind,
    pod: &'a str,
    namespace: &'a str,
}

impl<'a> NodeId<'a> {
    fn parse(id: &'a str) -> Result<Self, Refused> {
        let wrong = |what: &str| {
            Refused::Invalid(format!(
                "{what} in node id {id:?}: it must be sidecar~<ip>~<pod>.<namespace>~<domain>, or router~…"
            ))
        };
        let mut parts = id.split('~');
        let kind = match parts.next() {
            Some("sidecar") => NodeKind::Sidecar,
            Some("router") => NodeKind::Gateway,
            _ => return Err(wrong("an unknown kind of proxy")),
        };
        let address = parts.next().unwrap_or_default();
        if address.parse::<IpAddr>().is_err() {
            return Err(wrong("a bad address"));
        }
        // A pod's name may hold dots, a namespace's cannot.
        let (pod, namespace) = parts
            .next()
            .and_then(|name| name.rsplit_once('.'))
            .ok_or_else(|| wrong("no <pod>.<namespace>"))?;
        Ok(Self { kind, pod, namespace })
    }
}

/// Takes a stream off the list when it ends.
struct Listed {
    hub: Arc<Hub>,
    stream: StreamId,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.hub.streams.lock().remove(&self.stream);
        let verdict = self.hub.vetting.lock().ended(self.stream);
        self.hub.act(verdict);
        self.hub.tell(StatusEvent::StreamEnded(self.stream));
    }
}

/// The hub as the source of the streams' views.
pub(crate) struct HubSource(pub(crate) Arc<Hub>);

impl Source for HubSource {
    fn gate(&self) -> Arc<RwLock<()>> {
        self.0.gate.clone()
    }

    fn states(&self) -> watch::Receiver<u64> {
        self.0.states.subscribe()
    }

    fn open(
        &self,
        stream: StreamId,
        request: &tonic::Extensions,
        node: &Node,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Opened, Refused> {
        let caller = request
            .get::<Caller>()
            .ok_or_else(|| Refused::Unauthenticated("no proven caller".into()))?;
        let id = NodeId::parse(&node.id)?;
        let namespace = caller.identity.namespace();
        if id.namespace != namespace.as_str() {
            return Err(Refused::Forbidden(format!(
                "{} is not the identity of a pod in {}",
                caller.identity, id.namespace
            )));
        }
        if let Some(pod) = caller.pod.as_ref().filter(|pod| pod.name != id.pod) {
            return Err(Refused::Forbidden(format!(
                "the token is of pod {}, not of {}",
                pod.name, id.pod
            )));
        }
        let name = ObjectName::new(id.pod).map_err(|error| Refused::Invalid(error.to_string()))?;
        let key = ObjectKey::new(Kind::Pod, namespace.clone(), name);
        let on_demand = truthy(node, ON_DEMAND);

        // No state of the mesh may pass between looking at it and being told of the next one.
        let _gate = self.0.gate.read();
        let mesh = self
            .0
            .mesh()
            .ok_or_else(|| Refused::NotReady("the mesh is not known yet".into()))?;
        let workload = mesh.workload(&key).ok_or_else(|| {
            Refused::NotReady(format!(
                "{key} is not known in the mesh: it is not there yet, or its namespace is not a member"
            ))
        })?;
        // A pod of the same name that came after this one, or before, is another.
        if let Some(pod) = caller.pod.as_ref().filter(|pod| *pod.uid != *workload.uid) {
            return Err(Refused::NotReady(format!(
                "the token is of {key} with uid {}, and the mesh knows the one with uid {}",
                pod.uid, workload.uid
            )));
        }
        let scope = Scope::new(&caller.identity, workload, id.kind, on_demand)
            .map_err(|error| Refused::Forbidden(error.to_string()))?;
        let native = node.user_agent_name == NATIVE;
        let scope = Arc::new(if native { scope.for_native() } else { scope });
        let view = self.0.admit(stream, &mesh, scope, workload.uid.clone(), mailbox);
        Ok(Opened {
            view,
            proxy: format!("{}.{}", id.pod, id.namespace),
            guard: Box::new(Listed {
                hub: self.0.clone(),
                stream,
            }),
        })
    }

    fn accepted(&self, stream: StreamId, kind: ResourceType, resources: &[Arc<Resource>]) {
        if kind != ResourceType::Route {
            return;
        }
        let audience = {
            let mut streams = self.0.streams.lock();
            let Some(known) = streams.get_mut(&stream).filter(|known| !known.view.scope.native()) else {
                return;
            };
            for resource in resources {
                known.accepted.insert(resource.name().clone(), resource.clone());
            }
            Audience::of(&known.view.scope)
        };
        for resource in resources {
            let verdict = self.0.vetting.lock().accepted(&audience, resource);
            self.0.act(verdict);
        }
    }

    fn rejected(&self, stream: StreamId, nack: &Nack) {
        if nack.kind == ResourceType::Route && self.0.blame(stream, nack) {
            return;
        }
        self.0.tell(StatusEvent::Rejected {
            stream,
            nack: nack.clone(),
        });
    }

    fn recovered(&self, stream: StreamId, kind: ResourceType, names: &[Arc<str>]) {
        self.0.tell(StatusEvent::Recovered {
            stream,
            kind,
            names: names.to_vec(),
        });
    }
}

impl Hub {
    /// Finds out whose routes made an Envoy refuse a table. Tells whether somebody's did.
    fn blame(&self, stream: StreamId, nack: &Nack) -> bool {
        let (audience, accepted): (_, Vec<_>) = {
            let streams = self.streams.lock();
            let Some(known) = streams.get(&stream).filter(|known| !known.view.scope.native()) else {
                return false;
            };
            let last = |resource: &Arc<Resource>| known.accepted.get(resource.name()).cloned();
            let accepted = nack.resources.iter().map(last).collect();
            (Audience::of(&known.view.scope), accepted)
        };
        let mut explained = true;
        for (resource, accepted) in nack.resources.iter().zip(accepted) {
            let last = accepted.as_deref();
            let verdict = self
                .vetting
                .lock()
                .refused(&audience, stream, resource, &nack.message, last, Instant::now());
            explained &= verdict.explained;
            self.act(verdict);
        }
        explained && !nack.resources.is_empty()
    }

    pub(super) fn tell(&self, event: StatusEvent) {
        if self.status_tx.try_send(event).is_err() {
            // Told again by the next rejection; the streams' own state in /debug/syncz is complete.
            tracing::warn!("the status writer is behind: a report is left out");
        }
    }
}

fn truthy(node: &Node, key: &str) -> bool {
    use prost_types::value::Kind as ValueKind;
    let value = node
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.fields.get(key))
        .and_then(|value| value.kind.as_ref());
    match value {
        Some(ValueKind::BoolValue(value)) => *value,
        Some(ValueKind::StringValue(value)) => value == "true",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_names_kind_pod_and_namespace() {
        let id = NodeId::parse("sidecar~10.0.0.7~cart.v1-x2.shop~shop.svc.cluster.local").unwrap();
        assert_eq!(
            id,
            NodeId {
                kind: NodeKind::Sidecar,
                pod: "cart.v1-x2",
                namespace: "shop"
            }
        );
        assert_eq!(NodeId::parse("router~::1~gw.mesh~d").unwrap().kind, NodeKind::Gateway);
        for bad in [
            "",
            "sidecar",
            "waypoint~1.1.1.1~a.b~c",
            "sidecar~x~a.b~c",
            "sidecar~1.1.1.1~a~c",
        ] {
            assert!(matches!(NodeId::parse(bad), Err(Refused::Invalid(_))), "{bad}");
        }
    }
}
