// N1

use super::*;
use serde_json::json;

struct Cluster(Vec<Arc<Value>>);

impl Cluster {
    fn find(&self, kind: &str, namespace: &str) -> Vec<Arc<Value>> {
        let all = self.0.iter().filter(|object| text(object, "kind") == kind);
        let here = all.filter(|object| text(&object["metadata"], "namespace") == namespace);
        here.cloned().collect()
    }

    fn named(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.find(kind, namespace)
            .into_iter()
            .find(|object| text(&object["metadata"], "name") == name)
    }
}

impl Roles for Cluster {
    fn cluster_role_bindings(&self) -> Vec<Arc<Value>> {
        self.find("ClusterRoleBinding", "")
    }

    fn role_bindings(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.find("RoleBinding", namespace)
    }

    fn cluster_role(&self, name: &str) -> Option<Arc<Value>> {
        self.named("ClusterRole", "", name)
    }

    fn role(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.named("Role", namespace, name)
    }
}

fn recorded() -> (Cluster, Value) {
    let recorded: Value = serde_json::from_str(include_str!("../../recorded/rbac.json")).unwrap();
    let own = recorded["objects"].as_array().unwrap().iter().cloned();
    (
        Cluster(bootstrap().into_iter().chain(own).map(Arc::new).collect()),
        recorded,
    )
}

#[test]
fn decisions_and_reasons_are_the_servers() {
    let (cluster, recorded) = recorded();
    for review in recorded["reviews"].as_array().unwrap() {
        let spec = &review["spec"];
        let groups: Vec<String> = list(spec, "groups")
            .iter()
            .map(|group| group.as_str().unwrap().to_owned())
            .collect();
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let verb = if resource.is_object() {
            text(resource, "verb")
        } else {
            text(path, "verb")
        };
        let attributes = Attributes {
            user: text(spec, "user"),
            groups: &groups,
            verb,
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            name: text(resource, "name"),
            namespace: text(resource, "namespace"),
            path: text(path, "path"),
        };
        let expected = Decision {
            allowed: review["status"]["allowed"] == true,
            reason: text(&review["status"], "reason").to_owned(),
        };
        let decision = authorize(&cluster, &attributes);
        assert_eq!(decision.allowed, expected.allowed, "{spec}");
        // Of several bindings that allow a request the server names any.
        if !expected.reason.contains("\"system:") {
            assert_eq!(decision, expected, "{spec}");
        }
    }
}

#[test]
fn what_a_user_may_not_grant_is_listed_as_by_the_server() {
    let (cluster, recorded) = recorded();
    let groups = ["some".to_owned(), "system:authenticated".to_owned()];
    for grant in recorded["grants"].as_array().unwrap() {
        let missing = missing_rules(&cluster, "bob", &groups, "recorded", grant["rules"].as_array().unwrap());
        let expected: Vec<&str> = text(grant, "message").lines().skip(1).collect();
        assert_eq!(missing, expected, "{}", grant["rules"]);
    }
    assert!(
        missing_rules(
            &cluster,
            "root",
            &["system:masters".to_owned()],
            "",
            &[json!({"verbs": ["*"]})]
        )
        .is_empty()
    );
}

#[test]
fn the_rules_of_a_user_are_those_of_the_servers_review() {
    let (cluster, recorded) = recorded();
    let (resources, paths) = rules_of(&cluster, "ann", &["system:authenticated".to_owned()], "recorded");
    let sorted = |rules: &[Value]| {
        let mut rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        rules.sort();
        rules
    };
    assert_eq!(sorted(&resources), sorted(list(&recorded["rules"], "resourceRules")));
    assert_eq!(sorted(&paths), sorted(list(&recorded["rules"], "nonResourceRules")));
}

#[test]
fn refusals_are_worded_as_by_the_server() {
    let mut attributes = Attributes {
        user: "x",
        verb: "get",
        resource: "pods",
        namespace: "n",
        ..Attributes::default()
    };
    assert_eq!(
        forbidden_message(&attributes),
        "User \"x\" cannot get resource \"pods\" in API group \"\" in the namespace \"n\""
    );
    (attributes.namespace, attributes.subresource, attributes.group) = ("", "status", "apps");
    assert_eq!(
        forbidden_message(&attributes),
        "User \"x\" cannot get resource \"pods/status\" in API group \"apps\" at the cluster scope"
    );
    (attributes.resource, attributes.path) = ("", "/metrics");
    assert_eq!(
        forbidden_message(&attributes),
        "User \"x\" cannot get path \"/metrics\""
    );
}

#[test]
fn the_default_roles_are_aggregated_and_take_in_roles_with_the_label() {
    let mut all: Vec<Arc<Value>> = bootstrap().into_iter().map(Arc::new).collect();
    let named = |all: &[Arc<Value>], name: &str| {
        let role = all
            .iter()
            .find(|o| text(o, "kind") == "ClusterRole" && text(&o["metadata"], "name") == name);
        Arc::clone(role.unwrap())
    };
    let (view, edit, admin) = (named(&all, "view"), named(&all, "edit"), named(&all, "admin"));
    assert!(
        rules(&view).len() > 5 && rules(&edit).len() > rules(&view).len() && rules(&admin).len() > rules(&edit).len()
    );
    let rule = json!({"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]});
    all.push(Arc::new(
        json!({"kind": "ClusterRole", "rules": [rule], "metadata": {"name": "things",
        "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}}),
    ));
    assert!(aggregate(&view, &all).unwrap().contains(&rule));
    assert_eq!(aggregate(&named(&all, "cluster-admin"), &all), None);
}
