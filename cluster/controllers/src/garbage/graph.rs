//! Who owns whom. In: metadata of all objects as it changes. Out: which objects want a look, and what is to be done with one, given
//! what its owners turn out to be. Pure: no request is made here.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Finalizer of an object that goes after its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object that leaves its dependents.
pub(crate) const ORPHAN: &str = "orphan";

/// An object in the graph.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Node {
    /// Index of its resource among all that are watched.
    pub(crate) resource: usize,
    /// Its namespace, if it has one.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its owners.
    pub(crate) owners: Vec<OwnerReference>,
    /// Being deleted, and how.
    pub(crate) ending: Ending,
}

/// Whether an object is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    /// It is not.
    #[default]
    No,
    /// It is, and its dependents are none of its business.
    Plain,
    /// It waits for dependents that block it.
    Foreground,
    /// Its dependents are to be made free.
    Orphan,
}

impl Ending {
    /// How the object with this metadata is being deleted.
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        match meta.deletion_timestamp {
            None => Self::No,
            Some(_) if has(FOREGROUND) => Self::Foreground,
            Some(_) if has(ORPHAN) => Self::Orphan,
            Some(_) => Self::Plain,
        }
    }
}

/// What an owner turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is there.
    Solid,
    /// It is there and waits for its dependents to go.
    Waiting,
    /// It is gone.
    Gone,
}

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Nothing.
    Keep,
    /// It keeps only these owners.
    Owners(Vec<OwnerReference>),
    /// Delete it.
    Delete {
        /// Whether its own dependents have to go before it.
        foreground: bool,
    },
}

/// All objects and who owns them.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: BTreeMap<String, Node>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    /// Of resources that are being listed anew: what was seen so far.
    listing: BTreeMap<usize, BTreeSet<String>>,
}

impl Graph {
    /// The object with this uid.
    pub(crate) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The uids of the objects that this one owns.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// An object came or changed; the uids of those that now want a look.
    pub(crate) fn put(&mut self, resource: usize, meta: &ObjectMeta) -> Vec<String> {
        let uid = meta.uid.clone().unwrap_or_default();
        let node = Node {
            resource,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            ending: Ending::of(meta),
        };
        if let Some(seen) = self.listing.get_mut(&resource) {
            seen.insert(uid.clone());
        }
        if self.nodes.get(&uid) == Some(&node) {
            return Vec::new();
        }
        self.unlink(&uid);
        for owner in &node.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        let mut looks = Vec::new();
        let unsure = |owner: &OwnerReference| {
            self.nodes
                .get(&owner.uid)
                .is_none_or(|owner| owner.ending == Ending::Foreground)
        };
        if node.owners.iter().any(unsure) {
            looks.push(uid.clone());
        }
        if matches!(node.ending, Ending::Foreground | Ending::Orphan) {
            looks.push(uid.clone());
        }
        if node.ending == Ending::Foreground {
            looks.extend(self.dependents(&uid));
        }
        self.nodes.insert(uid, node);
        looks
    }

