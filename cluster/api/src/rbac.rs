//! Role-based access control: who may do what.
//!
//! In: attributes of a request and the role objects. Out: allowed or not with the reason the server gives; the rules of a user;
//! aggregated ClusterRoles; the default roles and bindings. Never: a store; a [`Roles`] gives the objects.

use serde_json::Value;
use std::sync::Arc;

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
    let _ = (roles, attributes);
    todo!()
}

/// The sentence after `is forbidden: `: `User "x" cannot get resource "pods" in API group "" in the namespace "default"`.
pub fn forbidden_message(attributes: &Attributes<'_>) -> String {
    let _ = attributes;
    todo!()
}

/// The rules that a user has in a namespace: (`resourceRules`, `nonResourceRules`) of a SelfSubjectRulesReview.
pub fn rules_of(roles: &impl Roles, user: &str, groups: &[String], namespace: &str) -> (Vec<Value>, Vec<Value>) {
    let _ = (roles, user, groups, namespace);
    todo!()
}

/// Rules that `wanted` has and the user has not: writing a role or binding with any is refused (privilege escalation). The rules
/// as the message shows them, empty where all are covered.
pub fn missing_rules(
    roles: &impl Roles,
    user: &str,
    groups: &[String],
    namespace: &str,
    wanted: &[Value],
) -> Vec<String> {
    let _ = (roles, user, groups, namespace, wanted);
    todo!()
}

/// The rules of a ClusterRole with an `aggregationRule`, gathered from `all`; `None` where it has none.
pub fn aggregate(role: &Value, all: &[Arc<Value>]) -> Option<Vec<Value>> {
    let _ = (role, all);
    todo!()
}

/// The ClusterRoles, ClusterRoleBindings, Roles and RoleBindings that every cluster has, each with `apiVersion` and `kind`.
pub fn bootstrap() -> Vec<Value> {
    todo!()
}
