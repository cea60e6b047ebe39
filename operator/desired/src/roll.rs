//! ServiceMeshMemberRoll: which namespaces a mesh has.

use crate::error::Collector;
use crate::{Problem, SpecErrors, checks};
use kube_core::labels::{Selector, SelectorExt};
use mizzen_crds::maistra::{SINGLETON_NAME, ServiceMeshMemberRoll};
use std::collections::{BTreeMap, BTreeSet};

/// A roll with nothing wrong with it.
#[derive(Clone, Debug)]
pub struct ValidatedRoll {
    mesh_namespace: String,
    operator_namespace: String,
    members: Members,
}

/// How a roll says which namespaces are meant.
#[derive(Clone, Debug)]
pub enum Members {
    /// By name.
    Named(BTreeSet<String>),
    /// All of them.
    All,
    /// By labels; one selector must match.
    Selected(Vec<Selector>),
}

/// What a roll means in the cluster as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Namespaces that exist.
    pub present: BTreeSet<String>,
    /// Namespaces that are named and do not exist (yet).
    pub missing: BTreeSet<String>,
}

impl ValidatedRoll {
    /// Checks a roll.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(roll: &ServiceMeshMemberRoll, operator_namespace: &str) -> Result<Self, SpecErrors> {
        let name = roll.metadata.name.clone().unwrap_or_default();
        let namespace = roll.metadata.namespace.clone().unwrap_or_default();
        let mut errors = Collector::new("ServiceMeshMemberRoll", &namespace, &name);
        if name != SINGLETON_NAME {
            errors.add("metadata.name", Problem::WrongName(name));
        }
        if namespace == operator_namespace {
            let why = "is the operator's own";
            errors.add(
                "metadata.namespace",
                Problem::WrongNamespace {
                    namespace: namespace.clone(),
                    why,
                },
            );
        }
        let names = roll.spec.members.as_deref().unwrap_or_default();
        let selectors = roll.spec.member_selectors.as_deref().unwrap_or_default();
        if !names.is_empty() && !selectors.is_empty() {
            errors.add(
                "spec.members",
                Problem::Excludes {
                    other: "spec.memberSelectors",
                },
            );
        }
        let members = if selectors.is_empty() {
            check_names(names, &namespace, operator_namespace, &mut errors)
        } else {
            let mut parsed = Vec::new();
            for (n, selector) in selectors.iter().enumerate() {
                match Selector::try_from(selector.clone()) {
                    Ok(selector) => parsed.push(selector),
                    Err(error) => {
                        errors.add(
                            format!("spec.memberSelectors[{n}]"),
                            Problem::BadSelector(error.to_string()),
                        );
                    }
                }
            }
            Members::Selected(parsed)
        };
        errors.finish()?;
        Ok(Self {
            mesh_namespace: namespace,
            operator_namespace: operator_namespace.to_owned(),
            members,
        })
    }

    /// How the roll says which namespaces are meant.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Which of the namespaces that exist are meant, and which are missing.
    #[must_use]
    pub fn resolve<'a>(
        &self,
        namespaces: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>)>,
    ) -> Resolved {
        let mut resolved = Resolved::default();
        if let Members::Named(names) = &self.members {
            resolved.missing = names.clone();
        }
        for (name, labels) in namespaces {
            let meant = match &self.members {
                Members::Named(names) => names.contains(name),
                Members::All => self.may_match(name),
                Members::Selected(selectors) => {
                    self.may_match(name) && selectors.iter().any(|selector| selector.matches(labels))
                }
            };
            if meant {
                resolved.missing.remove(name);
                resolved.present.insert(name.to_owned());
            }
        }
        resolved
    }

    /// What "all" and selectors never mean: the mesh's own namespace, the operator's, and those of the platform.
    fn may_match(&self, name: &str) -> bool {
        let platform = matches!(name, "kube" | "openshift")
            || ["kube-", "openshift-", "ibm-"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        !platform && name != self.mesh_namespace && name != self.operator_namespace
    }
}