    /// An object is gone; the uids of those that now want a look: what it owned, and owners that wait for it.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<String> {
        self.unlink(uid);
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut looks = self.dependents(uid);
        looks.extend(
            node.owners
                .into_iter()
                .map(|owner| owner.uid)
                .filter(|owner| self.nodes.contains_key(owner)),
        );
        looks
    }

    /// A resource is listed anew.
    pub(crate) fn list(&mut self, resource: usize) {
        self.listing.insert(resource, BTreeSet::new());
    }

    /// A resource has been listed: what was not seen is gone.
    pub(crate) fn listed(&mut self, resource: usize) -> Vec<String> {
        let seen = self.listing.remove(&resource).unwrap_or_default();
        let gone =
            |(uid, node): (&String, &Node)| (node.resource == resource && !seen.contains(uid)).then(|| uid.clone());
        let gone: Vec<_> = self.nodes.iter().filter_map(gone).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn unlink(&mut self, uid: &str) {
        for owner in self.nodes.get(uid).map(|node| node.owners.clone()).unwrap_or_default() {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    /// The dependents for which an object that goes in the foreground still waits.
    pub(crate) fn blockers(&self, uid: &str) -> Vec<String> {
        let blocks = |dependent: &String| {
            let owners = self
                .nodes
                .get(dependent)
                .map(|node| node.owners.as_slice())
                .unwrap_or_default();
            owners
                .iter()
                .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        self.dependents(uid).into_iter().filter(blocks).collect()
    }
}

/// What is to be done with an object that has these owners, and dependents or not.
pub(crate) fn decide(owners: &[(OwnerReference, Owner)], has_dependents: bool) -> Decision {
    let solid: Vec<_> = owners
        .iter()
        .filter(|(_, how)| *how == Owner::Solid)
        .map(|(owner, _)| owner.clone())
        .collect();
    if owners.is_empty() || solid.len() == owners.len() {
        Decision::Keep
    } else if !solid.is_empty() {
        Decision::Owners(solid)
    } else {
        let waiting = owners.iter().any(|(_, how)| *how == Owner::Waiting);
        Decision::Delete {
            foreground: waiting && has_dependents,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, owners: &[&str], finalizers: &[&str], deleted: bool) -> ObjectMeta {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            uid: Some(uid.to_owned()),
            name: Some(format!("name of {uid}")),
            owner_references: Some(owners.iter().map(owner).collect()),
            finalizers: Some(finalizers.iter().map(|f| (*f).to_owned()).collect()),
            deletion_timestamp: deleted
                .then(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-11-21T00:00:00Z".parse().unwrap())),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_an_owner_leaves_behind_wants_a_look() {
        let mut graph = Graph::default();
        assert_eq!(graph.put(0, &meta("owner", &[], &[], false)), [""; 0]);
        assert_eq!(graph.put(1, &meta("child", &["owner"], &[], false)), [""; 0]);
        assert_eq!(
            graph.put(1, &meta("child of nobody", &["never seen"], &[], false)),
            ["child of nobody"]
        );
        assert_eq!(graph.remove("owner"), ["child"]);
    }

    #[test]
    fn an_owner_in_the_foreground_waits_for_those_that_block_it() {
        let mut graph = Graph::default();
        graph.put(0, &meta("owner", &[], &[], false));
        graph.put(1, &meta("child", &["owner"], &[], false));
        assert_eq!(
            graph.put(0, &meta("owner", &[], &[FOREGROUND], true)),
            ["owner", "child"]
        );
        assert_eq!(graph.blockers("owner"), ["child"]);
        assert_eq!(graph.remove("child"), ["owner"]);
        assert_eq!(graph.blockers("owner"), [""; 0]);
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone() {
        let mut graph = Graph::default();
        graph.put(0, &meta("owner", &[], &[], false));
        graph.put(1, &meta("child", &["owner"], &[], false));
        graph.list(0);
        assert_eq!(graph.listed(0), ["child"]);
        assert!(graph.node("owner").is_none() && graph.node("child").is_some());
    }

    #[test]
    fn an_object_goes_when_no_owner_is_left() {
        let owner = |uid: &str| meta("x", &[uid], &[], false).owner_references.unwrap().remove(0);
        let (a, b) = (owner("a"), owner("b"));
        let decide = |owners: &[(&OwnerReference, Owner)], has| {
            decide(
                &owners.iter().map(|(o, how)| ((*o).clone(), *how)).collect::<Vec<_>>(),
                has,
            )
        };
        assert_eq!(decide(&[], true), Decision::Keep);
        assert_eq!(decide(&[(&a, Owner::Solid)], true), Decision::Keep);
        assert_eq!(
            decide(&[(&a, Owner::Solid), (&b, Owner::Gone)], true),
            Decision::Owners(vec![a.clone()])
        );
        assert_eq!(
            decide(&[(&a, Owner::Gone), (&b, Owner::Gone)], true),
            Decision::Delete { foreground: false }
        );
        assert_eq!(
            decide(&[(&a, Owner::Waiting), (&b, Owner::Gone)], true),
            Decision::Delete { foreground: true }
        );
        assert_eq!(
            decide(&[(&a, Owner::Waiting)], false),
            Decision::Delete { foreground: false }
        );
    }
}
