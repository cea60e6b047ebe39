//! The mesh: its namespace and ServiceMeshControlPlane are applied, then what the operator says of it is waited for.

use super::{Args, Installation, manifests, wait};
use crate::connect::refused;
use crate::failure::Failure;
use kube::Api;
use mizzen_crds::maistra::{Condition, ConditionReason, ConditionStatus, ConditionType, ServiceMeshControlPlane};
use std::time::Duration;
use tokio::time::Instant;

impl Installation<'_> {
    /// Makes the mesh.
    pub(super) async fn mesh(&mut self) -> Result<(), Failure> {
        self.progress.start("mesh");
        let deadline = self.deadline();
        let Args {
            namespace,
            name,
            profile,
            ..
        } = self.args;
        let mut generation = 0;
        for object in manifests::mesh(namespace, name, profile) {
            generation = self
                .cluster
                .apply(&object, deadline)
                .await?
                .metadata
                .generation
                .unwrap_or_default();
        }
        let api: Api<ServiceMeshControlPlane> = Api::namespaced(self.cluster.client.clone(), namespace);
        let mut patience = wait::Patience::default();
        loop {
            let mesh = api
                .get(name)
                .await
                .map_err(|error| refused("the mesh cannot be read", &error))?;
            let status = mesh.status.unwrap_or_default();
            let current = status.observed_generation.is_some_and(|seen| seen >= generation);
            let count = status
                .annotations
                .as_ref()
                .and_then(|a| a.get("readyComponentCount"))
                .cloned();
            let count = count.unwrap_or_default();
            let ready = condition(status.conditions.as_deref(), ConditionType::Ready).filter(|_| current);
            if ready.is_some_and(|c| c.status == ConditionStatus::True) {
                let version = status.chart_version.unwrap_or_default();
                let detail = format!("{namespace}/{name} · {} · {version}", profile.join(", "));
                self.progress.done(&format!("ready {count}"), &detail);
                return Ok(());
            }
            let why = ready
                .and_then(|c| c.message.clone())
                .unwrap_or_else(|| "the operator looks at it".to_owned());
            let reason = ready.and_then(|c| c.reason);
            self.progress.note(&format!("{count} {why}"));
            if matches!(
                reason,
                Some(ConditionReason::ValidationError | ConditionReason::ErrMultipleSmcps)
            ) {
                return Err(Failure::new(
                    "the operator refuses the mesh",
                    why,
                    "change what the message names",
                ));
            }
            let client = &self.cluster.client;
            let pods = wait::pods(client, namespace, &format!("maistra.io/owner={namespace}")).await;
            if patience.ends(pods.iter().any(wait::hopeless)) || Instant::now() > deadline {
                let what = format!("{namespace}/{name} does not become ready ({count})");
                return Err(wait::explain(client, namespace, what, why, &pods).await);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

fn condition(conditions: Option<&[Condition]>, kind: ConditionType) -> Option<&Condition> {
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.kind == kind)
}
