//! The status of a ServiceMeshControlPlane: from what was found and done, and from what it said before.

use mizzen_crds::maistra::{
    ComponentStatus, Condition, ConditionReason, ConditionStatus, ConditionType, ControlPlaneStatus, Readiness,
    ReadinessComponents, ResourceStatus,
};
use mizzen_desired::{Component, ValidatedMesh};
use std::collections::BTreeMap;

/// How far reconciling came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It starts: objects are about to be written for a new spec or by a new operator.
    Started,
    /// It waits for components before it goes on.
    Waiting(String),
    /// All objects are as they should be.
    Complete,
    /// Some are not.
    Failed(ConditionReason, String),
}

/// What was found out about a component: nothing made yet, or what does not work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ComponentState {
    /// None of its objects exist yet.
    pub(crate) pending: bool,
    /// Its objects that do not work: `Kind/name` and why.
    pub(crate) broken: BTreeMap<String, String>,
}

/// Everything a status is made from.
pub(crate) struct Facts<'a> {
    pub(crate) generation: i64,
    pub(crate) operator_version: &'a str,
    /// None when the spec is not valid.
    pub(crate) mesh: Option<&'a ValidatedMesh>,
    pub(crate) progress: Progress,
    pub(crate) components: BTreeMap<Component, ComponentState>,
    pub(crate) now: &'a str,
}

/// Which step the generation is in: the first installation, a changed spec, a changed operator, or the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Installing,
    Updating,
    Upgrading,
    Steady,
}

pub(crate) fn phase(before: &ControlPlaneStatus, generation: i64, operator_version: &str) -> Phase {
    if !holds(before, ConditionType::Installed) {
        Phase::Installing
    } else if before.operator_version.as_deref() != Some(operator_version) {
        Phase::Upgrading
    } else if before.observed_generation != Some(generation) || !holds(before, ConditionType::Reconciled) {
        Phase::Updating
    } else {
        Phase::Steady
    }
}

/// Whether a condition is True.
pub(crate) fn holds(status: &ControlPlaneStatus, kind: ConditionType) -> bool {
    condition(status, kind).is_some_and(|c| c.status == ConditionStatus::True)
}

pub(crate) fn condition(status: &ControlPlaneStatus, kind: ConditionType) -> Option<&Condition> {
    status.conditions.iter().flatten().find(|c| c.kind == kind)
}

/// The status to write.
pub(crate) fn next(before: &ControlPlaneStatus, facts: &Facts<'_>) -> ControlPlaneStatus {
    let phase = phase(before, facts.generation, facts.operator_version);
    let reconciled = reconciled(before, phase, facts);
    let installed = match (holds(before, ConditionType::Installed), &facts.progress) {
        (true, _) => (
            ConditionStatus::True,
            ConditionReason::InstallSuccessful,
            "all objects were made".to_owned(),
        ),
        (false, Progress::Complete) => (
            ConditionStatus::True,
            ConditionReason::InstallSuccessful,
            "all objects were made".to_owned(),
        ),
        (false, _) => (ConditionStatus::False, reconciled.1, reconciled.2.clone()),
    };
    let ready = if reconciled.0 == ConditionStatus::True {
        ready(facts)
    } else {
        reconciled.clone()
    };
    let conditions = [
        (ConditionType::Installed, installed),
        (ConditionType::Reconciled, reconciled),
        (ConditionType::Ready, ready),
    ];
    let readiness = readiness(facts);
    let count = format!("{}/{}", readiness.ready.len(), facts.components.len());
    let annotations = if facts.mesh.is_some() {
        Some([("readyComponentCount".to_owned(), count)].into())
    } else {
        before.annotations.clone()
    };
    ControlPlaneStatus {
        annotations,
        conditions: Some(
            conditions
                .into_iter()
                .map(|(kind, said)| stamped(before.conditions.as_ref(), kind, said, facts.now))
                .collect(),
        ),
        observed_generation: Some(facts.generation),
        operator_version: Some(facts.operator_version.to_owned()),
        chart_version: facts
            .mesh
            .map(|m| m.version().to_owned())
            .or_else(|| before.chart_version.clone()),
        components: facts
            .mesh
            .map(|_| components(before, facts))
            .or_else(|| before.components.clone()),
        readiness: if facts.mesh.is_some() {
            Readiness { components: readiness }
        } else {
            before.readiness.clone()
        },
        applied_spec: facts
            .mesh
            .map(|m| m.applied_spec().clone())
            .or_else(|| before.applied_spec.clone()),
        applied_values: None,
    }
}

type Said = (ConditionStatus, ConditionReason, String);

