//! Role-based access control: who may do what.
//!
//! In: attributes of a request and the role objects. Out: allowed or not with the reason the server gives; the rules of a user;
//! aggregated ClusterRoles; the default roles and bindings. Never: a store; a [`Roles`] gives the objects.

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

mod rules;
#[cfg(test)]
mod tests;

use rules::{allows, compact, covers, singles};

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The user's groups.
    pub groups: &'a [String],
    /// `get`, `list`, …; for non-resource requests the lower-case method.
    pub verb: &'a str,
    /// The API group, empty for core.
    pub group: &'a str,
    /// The plural; empty for a non-resource request.
    pub resource: &'a str,
    /// The subresource or empty.
    pub subresource: &'a str,
    /// The object's name or empty.
    pub name: &'a str,
    /// The namespace or empty.
    pub namespace: &'a str,
    /// The path of a non-resource request.
    pub path: &'a str,
}

/// Where the role objects are.
pub trait Roles {
    /// All ClusterRoleBindings.
    fn cluster_role_bindings(&self) -> Vec<Arc<Value>>;
    /// The RoleBindings of a namespace.
    fn role_bindings(&self, namespace: &str) -> Vec<Arc<Value>>;
    /// A ClusterRole.
    fn cluster_role(&self, name: &str) -> Option<Arc<Value>>;
    /// A Role.
    fn role(&self, namespace: &str, name: &str) -> Option<Arc<Value>>;
}

/// Whether a request is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub allowed: bool,
    /// Why: `RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to User "z"`; for a refusal what was missing, often empty.
    pub reason: String,
}

/// Decides. `system:masters` may do everything.
pub fn authorize(roles: &impl Roles, attributes: &Attributes<'_>) -> Decision {
    if attributes.groups.iter().any(|group| group == "system:masters") {
        return Decision {
            allowed: true,
            reason: String::new(),
        };
    }
    let mut missing = BTreeSet::new();
    for grant in grants(
        roles,
        attributes.user,
        attributes.groups,
        attributes.namespace,
        &mut missing,
    ) {
        if rules(&grant.role).iter().any(|rule| allows(rule, attributes)) {
            let reason = format!("RBAC: allowed by {}", grant.description);
            return Decision { allowed: true, reason };
        }
    }
    let missing: Vec<String> = missing.into_iter().collect();
    let reason = match missing.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        several => format!("RBAC: [{}]", several.join(", ")),
    };
    Decision { allowed: false, reason }
}

/// A role that a binding gives to somebody.
struct Grant {
    role: Arc<Value>,
    /// `ClusterRoleBinding "x" of ClusterRole "y" to User "z"`.
    description: String,
}

/// All roles of a user in a namespace, cluster-wide ones first. Roles that do not exist are named in `missing`.
fn grants(
    roles: &impl Roles,
    user: &str,
    groups: &[String],
    namespace: &str,
    missing: &mut BTreeSet<String>,
) -> Vec<Grant> {
    let cluster = roles.cluster_role_bindings().into_iter().map(|binding| (binding, ""));
    let local = if namespace.is_empty() {
        Vec::new()
    } else {
        roles.role_bindings(namespace)
    };
    let mut grants = Vec::new();
    for (binding, namespace) in cluster.chain(local.into_iter().map(|binding| (binding, namespace))) {
        let Some(subject) = list(&binding, "subjects")
            .iter()
            .find(|s| applies(s, user, groups, namespace))
        else {
            continue;
        };
        let reference = binding.get("roleRef").unwrap_or(&Value::Null);
        let (kind, name) = (text(reference, "kind"), text(reference, "name"));
        let role = match kind {
            "ClusterRole" => roles.cluster_role(name),
            _ => roles.role(namespace, name),
        };
        let Some(role) = role else {
            missing.insert(format!(
                "{}.rbac.authorization.k8s.io {name:?} not found",
                kind.to_lowercase()
            ));
            continue;
        };
        let own = text(binding.get("metadata").unwrap_or(&Value::Null), "name");
        let binding = match namespace {
            "" => format!("ClusterRoleBinding {own:?}"),
            namespace => format!("RoleBinding {:?}", format!("{own}/{namespace}")),
        };
        let description = format!("{binding} of {kind} {name:?} to {}", describe(subject, namespace));
        grants.push(Grant { role, description });
    }
    grants
}

fn describe(subject: &Value, namespace: &str) -> String {
    let (kind, name) = (text(subject, "kind"), text(subject, "name"));
    if kind != "ServiceAccount" {
        return format!("{kind} {name:?}");
    }
    let own = text(subject, "namespace");
    format!(
        "{kind} {:?}",
        format!("{name}/{}", if own.is_empty() { namespace } else { own })
    )
}

fn applies(subject: &Value, user: &str, groups: &[String], namespace: &str) -> bool {
    let name = text(subject, "name");
    match text(subject, "kind") {
        "User" => user == name,
        "Group" => groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let own = text(subject, "namespace");
            let namespace = if own.is_empty() { namespace } else { own };
            let account = user
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'));
            !namespace.is_empty() && account == Some((namespace, name))
        }
        _ => false,
    }
}

