//! Injection of files: what `mizzen inject` does.
//!
//! In: a stream of YAML or JSON documents. Out: the same stream, in which pods and the pod templates of workloads have their
//! sidecar. Documents in which nothing changes come out byte for byte, the separators between documents too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mizzen_crds::yaml;
use serde_json::Value;

use crate::config::InjectConfig;
use crate::decide::{Candidate, INJECT, decide};
use crate::inject::{InjectError, Workload, inject};

/// Kinds that hold a pod template, and where.
const TEMPLATES: [(&str, &str); 7] = [
    ("Deployment", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// What came of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole stream.
    pub text: String,
    /// What happened to each pod or template, in order.
    pub outcomes: Vec<Outcome>,
}

/// What happened to one pod or template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `Deployment shop/cart`.
    pub object: String,
    /// Why it has no new sidecar; nothing if it has one.
    pub skipped: Option<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Why a file cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A document is not YAML.
    #[error("document {document} is not YAML: {reason}")]
    Yaml {
        /// Counted from 1.
        document: usize,
        /// What the parser says, with the line of the file.
        reason: String,
    },
    /// A pod cannot be injected.
    #[error("{object} cannot be injected")]
    Inject {
        /// `Deployment shop/cart`.
        object: String,
        /// Why.
        source: InjectError,
    },
    /// The result cannot be written.
    #[error("{object} cannot be written as YAML: {reason}")]
    Write {
        /// `Deployment shop/cart`.
        object: String,
        /// Why.
        reason: String,
    },
}

/// Injects a stream of documents. Objects without a namespace count as of `namespace`.
pub fn inject_manifest(text: &str, config: &InjectConfig, namespace: &str) -> Result<Rendered, ManifestError> {
    let mut rendered = Rendered {
        text: String::with_capacity(text.len() * 2),
        outcomes: Vec::new(),
    };
    for (at, document) in documents(text).into_iter().enumerate() {
        rendered.text.push_str(document.separator);
        let parsed: Option<Value> =
            serde_saphyr::from_str_with_options(document.body, yaml_options()).map_err(|error| {
                ManifestError::Yaml {
                    document: at + 1,
                    reason: yaml::reason(&error, document.line),
                }
            })?;
        let mut object = parsed.unwrap_or_default();
        let place = format!("document {}", at + 1);
        // Whoever writes `---` at both ends means nothing by it.
        if !object.is_null() && object_inject(&mut object, &place, config, namespace, &mut rendered.outcomes)? {
            write(&object, document.body, &mut rendered.text)?;
        } else {
            rendered.text.push_str(document.body);
        }
    }
    Ok(rendered)
}

/// Injects one object, or those in a list. Tells whether anything changed. `place` is the name of what has none.
fn object_inject(
    object: &mut Value,
    place: &str,
    config: &InjectConfig,
    namespace: &str,
    outcomes: &mut Vec<Outcome>,
) -> Result<bool, ManifestError> {
    let kind = text(object, "/kind").to_owned();
    let mut pass = |object: String, reason: String| {
        outcomes.push(Outcome {
            object,
            skipped: Some(reason),
            warnings: Vec::new(),
        });
        Ok(false)
    };
    if kind.is_empty() {
        return pass(
            place.to_owned(),
            "it is no object of Kubernetes: it has no kind".to_owned(),
        );
    }
    if kind == "List" {
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return pass(format!("{place} (List)"), "there is nothing in it".to_owned());
        };
        let mut changed = false;
        for (at, item) in items.iter_mut().enumerate() {
            changed |= object_inject(
                item,
                &format!("{place} (List), items[{at}]"),
                config,
                namespace,
                outcomes,
            )?;
        }
        return Ok(changed);
    }
    let own_namespace = text(object, "/metadata/namespace");
    let namespace = if own_namespace.is_empty() {
        namespace
    } else {
        own_namespace
    }
    .to_owned();
    let name = text(object, "/metadata/name");
    let label = label(object, &kind, &namespace);
    let workload = Workload {
        api_version: text(object, "/apiVersion").to_owned(),
        kind: kind.clone(),
        name: name.to_owned(),
    };
    let (pod, workload) = if kind == "Pod" {
        (Some(&mut *object), None)
    } else {
        let path = TEMPLATES
            .iter()
            .find(|(template, _)| *template == kind)
            .map(|(_, path)| *path);
        (path.and_then(|path| object.pointer_mut(path)), Some(workload))
    };
    let Some(pod) = pod else {
        return pass(label, unread_pods(object));
    };
    let (skipped, warnings) =
        pod_inject(pod, config, &namespace, workload).map_err(|source| ManifestError::Inject {
            object: label.clone(),
            source,
        })?;
    let changed = skipped.is_none();
    outcomes.push(Outcome {
        object: label,
        skipped,
        warnings,
    });
    Ok(changed)
}

