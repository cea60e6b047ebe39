//! What users are told about a mesh: its status and events.

use super::components::components;
use super::{Live, ReconcileError, Reconciliation};
use crate::apply;
use crate::context::{VERSION, about, now};
use crate::status::{self, ComponentState, Facts, Phase, Progress};
use kube::ResourceExt;
use mizzen_crds::maistra::{ConditionReason, ConditionType, ControlPlaneStatus};
use mizzen_desired::{Component, Manifest, ValidatedMesh};
use std::collections::BTreeMap;

impl Reconciliation<'_> {
    pub(super) fn before(&self) -> ControlPlaneStatus {
        self.mesh.status.clone().unwrap_or_default()
    }

    pub(super) fn facts<'f>(
        &self,
        mesh: Option<&'f ValidatedMesh>,
        progress: Progress,
        components: BTreeMap<Component, ComponentState>,
        now: &'f str,
    ) -> Facts<'f> {
        let generation = self.mesh.metadata.generation.unwrap_or_default();
        Facts {
            generation,
            operator_version: VERSION,
            mesh,
            progress,
            components,
            now,
        }
    }

    /// Reports why nothing is done; what runs keeps running.
    pub(super) async fn refuse(&self, reason: ConditionReason, message: String) -> Result<(), ReconcileError> {
        let now = now();
        let progress = Progress::Failed(reason, message.clone());
        let next = status::next(&self.before(), &self.facts(None, progress, BTreeMap::new(), &now));
        if self.write(&next).await? {
            self.context
                .event(&about(self.mesh), true, &format!("{reason:?}"), &message)
                .await;
        }
        Ok(())
    }

    /// Says that a new spec is being acted on, once.
    pub(super) async fn announce(
        &self,
        mesh: &ValidatedMesh,
        phase: Phase,
        manifests: &[Manifest],
        live: &Live,
    ) -> Result<(), ReconcileError> {
        let before = self.before();
        let same = before.observed_generation == self.mesh.metadata.generation
            && before.operator_version.as_deref() == Some(VERSION);
        if same || phase == Phase::Steady {
            return Ok(());
        }
        let now = now();
        let facts = self.facts(Some(mesh), Progress::Started, components(manifests, live), &now);
        self.write(&status::next(&before, &facts)).await?;
        let (reason, note) = match phase {
            Phase::Installing => ("Installing", "the mesh is being installed"),
            _ => ("Updating", "the mesh is being updated"),
        };
        self.context.event(&about(self.mesh), false, reason, note).await;
        Ok(())
    }

    pub(super) async fn report(
        &self,
        mesh: &ValidatedMesh,
        phase: Phase,
        progress: Progress,
        components: BTreeMap<Component, ComponentState>,
    ) -> Result<(), ReconcileError> {
        // What was announced meanwhile is what this follows on.
        let current = self
            .api
            .get_opt(&self.mesh.name_any())
            .await?
            .and_then(|mesh| mesh.status)
            .unwrap_or_default();
        let was_ready = status::holds(&current, ConditionType::Ready);
        let now = now();
        let next = status::next(&current, &self.facts(Some(mesh), progress, components, &now));
        if current == next {
            return Ok(());
        }
        apply::status(self.api, &self.mesh.name_any(), &next).await?;
        let message = |kind| {
            status::condition(&next, kind)
                .and_then(|c| c.message.clone())
                .unwrap_or_default()
        };
        let about = about(self.mesh);
        let finished = |kind| status::holds(&next, kind) && !status::holds(&current, kind);
        if finished(ConditionType::Installed) {
            self.context
                .event(&about, false, "Installed", "all objects of the mesh were made")
                .await;
        } else if finished(ConditionType::Reconciled) && phase != Phase::Steady {
            self.context
                .event(&about, false, "Updated", &message(ConditionType::Reconciled))
                .await;
        }
        if finished(ConditionType::Ready) {
            self.context
                .event(&about, false, "Ready", &message(ConditionType::Ready))
                .await;
        } else if was_ready && !status::holds(&next, ConditionType::Ready) {
            self.context
                .event(&about, true, "NotReady", &message(ConditionType::Ready))
                .await;
        }
        Ok(())
    }

    /// Writes the status if it differs from what was read. Returns whether it did.
    pub(super) async fn write(&self, next: &ControlPlaneStatus) -> Result<bool, ReconcileError> {
        if self.mesh.status.as_ref() == Some(next) {
            return Ok(false);
        }
        apply::status(self.api, &self.mesh.name_any(), next).await?;
        Ok(true)
    }
}
