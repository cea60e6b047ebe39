//! The review of a pod: decide, then inject.

use std::collections::BTreeMap;

use crate::admission::{Operation, Request, Response};
use crate::config::InjectConfig;
use crate::decide::{Candidate, decide};
use crate::inject;

/// Reviews a pod that is created.
///
/// `namespace_labels` are those of the pod's namespace; without them (the cache does not know the namespace yet) the API
/// server's selectors, which have sent the pod here, are taken at their word.
pub fn review_pod(
    request: &Request,
    config: &InjectConfig,
    namespace_labels: Option<&BTreeMap<String, String>>,
) -> Response {
    if request.operation != Operation::Create || request.kind.kind != "Pod" {
        return request.allow("not_a_new_pod");
    }
    let pod = match inject::read(&request.object) {
        Ok(pod) => pod,
        Err(error) => return request.refuse(400, error.to_string(), error.category()),
    };
    let empty = BTreeMap::new();
    let candidate = Candidate {
        namespace: &request.namespace,
        namespace_labels,
        labels: pod.metadata.labels.as_ref().unwrap_or(&empty),
        annotations: pod.metadata.annotations.as_ref().unwrap_or(&empty),
        host_network: pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false),
    };
    if let Err(skip) = decide(config, &candidate) {
        return request.allow(skip.category());
    }
    match inject::inject_read(&request.object, pod, config, &request.namespace, None) {
        Ok(injected) => request.change(&injected.pod, "injected").warn(injected.warnings),
        Err(error) => {
            let message = format!("the sidecar cannot be injected: {error}");
            request.refuse(400, message, error.category())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::{Answer, Review};

    fn config() -> InjectConfig {
        let json = r#"{"revision": "basic", "meshNamespace": "mesh", "images": {"registry": "r", "tag": "t"}}"#;
        InjectConfig::from_json(json).unwrap()
    }

    fn request(object: Value) -> Request {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
                "namespace": "shop", "object": object, "oldObject": null, "options": {}, "dryRun": false,
            },
        });
        serde_json::from_value::<Review>(review).unwrap().request.unwrap()
    }

    fn pod(label: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "cart-", "labels": {"sidecar.istio.io/inject": label}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "app", "image": "i", "newInKubernetes99": [1]}], "newField": {"a": 1}},
            "status": {},
        })
    }

    fn member() -> BTreeMap<String, String> {
        [("maistra.io/member-of".to_owned(), "mesh".to_owned())].into()
    }

    // B1, B3
    #[test]
    fn the_patch_gives_what_mizzen_inject_gives() {
        let request = request(pod("true"));
        let response = review_pod(&request, &config(), Some(&member()));
        let Answer::Patch(patch) = &response.answer else {
            panic!("{response:?}")
        };
        let mut patched = request.object.clone();
        json_patch::patch(&mut patched, patch).unwrap();
        let injected = inject::inject(&request.object, &config(), "shop", None).unwrap();
        assert_eq!(patched, injected.pod);
        assert_eq!(patched.pointer("/spec/newField/a"), Some(&json!(1)));
        assert_eq!(
            patched.pointer("/spec/containers/0/newInKubernetes99"),
            Some(&json!([1]))
        );
        let answer = response.to_json();
        assert_eq!(answer.pointer("/response/uid"), Some(&json!("u-1")));
        assert_eq!(answer.pointer("/response/patchType"), Some(&json!("JSONPatch")));

        // Reinvoked with its own work, it changes nothing.
        let again = Request {
            object: patched,
            ..request
        };
        assert_eq!(review_pod(&again, &config(), Some(&member())).answer, Answer::Allow);
    }

    // B1
    #[test]
    fn a_pod_that_is_not_meant_passes_unchanged() {
        let response = review_pod(&request(pod("false")), &config(), Some(&member()));
        assert_eq!((response.answer, response.category), (Answer::Allow, "pod_refuses"));
        let response = review_pod(&request(pod("true")), &config(), Some(&BTreeMap::new()));
        assert_eq!((response.answer, response.category), (Answer::Allow, "not_a_member"));
    }

    // B5
    #[test]
    fn a_bad_annotation_refuses_the_pod_by_name() {
        let mut bad = pod("true");
        bad["metadata"]["annotations"] = json!({"sidecar.istio.io/proxyCPU": "much"});
        let response = review_pod(&request(bad), &config(), Some(&member()));
        assert_eq!(
            response.to_json().pointer("/response/status/message"),
            Some(&json!(
                "the sidecar cannot be injected: annotation sidecar.istio.io/proxyCPU has the value \"much\": write a \
                 quantity, such as 100m for CPU or 64Mi for memory"
            ))
        );
        assert!(!response.is_allowed());
    }
}