/// What users call an object. Of one that holds no pods and names no namespace nobody knows whether it is in one.
fn label(object: &Value, kind: &str, namespace: &str) -> String {
    let name = match text(object, "/metadata/name") {
        "" => format!("{}…", text(object, "/metadata/generateName")),
        name => name.to_owned(),
    };
    let pods = kind == "Pod" || TEMPLATES.iter().any(|(template, _)| *template == kind);
    if pods || !text(object, "/metadata/namespace").is_empty() {
        format!("{kind} {namespace}/{name}")
    } else {
        format!("{kind} {name}")
    }
}

/// Why an object of another kind is passed. If it holds pods they get their sidecar in the cluster, or none.
fn unread_pods(object: &Value) -> String {
    let is_pod = |pod: &Value| pod.pointer("/spec/containers").is_some_and(Value::is_array);
    let kind = text(object, "/kind");
    let templates = ["/spec/template", "/spec/jobTemplate/spec/template", "/template"];
    let found = templates.iter().any(|path| object.pointer(path).is_some_and(is_pod))
        || object.pointer("/items").and_then(Value::as_array).is_some_and(|items| {
            items
                .iter()
                .any(|item| is_pod(item) || templates.iter().any(|path| item.pointer(path).is_some_and(is_pod)))
        });
    if found {
        format!(
            "it holds pods, and the kind {kind} is not one that is injected in files: the webhook of the mesh injects its pods"
        )
    } else {
        "it holds no pods".to_owned()
    }
}

fn pod_inject(
    pod: &mut Value,
    config: &InjectConfig,
    namespace: &str,
    workload: Option<Workload>,
) -> Result<(Option<String>, Vec<String>), InjectError> {
    // One entry of a wrong type, which the API server will refuse, must not hide the others.
    let map = |path| -> BTreeMap<String, String> {
        let entries = pod.pointer(path).and_then(Value::as_object).into_iter().flatten();
        entries
            .filter_map(|(key, value)| match value {
                Value::String(text) => Some((key.clone(), text.clone())),
                Value::Bool(yes) => Some((key.clone(), yes.to_string())),
                _ => None,
            })
            .collect()
    };
    let (labels, annotations) = (map("/metadata/labels"), map("/metadata/annotations"));
    let candidate = Candidate {
        namespace,
        namespace_labels: None,
        labels: &labels,
        annotations: &annotations,
        host_network: pod
            .pointer("/spec/hostNetwork")
            .and_then(Value::as_bool)
            .unwrap_or(false),
    };
    if let Err(skip) = decide(config, &candidate) {
        return Ok((Some(skip.to_string()), Vec::new()));
    }
    let mut injected = inject(pod, config, namespace, workload)?;
    let wish = labels.get(INJECT).or_else(|| annotations.get(INJECT));
    if let Some(wish) = wish.filter(|wish| !matches!(wish.as_str(), "true" | "false")) {
        injected.warnings.push(format!(
            "{INJECT}: {wish:?} counts as unset: a file is injected all the same, by the webhook only pods are whose \
             namespace asks; write \"true\" or \"false\""
        ));
    }
    if injected.pod == *pod {
        return Ok((Some("it has its sidecar already".to_owned()), injected.warnings));
    }
    *pod = injected.pod;
    Ok((None, injected.warnings))
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Writes a changed document; comments above the first line stay.
fn write(object: &Value, original: &str, into: &mut String) -> Result<(), ManifestError> {
    for line in original
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('#') || line.trim().is_empty())
    {
        into.push_str(line);
    }
    // Long strings stay on one line: a folded one is right and hard to read.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 1_000_000 };
    let yaml = serde_saphyr::to_string_with_options(object, options).map_err(|error| ManifestError::Write {
        object: format!("{} {}", text(object, "/kind"), text(object, "/metadata/name")),
        reason: error.to_string(),
    })?;
    let _ = into.write_str(&yaml);
    if !yaml.ends_with('\n') {
        into.push('\n');
    }
    Ok(())
}