fn check_names(names: &[String], mesh: &str, operator: &str, errors: &mut Collector) -> Members {
    if names.len() == 1 && names.iter().all(|name| name == "*") {
        return Members::All;
    }
    let mut seen = BTreeSet::new();
    for (n, name) in names.iter().enumerate() {
        let field = format!("spec.members[{n}]");
        let wrong = |why| Problem::WrongNamespace {
            namespace: name.clone(),
            why,
        };
        if name == "*" {
            errors.add(&field, Problem::Excludes { other: "other members" });
        } else if let Err(problem) = checks::name(name) {
            errors.add(&field, problem);
        } else if name == operator {
            errors.add(&field, wrong("is the operator's own"));
        } else if matches!(name.as_str(), "kube-system" | "kube-public" | "kube-node-lease") {
            errors.add(&field, wrong("is the cluster's own"));
        }
        if !seen.insert(name.clone()) {
            errors.add(&field, Problem::Duplicate(name.clone()));
        }
    }
    // The mesh's own namespace is in it anyway, and means the right thing.
    seen.remove(mesh);
    Members::Named(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn roll(spec: Value) -> ServiceMeshMemberRoll {
        serde_json::from_value(json!({
            "apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll",
            "metadata": {"name": "default", "namespace": "mesh"}, "spec": spec,
        }))
        .unwrap()
    }

    fn resolve(spec: Value) -> Resolved {
        let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
        let cluster = [
            ("mesh", labels("a")),
            ("op", labels("a")),
            ("kube-system", labels("a")),
            ("one", labels("a")),
            ("two", labels("b")),
        ];
        let roll = ValidatedRoll::check(&roll(spec), "op").unwrap();
        roll.resolve(cluster.iter().map(|(name, labels)| (*name, labels)))
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    // A3
    #[test]
    fn a_named_namespace_that_does_not_exist_is_missing() {
        let resolved = resolve(json!({"members": ["one", "later"]}));
        assert_eq!(
            resolved,
            Resolved {
                present: set(&["one"]),
                missing: set(&["later"])
            }
        );
    }

    #[test]
    fn all_means_neither_platform_nor_mesh_nor_operator() {
        assert_eq!(resolve(json!({"members": ["*"]})).present, set(&["one", "two"]));
    }

    #[test]
    fn one_selector_is_enough() {
        let spec = json!({"memberSelectors": [{"matchLabels": {"team": "b"}}, {"matchLabels": {"team": "c"}}]});
        assert_eq!(resolve(spec).present, set(&["two"]));
    }

    #[test]
    fn every_error_is_told_at_once() {
        let mut bad = roll(json!({"members": ["*", "one", "one", "mesh", "op", "A"], "memberSelectors": [{}]}));
        bad.spec.member_selectors = None;
        bad.metadata.name = Some("other".to_owned());
        let fields: Vec<_> = ValidatedRoll::check(&bad, "op")
            .unwrap_err()
            .errors()
            .iter()
            .map(|e| e.field.clone())
            .collect();
        assert_eq!(
            fields,
            [
                "metadata.name",
                "spec.members[0]",
                "spec.members[2]",
                "spec.members[4]",
                "spec.members[5]"
            ]
        );
    }

    // A3
    #[test]
    fn the_meshs_own_namespace_is_in_it_anyway_and_counts_for_numbers() {
        assert_eq!(resolve(json!({"members": ["mesh", "one"]})).present, set(&["one"]));
        let bad = roll(json!({"members": ["mesh", "one", "one"]}));
        let errors = ValidatedRoll::check(&bad, "op").unwrap_err();
        assert_eq!(errors.errors()[0].field, "spec.members[2]");
    }

    #[test]
    fn names_and_selectors_exclude_each_other() {
        let bad = roll(json!({"members": ["one"], "memberSelectors": [{"matchLabels": {"a": "b"}}]}));
        let text = ValidatedRoll::check(&bad, "op").unwrap_err().to_string();
        assert_eq!(
            text,
            "ServiceMeshMemberRoll mesh/default: spec.members: cannot be said together with spec.memberSelectors; \
             remove one of the two"
        );
    }
}
