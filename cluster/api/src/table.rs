//! Tables: what `kubectl get` prints.
//!
//! In: objects and the printer columns of their kind. Out: `columnDefinitions` and the cells of each row of a `meta.k8s.io/v1`
//! Table. Never: a clock (ages are counted from the time given), I/O.

use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

mod cluster;
mod network;
mod path;
mod row;
#[cfg(test)]
mod tests;
mod workload;

use path::Path;
use row::Row;

/// The columns of a kind.
#[derive(Debug, Clone)]
pub struct Columns {
    definitions: Value,
    cells: Cells,
}

#[derive(Debug, Clone)]
enum Cells {
    BuiltIn(fn(&Row<'_>) -> Vec<Value>),
    Custom(Arc<[Column]>),
}

/// One of a custom resource's columns.
#[derive(Debug)]
struct Column {
    kind: String,
    path: Option<Path>,
}

/// `columnDefinitions` by `group/resource`: those of Kubernetes 1.33, read from its API server (`recorded/record columns`).
static DEFINITIONS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../recorded/columns.json")).unwrap_or_default());

impl Columns {
    /// Those of a built-in resource, or name and creation time where Kubernetes has none of its own.
    pub fn of(group: &str, resource: &str) -> Columns {
        let cells: Option<fn(&Row<'_>) -> Vec<Value>> = match (group, resource) {
            ("", "pods") => Some(workload::pod),
            ("", "podtemplates") => Some(workload::pod_template),
            ("", "replicationcontrollers") | ("apps", "replicasets") => Some(workload::replica_set),
            ("apps", "deployments") => Some(workload::deployment),
            ("apps", "statefulsets") => Some(workload::stateful_set),
            ("apps", "daemonsets") => Some(workload::daemon_set),
            ("apps", "controllerrevisions") => Some(workload::controller_revision),
            ("batch", "jobs") => Some(workload::job),
            ("batch", "cronjobs") => Some(workload::cron_job),
            ("policy", "poddisruptionbudgets") => Some(workload::disruption_budget),
            ("autoscaling", "horizontalpodautoscalers") => Some(workload::autoscaler),
            ("", "services") => Some(network::service),
            ("", "endpoints") => Some(network::endpoints),
            ("discovery.k8s.io", "endpointslices") => Some(network::endpoint_slice),
            ("networking.k8s.io", "ingresses") => Some(network::ingress),
            ("networking.k8s.io", "ingressclasses") => Some(network::ingress_class),
            ("networking.k8s.io", "networkpolicies") => Some(network::network_policy),
            ("", "nodes") => Some(cluster::node),
            ("", "namespaces") => Some(cluster::namespace),
            ("", "events") | ("events.k8s.io", "events") => Some(cluster::event),
            ("", "configmaps") => Some(cluster::config_map),
            ("", "secrets") => Some(cluster::secret),
            ("", "serviceaccounts") => Some(cluster::service_account),
            ("", "resourcequotas") => Some(cluster::resource_quota),
            ("", "persistentvolumes") => Some(cluster::persistent_volume),
            ("", "persistentvolumeclaims") => Some(cluster::persistent_volume_claim),
            ("storage.k8s.io", "storageclasses") => Some(cluster::storage_class),
            ("coordination.k8s.io", "leases") => Some(cluster::lease),
            ("scheduling.k8s.io", "priorityclasses") => Some(cluster::priority_class),
            ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => Some(cluster::role_binding),
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
                Some(cluster::webhook_configuration)
            }
            _ => None,
        };
        // Roles are among those of which Kubernetes shows only that they exist.
        let name = match cells {
            Some(_) => format!("{group}/{resource}"),
            None => "rbac.authorization.k8s.io/roles".to_owned(),
        };
        let definitions = DEFINITIONS.get(&name).cloned().unwrap_or_else(|| json!([]));
        Columns {
            definitions,
            cells: Cells::BuiltIn(cells.unwrap_or(cluster::other)),
        }
    }

    /// Those of a custom resource version: `additionalPrinterColumns` or, without, the age.
    pub fn of_crd(additional: Option<&Value>) -> Columns {
        let described = |of: &str, column: usize| {
            let cell = DEFINITIONS
                .get(of)
                .and_then(|columns| columns.get(column))
                .and_then(|column| column.get("description"));
            cell.cloned().unwrap_or_default()
        };
        let mut definitions = vec![json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0, "description": described("/namespaces", 0),
        })];
        let mut columns = Vec::new();
        let own = additional
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for column in own {
            let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default();
            let description = match text("description") {
                "" => format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    text("jsonPath")
                ),
                own => own.to_owned(),
            };
            definitions.push(json!({
                "name": text("name"), "type": text("type"), "format": text("format"), "description": description,
                "priority": column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            }));
            columns.push(Column {
                kind: text("type").to_owned(),
                path: Path::parse(text("jsonPath")),
            });
        }
        if own.is_empty() {
            definitions.push(json!({
                "name": "Age", "type": "date", "format": "", "priority": 0, "description": described("/namespaces", 2),
            }));
            columns.push(Column {
                kind: "date".to_owned(),
                path: Path::parse(".metadata.creationTimestamp"),
            });
        }
        Columns {
            definitions: Value::Array(definitions),
            cells: Cells::Custom(columns.into()),
        }
    }

    /// `columnDefinitions`.
    pub fn definitions(&self) -> Value {
        self.definitions.clone()
    }

    /// The cells of one object; `now` in seconds since the epoch.
    pub fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let row = Row { object, now };
        match &self.cells {
            Cells::BuiltIn(cells) => cells(&row),
            Cells::Custom(columns) => {
                let name = std::iter::once(row.name());
                name.chain(columns.iter().map(|column| column.cell(&row))).collect()
            }
        }
    }
}

impl Column {
    fn cell(&self, row: &Row<'_>) -> Value {
        let found = self.path.as_ref().and_then(|path| path.first(row.object));
        let Some(value) = found.filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match (self.kind.as_str(), value) {
            ("string", Value::String(_)) => value.clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => number
                .as_i64()
                .or_else(|| number.as_f64().map(|float| float as i64))
                .into(),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => match row::seconds(text) {
                Some(then) => age(row.now - then).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

/// An age as `kubectl` shows it: `5m3s`, `2d1h`.
pub fn age(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |whole: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{small}"),
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}