/// The sentence after `is forbidden: `: `User "x" cannot get resource "pods" in API group "" in the namespace "default"`.
pub fn forbidden_message(attributes: &Attributes<'_>) -> String {
    let Attributes {
        user,
        verb,
        group,
        resource,
        subresource,
        namespace,
        path,
        ..
    } = attributes;
    if resource.is_empty() {
        return format!("User {user:?} cannot {verb} path {path:?}");
    }
    let resource = match *subresource {
        "" => (*resource).to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    let place = match *namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
}

/// The rules that a user has in a namespace: (`resourceRules`, `nonResourceRules`) of a SelfSubjectRulesReview.
pub fn rules_of(roles: &impl Roles, user: &str, groups: &[String], namespace: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for grant in grants(roles, user, groups, namespace, &mut BTreeSet::new()) {
        for rule in rules(&grant.role) {
            if !list(rule, "resources").is_empty() {
                resources.push(part(rule, &["verbs", "apiGroups", "resources", "resourceNames"]));
            }
            if !list(rule, "nonResourceURLs").is_empty() {
                paths.push(part(rule, &["verbs", "nonResourceURLs"]));
            }
        }
    }
    (resources, paths)
}

fn part(rule: &Value, names: &[&str]) -> Value {
    let fields = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), rule.get(*name)?.clone())));
    Value::Object(fields.collect())
}

/// Rules that `wanted` has and the user has not: writing a role or binding with any is refused (privilege escalation): `user "x"
/// (groups=["a" "b"]) is attempting to grant RBAC permissions not currently held:` and these, each on a line. Empty where all are
/// covered.
pub fn missing_rules(
    roles: &impl Roles,
    user: &str,
    groups: &[String],
    namespace: &str,
    wanted: &[Value],
) -> Vec<String> {
    if groups.iter().any(|group| group == "system:masters") {
        return Vec::new();
    }
    let held: Vec<Grant> = grants(roles, user, groups, namespace, &mut BTreeSet::new());
    let held: Vec<&Value> = held.iter().flat_map(|grant| rules(&grant.role)).collect();
    // By (group, resource, names) or path: the verbs that are missing, in order.
    let mut missing: Vec<(Value, Vec<Value>)> = Vec::new();
    for single in wanted.iter().flat_map(singles) {
        if held.iter().any(|own| covers(own, &single)) {
            continue;
        }
        let key = part(&single, &["apiGroups", "resources", "nonResourceURLs", "resourceNames"]);
        let verb = list(&single, "verbs").first().cloned().unwrap_or_default();
        match missing.iter_mut().find(|(other, _)| *other == key) {
            Some((_, verbs)) if !verbs.contains(&verb) => verbs.push(verb),
            Some(_) => {}
            None => missing.push((key, vec![verb])),
        }
    }
    let shown = missing.into_iter().map(|(mut rule, verbs)| {
        if let Value::Object(rule) = &mut rule {
            rule.insert("verbs".to_owned(), Value::Array(verbs));
        }
        compact(&rule)
    });
    shown.collect::<BTreeSet<String>>().into_iter().collect()
}

/// The rules of a ClusterRole with an `aggregationRule`, gathered from `all`; `None` where it has none.
pub fn aggregate(role: &Value, all: &[Arc<Value>]) -> Option<Vec<Value>> {
    let selectors = role.get("aggregationRule")?.get("clusterRoleSelectors")?.as_array()?;
    let name = |role: &Value| {
        role.pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let own = name(role);
    let mut gathered: Vec<Value> = Vec::new();
    for selector in selectors {
        let Ok(selector) = crate::selector::LabelSelector::from_object(selector) else {
            continue;
        };
        let labels = |role: &Value| {
            role.pointer("/metadata/labels")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_else(Map::new)
        };
        let mut matching: Vec<&Arc<Value>> = all
            .iter()
            .filter(|other| name(other) != own && selector.matches(Some(&labels(other))))
            .collect();
        matching.sort_by_key(|other| name(other));
        for rule in matching.iter().flat_map(|other| rules(other)) {
            if !gathered.contains(rule) {
                gathered.push(rule.clone());
            }
        }
    }
    Some(gathered)
}

/// The ClusterRoles, ClusterRoleBindings, Roles and RoleBindings that every cluster has, each with `apiVersion` and `kind`.
/// Aggregated ClusterRoles come with their rules.
///
/// They are those of Kubernetes 1.33, read from an API server that had just started (`recorded/record bootstrap`).
pub fn bootstrap() -> Vec<Value> {
    let mut all: Vec<Value> = serde_json::from_str(include_str!("../recorded/bootstrap.json")).unwrap_or_default();
    let roles: Vec<Arc<Value>> = all
        .iter()
        .filter(|object| text(object, "kind") == "ClusterRole")
        .cloned()
        .map(Arc::new)
        .collect();
    // The roles that are gathered may be gathered themselves: `view` is in `edit`, which is in `admin`.
    let mut settled = roles;
    for _ in 0..3 {
        settled = settled
            .iter()
            .map(|role| match aggregate(role, &settled) {
                Some(rules) => {
                    let mut role = Value::clone(role);
                    if let Value::Object(role) = &mut role {
                        role.insert("rules".to_owned(), Value::Array(rules));
                    }
                    Arc::new(role)
                }
                None => Arc::clone(role),
            })
            .collect();
    }
    for object in &mut all {
        let same = |role: &&Arc<Value>| {
            text(object, "kind") == "ClusterRole" && role.pointer("/metadata/name") == object.pointer("/metadata/name")
        };
        if let Some(role) = settled.iter().find(same) {
            *object = Value::clone(role);
        }
    }
    all
}

fn rules(role: &Value) -> &[Value] {
    list(role, "rules")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
