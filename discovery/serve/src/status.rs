//! What users read on their own objects: whether it is in force, and if not, why and what to do.
//!
//! The only arrow back from the mesh to Kubernetes. One replica writes (the holder of a lease), each object only when what it
//! says differs from what is to be said, one at a time, the newest once: a burst of findings never queues writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use mizzen_crds::status::{ConfigCondition, ConfigStatus, ValidationLevel, ValidationMessage, ValidationMessageType};
use mizzen_index::{Report, Severity};
use mizzen_model::{Host, Kind, ObjectKey};
use mizzen_translate::{ClusterName, VirtualHostName};
use mizzen_xds::{Nack, ResourceType, StreamId};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tracing::{debug, warn};

use crate::{
    hub::Hub,
    metrics::{Metrics, Outcome},
    watch::api_resource,
};

const MANAGER: &str = "mizzen-discovery-status";
const CONDITION: &str = "Reconciled";
/// The reason of what proxies refuse.
pub(crate) const REFUSED: &str = "RejectedByProxy";
/// After a failed write.
const AGAIN: Duration = Duration::from_secs(5);
/// Rejections of this many streams are remembered.
const REJECTIONS: usize = 4_096;
/// A message is for people; the rest is in the log.
const MESSAGE: usize = 1_024;

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum StatusEvent {
    /// Findings that are new or different, and objects that are well now.
    Reports(Vec<Report>),
    /// A proxy rejected resources.
    Rejected { stream: StreamId, nack: Nack },
    /// It accepts them now.
    Recovered {
        stream: StreamId,
        kind: ResourceType,
        names: Vec<Arc<str>>,
    },
    /// It is gone.
    StreamEnded(StreamId),
    /// Proxies refuse an object; it is left out.
    Guilty { object: ObjectKey, message: String },
    /// An object that was left out has changed and is tried again.
    Cleared(ObjectKey),
}

pub(crate) struct Writer {
    client: Client,
    hub: Arc<Hub>,
    metrics: Metrics,
    reports: BTreeMap<ObjectKey, Report>,
    rejections: BTreeMap<(StreamId, ResourceType, Arc<str>), String>,
    guilty: BTreeMap<ObjectKey, String>,
    pending: BTreeSet<ObjectKey>,
}

impl Writer {
    pub(crate) fn new(client: Client, hub: Arc<Hub>, metrics: Metrics) -> Self {
        Self {
            client,
            hub,
            metrics,
            reports: BTreeMap::new(),
            rejections: BTreeMap::new(),
            guilty: BTreeMap::new(),
            pending: BTreeSet::new(),
        }
    }

