//! Pods and what makes them.

use super::age;
use super::row::{Row, first_of, scalar, seconds, text};
use serde_json::Value;

fn with(mut cells: Vec<Value>, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    cells.extend(more);
    cells
}

pub(super) fn pod(row: &Row<'_>) -> Vec<Value> {
    let summary = PodSummary::of(row);
    let mut restarts = summary.restarts.to_string();
    if let Some(last) = summary.last_restart.filter(|_| summary.restarts > 0) {
        restarts = format!("{restarts} ({} ago)", age(row.now - last));
    }
    let gates = row.list("/spec/readinessGates");
    let open = gates
        .iter()
        .filter(|gate| row.has_condition(text(gate, "conditionType")))
        .count();
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        format!("{open}/{}", gates.len())
    };
    vec![
        row.name(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        row.age(),
        row.text_or("/status/podIPs/0/ip", "<none>"),
        row.text_or("/spec/nodeName", "<none>"),
        row.text_or("/status/nominatedNodeName", "<none>"),
        gates.into(),
    ]
}

/// What is said of a pod in one line.
struct PodSummary {
    status: String,
    ready: usize,
    total: usize,
    restarts: i64,
    /// Seconds since the epoch.
    last_restart: Option<i64>,
}

impl PodSummary {
    fn of(row: &Row<'_>) -> Self {
        let phase = row.text("/status/phase");
        let own_reason = row.text("/status/reason");
        let mut status = if own_reason.is_empty() { phase } else { own_reason }.to_owned();
        if row
            .condition("PodScheduled")
            .is_some_and(|c| text(c, "reason") == "SchedulingGated")
        {
            "SchedulingGated".clone_into(&mut status);
        }
        let inits = row.list("/spec/initContainers");
        let is_sidecar = |name: &str| {
            let container = inits.iter().find(|container| text(container, "name") == name);
            container.is_some_and(|container| text(container, "restartPolicy") == "Always")
        };
        let sidecars = inits
            .iter()
            .filter(|container| text(container, "restartPolicy") == "Always")
            .count();
        let total = row.list("/spec/containers").len() + sidecars;
        let mut summary = Self {
            status,
            ready: 0,
            total,
            restarts: 0,
            last_restart: None,
        };
        let mut of_sidecars = (0, None);
        let mut initializing = false;
        for (index, container) in row.list("/status/initContainerStatuses").iter().enumerate() {
            let sidecar = is_sidecar(text(container, "name"));
            summary.count_restarts(container);
            if sidecar {
                of_sidecars.0 += restarts(container);
                of_sidecars.1 = of_sidecars.1.max(last_end(container));
            }
            let started = container.get("started").and_then(Value::as_bool).unwrap_or_default();
            let (terminated, waiting) = (state(container, "terminated"), state(container, "waiting"));
            match (terminated, waiting) {
                (Some(end), _) if exit_code(end) == 0 => continue,
                _ if sidecar && started => {
                    summary.ready += usize::from(is_ready(container));
                    continue;
                }
                (Some(end), _) => summary.status = format!("Init:{}", end_reason(end)),
                (None, Some(wait)) if !matches!(text(wait, "reason"), "" | "PodInitializing") => {
                    summary.status = format!("Init:{}", text(wait, "reason"));
                }
                _ => summary.status = format!("Init:{index}/{}", inits.len()),
            }
            initializing = true;
            break;
        }
        if !initializing || row.has_condition("Initialized") {
            (summary.restarts, summary.last_restart) = of_sidecars;
            summary.add_containers(row);
        }
        if row.is_deleted() {
            if own_reason == "NodeLost" {
                "Unknown".clone_into(&mut summary.status);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.status);
            }
        }
        summary
    }

    fn add_containers(&mut self, row: &Row<'_>) {
        let mut running = false;
        for container in row.list("/status/containerStatuses").iter().rev() {
            self.count_restarts(container);
            let waiting = state(container, "waiting")
                .map(|wait| text(wait, "reason"))
                .filter(|reason| !reason.is_empty());
            if let Some(reason) = waiting {
                reason.clone_into(&mut self.status);
            } else if let Some(end) = state(container, "terminated") {
                self.status = end_reason(end);
            } else if is_ready(container) && state(container, "running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // One container has ended and another runs.
        if self.status == "Completed" && running {
            let ready = row.has_condition("Ready");
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.status);
        }
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += restarts(container);
        self.last_restart = self.last_restart.max(last_end(container));
    }
}

