//! What is wrong with objects in the light of the others.

use std::collections::{BTreeMap, BTreeSet};

use mizzen_model::{
    Destination, DestinationRule, Gateway, GatewayRef, Host, HttpAction, Kind, Labels, Mesh, Namespace, ObjectKey,
    PeerAuthentication, TrafficPolicy, VirtualService,
};

use super::{Index, Value};
use crate::diagnostic::Diagnostic;

/// What is to be said of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which object.
    pub key: ObjectKey,
    /// The `metadata.generation` that the report is about.
    pub generation: Option<i64>,
    /// What is wrong, the worst first; empty if all is well.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether the object is acted on as it is meant, warnings aside.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.diagnostics
            .iter()
            .all(|diagnostic| diagnostic.severity != crate::Severity::Error)
    }
}

impl Index {
    /// Looks at all objects of our own kinds (and the mesh's ConfigMap) that are in the mesh, and gives the reports that are
    /// not what they were when it was asked last: also of objects that are new and well. Looks at everything each time, so
    /// ask when something changed, and not for every change of many.
    pub fn diagnose(&mut self) -> Vec<Report> {
        let reports = self.reports_now();
        let changed = reports
            .values()
            .filter(|report| self.reports.get(&report.key) != Some(*report))
            .cloned();
        let changed = changed.collect();
        self.reports = reports;
        changed
    }

    /// All reports as they were when [`Index::diagnose`] was asked last.
    #[must_use]
    pub fn reports(&self) -> &BTreeMap<ObjectKey, Report> {
        &self.reports
    }

    fn reports_now(&self) -> BTreeMap<ObjectKey, Report> {
        let mut reports = BTreeMap::new();
        let rivals = Rivals::of(&self.mesh);
        for (key, config) in self.configs.iter().filter(|(key, _)| self.is_member(&key.namespace)) {
            let mut diagnostics = config.diagnostics.clone();
            match &config.value {
                Value::VirtualService(value) => virtual_service(&self.mesh, value, &mut diagnostics),
                Value::DestinationRule(value) => destination_rule(&self.mesh, &rivals, value, &mut diagnostics),
                Value::Gateway(value) => gateway(&self.mesh, value, &mut diagnostics),
                Value::PeerAuthentication(value) => peer_authentication(&rivals, value, &mut diagnostics),
                Value::Nothing => {}
            }
            diagnostics.sort_by_key(|diagnostic| diagnostic.severity);
            diagnostics.dedup();
            reports.insert(
                key.clone(),
                Report {
                    key: key.clone(),
                    generation: config.generation,
                    diagnostics,
                },
            );
        }
        if let Some(name) = &self.settings.mesh_config_map {
            let key = ObjectKey::new(Kind::ConfigMap, self.settings.root_namespace().clone(), name.clone());
            let diagnostics = self.mesh_config_diagnostics.clone();
            reports.insert(
                key.clone(),
                Report {
                    key,
                    generation: None,
                    diagnostics,
                },
            );
        }
        reports
    }
}

/// Objects that may say something about the same thing, so that none has to be compared with all.
struct Rivals<'m> {
    rules: BTreeMap<(&'m Namespace, &'m Host), Vec<&'m DestinationRule>>,
    policies: BTreeMap<&'m Namespace, Vec<&'m PeerAuthentication>>,
}

