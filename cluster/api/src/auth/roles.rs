//! The role objects, parsed once per change.

use crate::json;
use crate::rbac::Roles;
use crate::store::Store;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const CLUSTER_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const ROLES: &str = "roles.rbac.authorization.k8s.io";
const BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";

/// The roles and bindings at some moment.
#[derive(Debug, Default)]
pub(crate) struct RoleSet {
    revisions: [u64; 4],
    cluster_roles: HashMap<String, Arc<Value>>,
    cluster_bindings: Vec<Arc<Value>>,
    roles: HashMap<(String, String), Arc<Value>>,
    bindings: HashMap<String, Vec<Arc<Value>>>,
}

impl Roles for RoleSet {
    fn cluster_role_bindings(&self) -> Vec<Arc<Value>> {
        self.cluster_bindings.clone()
    }

    fn role_bindings(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.bindings.get(namespace).cloned().unwrap_or_default()
    }

    fn cluster_role(&self, name: &str) -> Option<Arc<Value>> {
        self.cluster_roles.get(name).cloned()
    }

    fn role(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

impl RoleSet {
    fn read(store: &Store, revisions: [u64; 4]) -> Self {
        let all = |collection: &str| -> Vec<Arc<Value>> {
            let (_, all) = store.list(collection, "", None);
            all.iter().map(|stored| Arc::new(stored.value())).collect()
        };
        let name = |value: &Value| json::text(value, "/metadata/name").to_owned();
        let namespace = |value: &Value| json::text(value, "/metadata/namespace").to_owned();
        let mut bindings: HashMap<String, Vec<Arc<Value>>> = HashMap::new();
        for binding in all(BINDINGS) {
            bindings.entry(namespace(&binding)).or_default().push(binding);
        }
        Self {
            revisions,
            cluster_roles: all(CLUSTER_ROLES).into_iter().map(|role| (name(&role), role)).collect(),
            cluster_bindings: all(CLUSTER_BINDINGS),
            roles: all(ROLES)
                .into_iter()
                .map(|role| ((namespace(&role), name(&role)), role))
                .collect(),
            bindings,
        }
    }
}

/// Keeps the roles until one of them changes.
#[derive(Debug, Default)]
pub(crate) struct RoleCache(Mutex<Arc<RoleSet>>);

impl RoleCache {
    pub(crate) fn current(&self, store: &Store) -> Arc<RoleSet> {
        let revisions = [CLUSTER_ROLES, CLUSTER_BINDINGS, ROLES, BINDINGS].map(|collection| store.latest(collection));
        let mut set = self.0.lock();
        if set.revisions != revisions {
            *set = Arc::new(RoleSet::read(store, revisions));
        }
        set.clone()
    }
}