fn state<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    container.get("state")?.get(name).filter(|state| !state.is_null())
}

fn restarts(container: &Value) -> i64 {
    container
        .get("restartCount")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

fn last_end(container: &Value) -> Option<i64> {
    container
        .pointer("/lastState/terminated/finishedAt")
        .and_then(Value::as_str)
        .and_then(seconds)
}

fn is_ready(container: &Value) -> bool {
    container.get("ready").and_then(Value::as_bool).unwrap_or_default()
}

fn exit_code(end: &Value) -> i64 {
    end.get("exitCode").and_then(Value::as_i64).unwrap_or_default()
}

fn end_reason(end: &Value) -> String {
    let signal = end.get("signal").and_then(Value::as_i64).unwrap_or_default();
    match (text(end, "reason"), signal) {
        ("", 0) => format!("ExitCode:{}", exit_code(end)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

pub(super) fn pod_template(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("/template/spec/containers");
    vec![row.name(), names, images, row.labels("/template/metadata/labels")]
}

const CONTAINERS: &str = "/spec/template/spec/containers";

/// Also of replication controllers.
pub(super) fn replica_set(row: &Row<'_>) -> Vec<Value> {
    let counts = ["/spec/replicas", "/status/replicas", "/status/readyReplicas"].map(|path| row.count(path).into());
    let is_selector =
        row.at("/spec/selector/matchLabels").is_some() || row.at("/spec/selector/matchExpressions").is_some();
    let selector = if is_selector {
        row.selector("/spec/selector")
    } else {
        row.labels("/spec/selector")
    };
    let cells = with(with(vec![row.name()], counts), [row.age()]);
    with(with(cells, row.containers(CONTAINERS)), [selector])
}

fn ready_of(row: &Row<'_>) -> Value {
    format!("{}/{}", row.count("/status/readyReplicas"), row.count("/spec/replicas")).into()
}

pub(super) fn deployment(row: &Row<'_>) -> Vec<Value> {
    let counts = ["/status/updatedReplicas", "/status/availableReplicas"].map(|path| row.count(path).into());
    let cells = with(with(vec![row.name(), ready_of(row)], counts), [row.age()]);
    with(
        with(cells, row.containers(CONTAINERS)),
        [row.selector("/spec/selector")],
    )
}

pub(super) fn stateful_set(row: &Row<'_>) -> Vec<Value> {
    with(vec![row.name(), ready_of(row), row.age()], row.containers(CONTAINERS))
}

pub(super) fn daemon_set(row: &Row<'_>) -> Vec<Value> {
    let names = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    let counts = names.map(|name| row.count(&format!("/status/{name}")).into());
    let cells = with(vec![row.name()], counts);
    let cells = with(cells, [row.labels("/spec/template/spec/nodeSelector"), row.age()]);
    with(
        with(cells, row.containers(CONTAINERS)),
        [row.selector("/spec/selector")],
    )
}

pub(super) fn controller_revision(row: &Row<'_>) -> Vec<Value> {
    let mut owners = row.list("/metadata/ownerReferences").iter();
    let owner = owners.find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    let owner = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = text(owner, "apiVersion")
                .split_once('/')
                .map(|(group, _)| format!(".{group}"));
            format!(
                "{}{}/{}",
                text(owner, "kind").to_lowercase(),
                group.unwrap_or_default(),
                text(owner, "name")
            )
        },
    );
    vec![row.name(), owner.into(), row.count("/revision").into(), row.age()]
}

pub(super) fn job(row: &Row<'_>) -> Vec<Value> {
    let succeeded = row.count("/status/succeeded");
    let completions = match row.at("/spec/completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match row.count("/spec/parallelism") {
            several @ 2.. => format!("{succeeded}/1 of {several}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let duration = match (
        seconds(row.text("/status/startTime")),
        seconds(row.text("/status/completionTime")),
    ) {
        (None, _) => String::new(),
        (Some(start), end) => age(end.unwrap_or(row.now) - start),
    };
    let status = [("Complete", "Complete"), ("Failed", "Failed")]
        .into_iter()
        .find(|(kind, _)| row.has_condition(kind));
    let later = [("Suspended", "Suspended"), ("FailureTarget", "FailureTarget")]
        .into_iter()
        .find(|(kind, _)| row.has_condition(kind));
    let status = match (status, later) {
        (Some((_, status)), _) => status,
        (None, _) if row.is_deleted() => "Terminating",
        (None, Some((_, status))) => status,
        (None, None) => "Running",
    };
    let cells = vec![
        row.name(),
        status.into(),
        completions.into(),
        duration.into(),
        row.age(),
    ];
    with(
        with(cells, row.containers(CONTAINERS)),
        [row.selector("/spec/selector")],
    )
}

pub(super) fn cron_job(row: &Row<'_>) -> Vec<Value> {
    let suspend = match row.at("/spec/suspend").and_then(Value::as_bool) {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    let last = match row.text("/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        time => row.since(time),
    };
    let cells = vec![
        row.name(),
        row.text("/spec/schedule").into(),
        row.text_or("/spec/timeZone", "<none>"),
        suspend.into(),
        row.list("/status/active").len().into(),
        last.into(),
        row.age(),
    ];
    let cells = with(cells, row.containers("/spec/jobTemplate/spec/template/spec/containers"));
    with(cells, [row.selector("/spec/jobTemplate/spec/selector")])
}

pub(super) fn disruption_budget(row: &Row<'_>) -> Vec<Value> {
    let limit = |path: &str| Value::from(scalar(row.at(path), "N/A"));
    let allowed = row.count("/status/disruptionsAllowed").into();
    vec![
        row.name(),
        limit("/spec/minAvailable"),
        limit("/spec/maxUnavailable"),
        allowed,
        row.age(),
    ]
}

pub(super) fn autoscaler(row: &Row<'_>) -> Vec<Value> {
    let target = format!(
        "{}/{}",
        row.text("/spec/scaleTargetRef/kind"),
        row.text("/spec/scaleTargetRef/name")
    );
    let statuses = row.list("/status/currentMetrics");
    let specs = row.list("/spec/metrics").iter().enumerate();
    let metrics: Vec<String> = specs.map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    let metrics = if metrics.is_empty() {
        "<none>".to_owned()
    } else {
        first_of(&metrics, 2, ", ")
    };
    vec![
        row.name(),
        target.into(),
        metrics.into(),
        scalar(row.at("/spec/minReplicas"), "<unset>").into(),
        row.count("/spec/maxReplicas").into(),
        row.count("/status/currentReplicas").into(),
        row.age(),
    ]
}

/// `cpu: 42%/80%`, `5/10 (avg)`: what is and what should be.
fn metric(spec: &Value, status: Option<&Value>) -> String {
    let kind = text(spec, "type");
    let mut field: String = kind.chars().take(1).flat_map(char::to_lowercase).collect();
    field.extend(kind.chars().skip(1));
    let Some(source) = spec.get(&field) else {
        return "<unknown type>".to_owned();
    };
    let target = |name: &str| source.get("target").and_then(|target| target.get(name));
    let current = |name: &str| status.and_then(|s| s.get(&field)?.get("current")?.get(name));
    let of_resource = kind == "Resource" || kind == "ContainerResource";
    let prefix = if of_resource {
        format!("{}: ", text(source, "name"))
    } else {
        String::new()
    };
    if let Some(wanted) = target("averageValue") {
        let suffix = if matches!(kind, "External" | "Object") {
            " (avg)"
        } else {
            ""
        };
        let is = scalar(current("averageValue"), "<unknown>");
        return format!("{prefix}{is}/{}{suffix}", scalar(Some(wanted), ""));
    }
    if of_resource {
        let percent =
            |value: Option<&Value>, none: &str| value.map_or_else(|| none.to_owned(), |value| format!("{value}%"));
        let is = percent(current("averageUtilization"), "<unknown>");
        return format!("{prefix}{is}/{}", percent(target("averageUtilization"), "<auto>"));
    }
    format!(
        "{}/{}",
        scalar(current("value"), "<unknown>"),
        scalar(target("value"), "")
    )
}