fn reconciled(before: &ControlPlaneStatus, phase: Phase, facts: &Facts<'_>) -> Said {
    use ConditionReason as Reason;
    match &facts.progress {
        Progress::Started => {
            let (reason, why) = match phase {
                Phase::Installing => (Reason::ResourceCreated, "being installed"),
                Phase::Upgrading => (Reason::OperatorUpdated, "being updated to what the new operator makes"),
                Phase::Updating | Phase::Steady => (Reason::SpecUpdated, "being updated to the changed spec"),
            };
            (ConditionStatus::False, reason, why.to_owned())
        }
        Progress::Waiting(what) => {
            let reason = if phase == Phase::Installing {
                Reason::PausingInstall
            } else {
                Reason::PausingUpdate
            };
            (ConditionStatus::False, reason, what.clone())
        }
        Progress::Failed(reason, why) => (ConditionStatus::False, *reason, why.clone()),
        Progress::Complete => {
            let reason = match phase {
                Phase::Installing => Reason::InstallSuccessful,
                Phase::Updating | Phase::Upgrading => Reason::UpdateSuccessful,
                // The reason stays what it was, so that nothing is written when nothing happened.
                Phase::Steady => condition(before, ConditionType::Reconciled)
                    .and_then(|c| c.reason)
                    .unwrap_or(Reason::ReconcileSuccessful),
            };
            let mut message = "all objects are as the spec says".to_owned();
            let ignored = facts.mesh.map(ValidatedMesh::not_acted_on).unwrap_or_default();
            if !ignored.is_empty() {
                message.push_str(&format!("; accepted, and not yet acted on: {}", ignored.join(", ")));
            }
            (ConditionStatus::True, reason, message)
        }
    }
}

fn ready(facts: &Facts<'_>) -> Said {
    let broken: Vec<_> = facts
        .components
        .iter()
        .filter(|(_, state)| state.pending || !state.broken.is_empty())
        .map(|(component, state)| format!("{component}: {}", why(state)))
        .collect();
    if broken.is_empty() {
        (
            ConditionStatus::True,
            ConditionReason::ComponentsReady,
            "all components work".to_owned(),
        )
    } else {
        (
            ConditionStatus::False,
            ConditionReason::ComponentsNotReady,
            broken.join("; "),
        )
    }
}

fn why(state: &ComponentState) -> String {
    if state.pending && state.broken.is_empty() {
        return "not made yet".to_owned();
    }
    state.broken.values().cloned().collect::<Vec<_>>().join("; ")
}

fn readiness(facts: &Facts<'_>) -> ReadinessComponents {
    let mut readiness = ReadinessComponents::default();
    for (component, state) in &facts.components {
        let list = if state.pending {
            &mut readiness.pending
        } else if state.broken.is_empty() {
            &mut readiness.ready
        } else {
            &mut readiness.unready
        };
        list.push(component.to_string());
    }
    readiness
}

fn components(before: &ControlPlaneStatus, facts: &Facts<'_>) -> Vec<ComponentStatus> {
    let said = |ok: bool, message: String| -> Said {
        if ok {
            (ConditionStatus::True, ConditionReason::ComponentsReady, message)
        } else {
            (ConditionStatus::False, ConditionReason::ComponentsNotReady, message)
        }
    };
    let mut all = Vec::new();
    for (component, state) in &facts.components {
        let old = before
            .components
            .iter()
            .flatten()
            .find(|c| c.resource == component.as_str());
        let works = !state.pending && state.broken.is_empty();
        let message = if works { "works".to_owned() } else { why(state) };
        let children: Vec<_> = state
            .broken
            .iter()
            .map(|(resource, why)| {
                let old = old.and_then(|o| o.children.iter().flatten().find(|c| c.resource == *resource));
                let old = old.and_then(|o| o.conditions.as_ref());
                ResourceStatus {
                    resource: resource.clone(),
                    conditions: Some(vec![stamped(
                        old,
                        ConditionType::Ready,
                        said(false, why.clone()),
                        facts.now,
                    )]),
                }
            })
            .collect();
        let conditions = old.and_then(|o| o.conditions.as_ref());
        all.push(ComponentStatus {
            resource: component.to_string(),
            conditions: Some(vec![stamped(
                conditions,
                ConditionType::Ready,
                said(works, message),
                facts.now,
            )]),
            children: (!children.is_empty()).then_some(children),
        });
    }
    all
}

/// A condition; the time is the old one unless it changed between True and False.
pub(crate) fn stamped(old: Option<&Vec<Condition>>, kind: ConditionType, said: Said, now: &str) -> Condition {
    let (status, reason, message) = said;
    let old = old.into_iter().flatten().find(|c| c.kind == kind && c.status == status);
    let since = old
        .and_then(|c| c.last_transition_time.clone())
        .unwrap_or_else(|| now.to_owned());
    Condition {
        kind,
        status,
        reason: Some(reason),
        message: Some(message),
        last_transition_time: Some(since),
    }
}

#[cfg(test)]
mod tests;