    /// Writes for as long as events come, while this replica is the leader.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<StatusEvent>, mut leader: watch::Receiver<bool>) {
        let mut failed = BTreeSet::new();
        loop {
            let leads = *leader.borrow();
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                changed = leader.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Whoever wrote before may have known less.
                    self.pending = self.reports.keys().cloned().collect();
                }
                () = time::sleep(AGAIN), if leads && !failed.is_empty() && self.pending.is_empty() => {
                    self.pending = std::mem::take(&mut failed);
                }
                () = std::future::ready(()), if leads && !self.pending.is_empty() => {
                    let Some(key) = self.pending.pop_first() else { continue };
                    if let Err(error) = self.write(&key).await {
                        self.metrics.status(Outcome::failed);
                        warn!(object = %key, %error, "status not written; trying again");
                        failed.insert(key);
                    }
                }
            }
        }
    }

    fn take(&mut self, event: StatusEvent) {
        match event {
            StatusEvent::Reports(reports) => {
                for report in reports {
                    for diagnostic in &report.diagnostics {
                        debug!(object = %report.key, code = diagnostic.code, finding = %diagnostic, "finding");
                    }
                    if report.key.kind == Kind::ConfigMap {
                        // There is no place for a condition on a ConfigMap.
                        for diagnostic in &report.diagnostics {
                            warn!(object = %report.key, finding = %diagnostic, "mesh configuration");
                        }
                        continue;
                    }
                    self.pending.insert(report.key.clone());
                    self.reports.insert(report.key.clone(), report);
                }
            }
            StatusEvent::Rejected { stream, nack } => {
                for resource in nack.resources {
                    if self.rejections.len() >= REJECTIONS {
                        return;
                    }
                    let name = resource.name().clone();
                    self.pending.extend(self.causes(nack.kind, &name));
                    self.rejections.insert((stream, nack.kind, name), nack.message.clone());
                }
            }
            StatusEvent::Recovered { stream, kind, names } => {
                for name in names {
                    self.pending.extend(self.causes(kind, &name));
                    self.rejections.remove(&(stream, kind, name));
                }
            }
            StatusEvent::Guilty { object, message } => {
                self.pending.insert(object.clone());
                self.guilty.insert(object, message);
            }
            StatusEvent::Cleared(object) => {
                self.guilty.remove(&object);
                self.pending.insert(object);
            }
            StatusEvent::StreamEnded(stream) => {
                let gone: Vec<_> = self
                    .rejections
                    .keys()
                    .filter(|(of, ..)| *of == stream)
                    .cloned()
                    .collect();
                for key in gone {
                    self.pending.extend(self.causes(key.1, &key.2));
                    self.rejections.remove(&key);
                }
            }
        }
    }

    /// The users' objects that a resource is made from, as far as its name tells.
    fn causes(&self, kind: ResourceType, name: &str) -> BTreeSet<ObjectKey> {
        let Some(mesh) = self.hub.mesh() else {
            return BTreeSet::new();
        };
        let keys: BTreeSet<ObjectKey> = match kind {
            ResourceType::Cluster | ResourceType::Endpoint => match ClusterName::parse(name) {
                Some(ClusterName::Outbound { host, .. }) => mesh
                    .destination_rules()
                    .filter(|rule| covers(&rule.host, &host))
                    .map(|rule| rule.key.clone())
                    .collect(),
                _ => BTreeSet::new(),
            },
            ResourceType::VirtualHost => match VirtualHostName::parse(name) {
                Some(parsed) => {
                    let authority = &*parsed.authority;
                    let names =
                        |host: &Host| host.as_str() == authority || host.as_str().starts_with(&format!("{authority}."));
                    mesh.virtual_services()
                        .filter(|route| route.hosts.iter().any(names))
                        .map(|route| route.key.clone())
                        .collect()
                }
                None => BTreeSet::new(),
            },
            ResourceType::Route | ResourceType::Listener => {
                let port = name.rsplit(['.', '_']).next().and_then(|port| port.parse::<u16>().ok());
                let gateways = mesh
                    .gateways()
                    .filter(|gateway| gateway.servers.iter().any(|server| Some(server.port) == port));
                gateways.map(|gateway| gateway.key.clone()).collect()
            }
        };
        keys.into_iter().filter(|key| self.reports.contains_key(key)).collect()
    }

    async fn write(&mut self, key: &ObjectKey) -> Result<(), kube::Error> {
        let Some(report) = self.reports.get(key) else {
            return Ok(());
        };
        let rejected = || {
            let mut rejections = self.rejections.iter();
            let found = rejections.find(|((_, kind, name), _)| self.causes(*kind, name).contains(key));
            found.map(|((_, _, name), message)| format!("a proxy rejected {name} and keeps what it had: {message}"))
        };
        let rejection = self.guilty.get(key).cloned().or_else(rejected);
        let resource = api_resource(key.kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), key.namespace.as_str(), &resource);
        let Some(live) = api.get_opt(key.name.as_str()).await? else {
            self.reports.remove(key);
            self.guilty.remove(key);
            return Ok(());
        };
        let shown = live
            .data
            .get("status")
            .cloned()
            .and_then(|status| serde_json::from_value::<ConfigStatus>(status).ok());
        let status = status(report, rejection.as_deref(), shown.as_ref(), Time(Timestamp::now()));
        let Some(status) = status else {
            self.metrics.status(Outcome::unchanged);
            return Ok(());
        };
        let patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": key.name.as_str(), "namespace": key.namespace.as_str() },
            "status": status,
        });
        match api
            .patch_status(
                key.name.as_str(),
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(&patch),
            )
            .await
        {
            Ok(_) => self.metrics.status(Outcome::written),
            // Deleted in between.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a destination rule for `rule` applies to `host`.
fn covers(rule: &Host, host: &Host) -> bool {
    match rule.as_str().strip_prefix('*') {
        Some(suffix) => host.as_str().ends_with(suffix),
        None => rule == host,
    }
}

/// What an object is to show; nothing if that is what it shows.
fn status(report: &Report, rejection: Option<&str>, shown: Option<&ConfigStatus>, now: Time) -> Option<ConfigStatus> {
    let worst = report.diagnostics.first();
    let (value, reason, mut message) = match (worst, rejection) {
        (Some(worst), _) if worst.severity == Severity::Error => ("False", worst.code, sentences(report)),
        (_, Some(rejection)) => ("False", REFUSED, rejection.to_owned()),
        (Some(worst), None) => ("True", worst.code, sentences(report)),
        (None, None) => ("True", "Accepted", "in force".to_owned()),
    };
    if message.len() > MESSAGE {
        let end = (0..=MESSAGE)
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    let old = shown.and_then(|shown| shown.conditions.iter().find(|condition| condition.type_ == CONDITION));
    let since = old
        .filter(|old| old.status == value)
        .and_then(|old| old.last_transition_time.clone())
        .unwrap_or(now);
    let condition = ConfigCondition {
        type_: CONDITION.to_owned(),
        status: value.to_owned(),
        last_transition_time: Some(since),
        reason: Some(reason.to_owned()),
        message: Some(message),
        observed_generation: report.generation,
        ..ConfigCondition::default()
    };
    let others = shown
        .into_iter()
        .flat_map(|shown| &shown.conditions)
        .filter(|condition| condition.type_ != CONDITION);
    let wanted = ConfigStatus {
        conditions: std::iter::once(condition).chain(others.cloned()).collect(),
        validation_messages: report.diagnostics.iter().map(message_of).collect(),
        observed_generation: report.generation,
    };
    // The order of conditions says nothing.
    let by_type = |status: &ConfigStatus| {
        let mut status = status.clone();
        status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status
    };
    (shown.map(by_type) != Some(by_type(&wanted))).then_some(wanted)
}

fn sentences(report: &Report) -> String {
    report
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn message_of(diagnostic: &mizzen_index::Diagnostic) -> ValidationMessage {
    ValidationMessage {
        type_: Some(ValidationMessageType {
            name: diagnostic.code.to_owned(),
            code: String::new(),
        }),
        level: Some(match diagnostic.severity {
            Severity::Error => ValidationLevel::Error,
            Severity::Warning => ValidationLevel::Warning,
        }),
        documentation_url: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mizzen_index::Diagnostic;
    use mizzen_model::{Namespace, ObjectName};

    fn report(diagnostics: Vec<Diagnostic>) -> Report {
        let key = ObjectKey::new(
            Kind::VirtualService,
            Namespace::new("shop").unwrap(),
            ObjectName::new("cart").unwrap(),
        );
        Report {
            key,
            generation: Some(3),
            diagnostics,
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    // C8
    #[test]
    fn object_without_findings_is_accepted_and_written_once() {
        let first = status(&report(vec![]), None, None, at(1)).unwrap();
        let condition = &first.conditions[0];
        assert_eq!(
            (
                condition.type_.as_str(),
                condition.status.as_str(),
                condition.reason.as_deref(),
                condition.observed_generation
            ),
            ("Reconciled", "True", Some("Accepted"), Some(3))
        );
        assert_eq!(status(&report(vec![]), None, Some(&first), at(2)), None);
    }

    // C8
    #[test]
    fn finding_is_told_with_field_and_keeps_the_time_of_the_transition() {
        let finding = |message: &str| Diagnostic {
            severity: Severity::Error,
            code: "SubsetNotFound",
            field: "spec.http[0]".into(),
            message: message.into(),
        };
        let first = status(&report(vec![finding("no subset v9")]), None, None, at(1)).unwrap();
        let second = status(&report(vec![finding("no subset v8")]), None, Some(&first), at(2)).unwrap();
        let condition = &second.conditions[0];
        assert_eq!(condition.status, "False");
        assert_eq!(condition.reason.as_deref(), Some("SubsetNotFound"));
        assert_eq!(condition.message.as_deref(), Some("spec.http[0]: no subset v8"));
        assert_eq!(condition.last_transition_time, Some(at(1)));
        assert_eq!(second.validation_messages[0].level, Some(ValidationLevel::Error));
    }

    #[test]
    fn rejection_by_a_proxy_shows_and_conditions_of_others_stay() {
        let other = ConfigCondition {
            type_: "Other".into(),
            status: "True".into(),
            ..ConfigCondition::default()
        };
        let shown = ConfigStatus {
            conditions: vec![other.clone()],
            ..ConfigStatus::default()
        };
        let status = status(&report(vec![]), Some("no"), Some(&shown), at(1)).unwrap();
        assert_eq!(status.conditions[0].reason.as_deref(), Some("RejectedByProxy"));
        assert_eq!(status.conditions[1], other);
    }

    /// An API server that has one object and keeps what is written to it.
    fn api(written: &Arc<parking_lot::Mutex<Vec<serde_json::Value>>>) -> Client {
        use kube::client::Body;
        let written = written.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let written = written.clone();
            async move {
                let object = json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": { "namespace": "shop", "name": "cart" },
                });
                if request.method() == http::Method::PATCH {
                    let body = request.into_body().collect_bytes().await?;
                    written.lock().push(serde_json::from_slice(&body)?);
                }
                let answer = Body::from(serde_json::to_vec(&object)?);
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(http::Response::new(answer))
            }
        });
        Client::new(service, "default")
    }

    // G1, C8
    #[tokio::test]
    async fn object_that_proxies_refuse_says_so_until_it_is_tried_again() {
        let written = Arc::default();
        let (status_tx, _reports) = mpsc::channel(1);
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let mut writer = Writer::new(api(&written), Hub::new(status_tx), metrics);
        let report = report(vec![]);
        let key = report.key.clone();
        writer.take(StatusEvent::Reports(vec![report]));
        writer.take(StatusEvent::Guilty {
            object: key.clone(),
            message: "a proxy refuses the routes".into(),
        });
        writer.write(&key).await.unwrap();
        writer.take(StatusEvent::Cleared(key.clone()));
        assert!(writer.pending.contains(&key));
        writer.write(&key).await.unwrap();
        let told: Vec<_> = written
            .lock()
            .iter()
            .map(|patch| {
                let condition = &patch["status"]["conditions"][0];
                ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned())
            })
            .collect();
        assert_eq!(
            told,
            [
                ["False", "RejectedByProxy", "a proxy refuses the routes"],
                ["True", "Accepted", "in force"],
            ]
        );
    }
}