/// As kubectl reads YAML.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true }
}

struct Document<'a> {
    /// The line that ends the document before, if there is one.
    separator: &'a str,
    body: &'a str,
    /// The file's line that it begins in, counted from 1.
    line: u64,
}

/// Cuts a stream at the lines that separate documents. Nothing is lost: joined again, the parts are the text.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut separator = "";
    let (mut start, mut first_line) = (0, 1);
    let mut at = 0;
    for (number, line) in (2..).zip(text.split_inclusive('\n')) {
        let end = at + line.len();
        if is_separator(line) {
            documents.push(Document {
                separator,
                body: text.get(start..at).unwrap_or_default(),
                line: first_line,
            });
            separator = text.get(at..end).unwrap_or_default();
            start = end;
            first_line = number;
        }
        at = end;
    }
    documents.push(Document {
        separator,
        body: text.get(start..).unwrap_or_default(),
        line: first_line,
    });
    documents
}

/// `---`, alone or before a comment. (`--- text` on one line is YAML too, and nobody writes manifests so.)
fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| {
        let rest = rest.trim();
        rest.is_empty() || rest.starts_with('#')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Images;
    use serde_json::json;

    fn config() -> InjectConfig {
        let images: Images = serde_json::from_str(r#"{"registry": "r", "tag": "t"}"#).unwrap();
        InjectConfig::new("basic", "mesh", images)
    }

    const UNTOUCHED: &str = "\
# a Service,   with odd   spacing
apiVersion: v1
kind: Service
metadata: {name: cart, labels: {on: yes}}
---   # another
---

apiVersion: v1
kind: ConfigMap
data:
  key: |
    kind: Deployment
    ---x
---
apiVersion: v1
kind: Pod
metadata:
  name: refuses
  labels: {sidecar.istio.io/inject: \"false\"}
spec: {containers: [{name: a, image: b}]}
...
";

    // B2
    #[test]
    fn what_needs_no_sidecar_passes_byte_for_byte() {
        for text in [UNTOUCHED, "", "---\n", "a: 1", "- list\n", "# only a comment\n"] {
            let rendered = inject_manifest(text, &config(), "default").unwrap();
            assert_eq!(rendered.text, text);
        }
    }

    // B2, B7
    #[test]
    fn injected_documents_keep_their_neighbours_and_injecting_again_changes_nothing() {
        let pod = "# the cart\napiVersion: v1\nkind: Pod\nmetadata: {name: cart}\nspec: {containers: [{name: a, image: b}]}\n";
        let text = format!("{UNTOUCHED}---\n{pod}---\n{UNTOUCHED}");
        let once = inject_manifest(&text, &config(), "shop").unwrap();
        assert!(
            once.text
                .starts_with(&format!("{UNTOUCHED}---\n# the cart\napiVersion: v1\n"))
        );
        assert!(once.text.ends_with(&format!("---\n{UNTOUCHED}")));
        let names: Vec<_> = once.outcomes.iter().map(|outcome| outcome.object.as_str()).collect();
        let neighbours = ["Service cart", "ConfigMap …", "Pod shop/refuses"];
        let all = [&neighbours[..], &["Pod shop/cart"], &neighbours].concat();
        assert_eq!(names, all);
        assert_eq!(once.outcomes[0].skipped.as_deref(), Some("it holds no pods"));
        let twice = inject_manifest(&once.text, &config(), "shop").unwrap();
        assert_eq!(twice.text, once.text);
        assert_eq!(twice.outcomes[3].skipped.as_deref(), Some("it has its sidecar already"));
    }

    // B2
    #[test]
    fn a_wish_that_is_neither_yes_nor_no_counts_as_none() {
        let pod = |place: &str| {
            format!(
                "kind: Pod\nmetadata: {{name: a, {place}: {{sidecar.istio.io/inject: maybe}}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
            )
        };
        for place in ["labels", "annotations"] {
            let rendered = inject_manifest(&pod(place), &config(), "shop").unwrap();
            assert_eq!(rendered.outcomes[0].skipped, None, "{place}");
            assert!(
                rendered.outcomes[0]
                    .warnings
                    .iter()
                    .any(|text| text.contains("counts as unset"))
            );
        }
        // YAML of another type is no string, and the API server would refuse it; the others still count.
        let mixed = "kind: Pod\nmetadata: {name: a, labels: {sidecar.istio.io/inject: \"false\"}, annotations: {a: 1}}\nspec: {containers: [{name: a, image: b}]}\n";
        let rendered = inject_manifest(mixed, &config(), "shop").unwrap();
        assert_eq!(rendered.text, mixed);
    }

    // B2
    #[test]
    fn kinds_that_hold_pods_and_are_passed_are_named() {
        let pod = "spec: {containers: [{name: a, image: b}]}";
        let text = format!(
            "kind: DeploymentConfig\nmetadata: {{name: a}}\nspec: {{template: {{{pod}}}}}\n---\nkind: PodList\nitems: [{{{pod}}}]\n---\nkind: ConfigMap\n"
        );
        let rendered = inject_manifest(&text, &config(), "shop").unwrap();
        assert_eq!(rendered.text, text);
        let said: Vec<_> = rendered
            .outcomes
            .iter()
            .map(|outcome| outcome.object.as_str())
            .collect();
        assert_eq!(said, ["DeploymentConfig a", "PodList …", "ConfigMap …"]);
        assert!(
            rendered.outcomes[0]
                .skipped
                .as_deref()
                .unwrap_or_default()
                .contains("DeploymentConfig")
        );
    }

    // B2
    #[test]
    fn every_kind_with_a_pod_template_is_injected_alone_and_in_a_list() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "b"}]}});
        let items: Vec<_> = TEMPLATES
            .iter()
            .map(|(kind, path)| {
                let mut object =
                    json!({"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "a", "namespace": "own"}});
                let steps: Vec<_> = path.split('/').skip(1).collect();
                let inner = steps
                    .iter()
                    .rev()
                    .fold(pod.clone(), |inner, step| json!({ (*step): inner }));
                object["spec"] = inner["spec"].clone();
                object
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let rendered = inject_manifest(&list.to_string(), &config(), "shop").unwrap();
        assert!(rendered.outcomes.iter().all(|outcome| outcome.skipped.is_none()));
        let names: Vec<_> = rendered.outcomes.iter().map(|outcome| outcome.object.clone()).collect();
        assert_eq!(names, TEMPLATES.map(|(kind, _)| format!("{kind} own/a")));
        assert_eq!(rendered.text.matches("name: istio-proxy").count(), TEMPLATES.len());
        for item in items {
            let alone = inject_manifest(&item.to_string(), &config(), "shop").unwrap();
            assert_eq!(alone.text.matches("name: istio-proxy").count(), 1, "{}", alone.text);
        }
    }

    // B2
    #[test]
    fn odd_documents_pass_with_a_word_and_empty_ones_without() {
        let text = "---\n# nothing\n---\njust text\n---\n- 1\n---\na: 1\n---\nkind: List\nitems: []\n---\nkind: List\nitems: [3]\n---\n{kind: Pod, metadata: {generateName: web-, labels: {sidecar.istio.io/inject: 'false'}}}\n---\n";
        let rendered = inject_manifest(text, &config(), "shop").unwrap();
        assert_eq!(rendered.text, text);
        let said: Vec<_> = rendered
            .outcomes
            .iter()
            .map(|outcome| format!("{}: {}", outcome.object, outcome.skipped.as_deref().unwrap()))
            .collect();
        let no_object = "it is no object of Kubernetes: it has no kind";
        assert_eq!(
            said,
            [
                format!("document 3: {no_object}"),
                format!("document 4: {no_object}"),
                format!("document 5: {no_object}"),
                "document 6 (List): there is nothing in it".to_owned(),
                format!("document 7 (List), items[0]: {no_object}"),
                "Pod shop/web-…: it says sidecar.istio.io/inject: \"false\"".to_owned(),
            ]
        );
    }

    // B2
    #[test]
    fn a_broken_document_is_named_with_its_place() {
        let error = inject_manifest("a: 1\n---\n\nb: [\n", &config(), "shop").unwrap_err();
        assert_eq!(
            error.to_string(),
            "document 2 is not YAML: line 4 column 4: unclosed bracket '['"
        );
        let bad =
            "kind: Pod\nmetadata: {name: x, annotations: {sidecar.istio.io/logLevel: loud}}\nspec: {containers: []}\n";
        let error = inject_manifest(bad, &config(), "shop").unwrap_err();
        assert_eq!(error.to_string(), "Pod shop/x cannot be injected");
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            reason.starts_with("annotation sidecar.istio.io/logLevel has the value \"loud\""),
            "{reason}"
        );
    }
}