impl<'m> Rivals<'m> {
    fn of(mesh: &'m Mesh) -> Self {
        let mut rivals = Self {
            rules: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        for rule in mesh.destination_rules() {
            rivals
                .rules
                .entry((&rule.key.namespace, &rule.host))
                .or_default()
                .push(rule);
        }
        for policy in mesh.peer_authentications() {
            rivals.policies.entry(&policy.key.namespace).or_default().push(policy);
        }
        rivals
    }
}

fn virtual_service(mesh: &Mesh, route: &VirtualService, found: &mut Vec<Diagnostic>) {
    for (index, http) in route.http.iter().enumerate() {
        let field = format!("spec.http[{index}]");
        match &http.action {
            HttpAction::Forward(destinations) => {
                for (index, weighted) in destinations.iter().enumerate() {
                    let field = format!("{field}.route[{index}].destination");
                    destination(mesh, route, &weighted.destination, &field, found);
                }
            }
            HttpAction::Delegate(key) => delegate(mesh, key, &field, found),
            HttpAction::Redirect(_) | HttpAction::Direct(_) => {}
        }
        for mirror in &http.mirrors {
            destination(mesh, route, &mirror.destination, &format!("{field}.mirror"), found);
        }
    }
    let tls = route
        .tls
        .iter()
        .enumerate()
        .map(|(index, tls)| ("tls", index, &tls.destinations));
    let tcp = route
        .tcp
        .iter()
        .enumerate()
        .map(|(index, tcp)| ("tcp", index, &tcp.destinations));
    for (list, index, destinations) in tls.chain(tcp) {
        for (at, weighted) in destinations.iter().enumerate() {
            let field = format!("spec.{list}[{index}].route[{at}].destination");
            destination(mesh, route, &weighted.destination, &field, found);
        }
    }
    if route.hosts.is_empty() {
        return;
    }
    for at in &route.gateways {
        match at {
            GatewayRef::Mesh => conflicts_at_mesh(mesh, route, found),
            GatewayRef::Gateway { namespace, name } => {
                let key = ObjectKey::new(Kind::Gateway, namespace.clone(), name.clone());
                match mesh.gateway(&key) {
                    Some(gateway) => hosts_at_gateway(gateway, route, found),
                    None => {
                        let message = format!("there is no {key} in the mesh: create it, or correct the name");
                        found.push(Diagnostic::error("GatewayNotFound", "spec.gateways", message));
                    }
                }
            }
        }
    }
}

fn destination(mesh: &Mesh, route: &VirtualService, to: &Destination, field: &str, found: &mut Vec<Diagnostic>) {
    let from = &route.key.namespace;
    let Some(service) = mesh.visible_service(&to.host, from) else {
        let message = format!(
            "no service {} can be seen from namespace {from}, so these requests are answered with 503: correct the host, or \
             let its namespace join the mesh",
            to.host
        );
        found.push(Diagnostic::error("HostNotFound", format!("{field}.host"), message));
        return;
    };
    if let Some(number) = to.port
        && service.port(number).is_none()
    {
        let known: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
        let message = format!("{} has no port {number}, but {}", to.host, known.join(", "));
        found.push(Diagnostic::error(
            "PortNotFound",
            format!("{field}.port.number"),
            message,
        ));
    }
    let Some(subset) = &to.subset else { return };
    let rules = mesh.destination_rules_for(&to.host, from, &Labels::default());
    if rules.subset(subset).is_none() {
        let known: Vec<String> = rules.subsets().iter().map(|subset| subset.name.to_string()).collect();
        let remedy = if known.is_empty() {
            "create a DestinationRule with it".to_owned()
        } else {
            format!("known are {}", known.join(", "))
        };
        let message = format!(
            "no DestinationRule defines subset {subset} of {}, so these requests are answered with 503: {remedy}",
            to.host
        );
        found.push(Diagnostic::error("SubsetNotFound", format!("{field}.subset"), message));
    }
}

fn delegate(mesh: &Mesh, key: &ObjectKey, field: &str, found: &mut Vec<Diagnostic>) {
    let message = match mesh.virtual_service(key) {
        None => format!("there is no {key} in the mesh: create it, or correct the name"),
        Some(route) if !route.hosts.is_empty() => {
            format!("{key} has hosts of its own, so nothing can be left to it: remove its spec.hosts")
        }
        Some(_) => return,
    };
    found.push(Diagnostic::error(
        "DelegateNotFound",
        format!("{field}.delegate"),
        message,
    ));
}

/// At sidecars the oldest VirtualService for a host has it alone.
fn conflicts_at_mesh(mesh: &Mesh, route: &VirtualService, found: &mut Vec<Diagnostic>) {
    for (index, host) in route.hosts.iter().enumerate() {
        let routes = mesh.virtual_services_for(host, &GatewayRef::Mesh, &route.key.namespace);
        let rival = routes.iter().find(|rival| rival.hosts.contains(host));
        if let Some(rival) = rival.filter(|rival| rival.key != route.key) {
            let message = format!(
                "{} is older and has routes for {host} at sidecars too, so these are not used there: merge the two",
                rival.key
            );
            found.push(Diagnostic::warning(
                "HostConflict",
                format!("spec.hosts[{index}]"),
                message,
            ));
        }
    }
}

/// A gateway serves the hosts that it names, for the namespaces that it names.
fn hosts_at_gateway(gateway: &Gateway, route: &VirtualService, found: &mut Vec<Diagnostic>) {
    use mizzen_model::NamespaceFilter;
    for (index, host) in route.hosts.iter().enumerate() {
        let served = gateway.servers.iter().flat_map(|server| &server.hosts).any(|served| {
            let open = match &served.namespace {
                NamespaceFilter::Any => true,
                NamespaceFilter::Only(namespace) => *namespace == route.key.namespace,
            };
            open && served.host.overlaps(host)
        });
        if !served {
            let message = format!(
                "{} does not serve {host} for this namespace: add it to the hosts of a server",
                gateway.key
            );
            found.push(Diagnostic::warning(
                "HostNotServed",
                format!("spec.hosts[{index}]"),
                message,
            ));
        }
    }
}

fn destination_rule(mesh: &Mesh, rivals: &Rivals<'_>, rule: &DestinationRule, found: &mut Vec<Diagnostic>) {
    if !rule.host.is_wildcard() && mesh.visible_service(&rule.host, &rule.key.namespace).is_none() {
        let message = format!(
            "no service {} can be seen from namespace {}, so the rule has no effect: correct the host",
            rule.host, rule.key.namespace
        );
        found.push(Diagnostic::warning("HostNotFound", "spec.host", message));
    }
    let same = rivals
        .rules
        .get(&(&rule.key.namespace, &rule.host))
        .into_iter()
        .flatten();
    let same = same.filter(|other| other.workload_selector == rule.workload_selector);
    let older: Vec<_> = same
        .filter(|other| (other.created, &other.key) < (rule.created, &rule.key))
        .collect();
    let nothing = TrafficPolicy::default();
    if rule.policy != nothing
        && let Some(other) = older.iter().find(|other| other.policy != nothing)
    {
        let message = format!(
            "{} is older and for the same host, so its trafficPolicy counts: merge the two",
            other.key
        );
        found.push(Diagnostic::warning("RuleConflict", "spec.trafficPolicy", message));
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        if let Some(other) = older.iter().find(|other| other.subset(&subset.name).is_some()) {
            let message = format!(
                "{} is older and defines subset {} too, so its counts: rename one",
                other.key, subset.name
            );
            found.push(Diagnostic::warning(
                "SubsetConflict",
                format!("spec.subsets[{index}].name"),
                message,
            ));
        }
    }
}

/// Where a gateway's proxy itself listens: its administration, health and metrics.
const PROXY_PORTS: [u16; 4] = [15000, 15020, 15021, 15090];

fn gateway(mesh: &Mesh, gateway: &Gateway, found: &mut Vec<Diagnostic>) {
    let selected: Vec<_> = mesh
        .workloads()
        .filter(|workload| gateway.selector.selects(&workload.labels))
        .collect();
    if selected.is_empty() {
        let message =
            "no pod of the mesh has these labels, so nothing listens: correct them, or deploy a gateway with them";
        found.push(Diagnostic::warning("NoWorkload", "spec.selector", message));
    }
    let older = mesh.gateways().filter(|other| {
        other.selector == gateway.selector && (other.created, &other.key) < (gateway.created, &gateway.key)
    });
    let older: Vec<_> = older.collect();
    for (index, server) in gateway.servers.iter().enumerate() {
        // A server's port is one of the gateway's service, which leads to one of the pod.
        let own = selected.iter().find_map(|workload| {
            let mut services = workload.services.iter();
            let port = services.find_map(|service| service.ports.get(&server.port).copied());
            Some(port.unwrap_or(server.port)).filter(|port| PROXY_PORTS.contains(port))
        });
        if let Some(port) = own {
            let message =
                format!("port {port} of the pod is the proxy's own, so this server is not opened: use another port");
            found.push(Diagnostic::error(
                "PortReserved",
                format!("spec.servers[{index}].port"),
                message,
            ));
        }
        let rival = older.iter().find(|other| {
            let at_port = other
                .servers
                .iter()
                .filter(|rival| rival.port == server.port && rival.bind == server.bind);
            at_port
                .into_iter()
                // Nothing but HTTP is opened yet, so nothing else takes a port from HTTP.
                .any(|rival| rival.protocol.is_http() && !server.protocol.is_http())
        });
        if let Some(rival) = rival {
            let message = format!(
                "{} is older and opens port {} of the same pods for another protocol, so this server is not opened: \
                 use another port",
                rival.key, server.port
            );
            found.push(Diagnostic::error(
                "PortConflict",
                format!("spec.servers[{index}].port"),
                message,
            ));
        }
    }
}

fn peer_authentication(rivals: &Rivals<'_>, policy: &PeerAuthentication, found: &mut Vec<Diagnostic>) {
    let same = rivals.policies.get(&policy.key.namespace).into_iter().flatten();
    let same = same.filter(|other| other.selector == policy.selector);
    let older: BTreeSet<&ObjectKey> = same
        .filter(|other| (other.created, &other.key) < (policy.created, &policy.key))
        .map(|other| &other.key)
        .collect();
    if let Some(other) = older.first() {
        let message =
            format!("{other} is older and for the same workloads, so it counts and this one does not: merge the two");
        found.push(Diagnostic::error("PolicyConflict", "spec.selector", message));
    }
}
