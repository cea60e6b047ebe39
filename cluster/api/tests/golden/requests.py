"""The requests of the differential test, in order: (method, path, body, media type)."""
JSON, MERGE, PATCH, STRATEGIC, APPLY = (
    "application/json", "application/merge-patch+json", "application/json-patch+json",
    "application/strategic-merge-patch+json", "application/apply-patch+yaml")
REQUESTS = []


def send(method, path, body="", media_type=JSON):
    REQUESTS.append((method, path, body, media_type))


def get(path): send("GET", path)
def table(path): send("GET", "TABLE " + path)
def post(path, body): send("POST", path, body)
def put(path, body): send("PUT", path, body)
def delete(path, body=""): send("DELETE", path, body)
def merge(path, body): send("PATCH", path, body, MERGE)
def patch(path, body): send("PATCH", path, body, PATCH)
def strategic(path, body): send("PATCH", path, body, STRATEGIC)
def apply(path, manager, body): send("PATCH", f"{path}?fieldManager={manager}", body, APPLY)


NS = "/api/v1/namespaces/diff"
APPS = "/apis/apps/v1/namespaces/diff"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def container(name="a", image="b", **more): return dict(name=name, image=image, **more)


def template(labels=None, **more):
    return {"metadata": {"labels": labels or {"a": "b"}}, "spec": dict(containers=[container()], **more)}


def workload(name, **more):
    return {"metadata": {"name": name}, "spec": dict({"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template()}, **more)}


def cm(name, data=None, **metadata): return {"metadata": dict(name=name, **metadata), "data": data or {"k": "v"}}


# paths and methods
for path in ["/apis/apps/v2", "/apis/nope", "/apis/apps/v1/nopes", "/api/v2", NS + "/nopes", NS + "/pods/x/nope", "/api/v1/pods/x", "/version/x"]:
    get(path)
for method in ["PUT", "PATCH", "POST", "DELETE"]:
    send(method, "/api/v1/pods", {})
send("PUT", NS + "/configmaps", {})
send("POST", NS + "/configmaps/x", {})
send("PUT", "/api", {})
# namespaces and the account that pods need
post("/api/v1/namespaces", {"metadata": {"name": "diff", "labels": {"team": "a"}}})
post("/api/v1/namespaces", {"metadata": {"name": "diff"}})
post("/api/v1/namespaces", {"metadata": {"name": "a.b"}})
post("/api/v1/namespaces", {"metadata": {"name": "-"}})
get("/api/v1/namespaces/diff")
post(NS + "/serviceaccounts", {"metadata": {"name": "default"}})
# bodies
for body in ["", "abc", "{", "[]", "1", "null", '{"kind":1}', '{"metadata":1}', '{"metadata":{"name":1}}', '{"metadata":{"labels":[]}}']:
    post(NS + "/configmaps", body)
send("POST", NS + "/configmaps", "metadata: {name: yaml}\ndata: {a: b}\n", "application/yaml")
send("POST", NS + "/configmaps", "a: [", "application/yaml")
send("POST", NS + "/configmaps", "{}", "text/plain")
post(NS + "/configmaps", {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}})
post(NS + "/configmaps", {"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "x"}})
post(NS + "/configmaps", {"kind": "Foo", "apiVersion": "v1", "metadata": {"name": "x"}})
# create
for name in ["A", "a_b", "a..b", "-a", "a" * 254, ""]:
    post(NS + "/configmaps", cm(name))
post(NS + "/configmaps", cm("x", namespace="other"))
post(NS + "/configmaps", cm("x", resourceVersion="1"))
post(NS + "/configmaps", cm("x", labels={"a b": "c", "ok": "b c"}, annotations={"A B": "x"}))
post(NS + "/configmaps", cm("x", finalizers=["x"], ownerReferences=[{"name": "a"}]))
post(NS + "/configmaps", cm("x", {"a b": "c", "..": "d"}))
post(NS + "/configmaps", {"metadata": {"name": "x"}, "data": {"a": 1}})
post(NS + "/configmaps", {"metadata": {"name": "x"}, "data": "a"})
for rule in ["Strict", "Warn", "Ignore", "Nope"]:
    post(NS + "/configmaps?fieldValidation=" + rule, '{"metadata":{"name":"f-%s"},"data":{"x":"1","x":"2"},"foo":1,"bar":{"a":1}}' % rule.lower())
post(NS + "/configmaps?dryRun=All", cm("dry"))
post(NS + "/configmaps?dryRun=x", cm("dry"))
get(NS + "/configmaps/dry")
post(NS + "/configmaps", cm("x", labels={"app": "x", "tier": "1"}, annotations={"n": "1"}))
post(NS + "/configmaps", cm("x"))
post(NS + "/configmaps", cm("y", labels={"app": "y"}))
post(NS + "/configmaps", cm("z", labels={"app": "z", "tier": "2"}, finalizers=["a.b/c"]))
post("/api/v1/namespaces/none/configmaps", cm("x"))
# get and list
get(NS + "/configmaps/x")
get(NS + "/configmaps/nope")
for selector in ["app=x", "app==x", "app!=x", "app in (x,z)", "app notin (x)", "tier", "!tier", "tier,app=x", "a,,", "=", "app=x=y", "app in x", "a b", "app in (x", "tier>1"]:
    get(NS + "/configmaps?labelSelector=" + selector.replace(" ", "%20").replace(",", "%2C").replace(">", "%3E"))
for selector in ["metadata.name=x", "metadata.name!=x", "metadata.namespace=diff", "data.k=v", "a", "metadata.name=x,metadata.name=y", "status.phase=Running"]:
    get(NS + "/configmaps?fieldSelector=" + selector)
for query in ["limit=1&labelSelector=nope", "limit=x", "continue=abc", "resourceVersion=x", "resourceVersionMatch=Exact", "resourceVersionMatch=Foo&resourceVersion=1",
              "resourceVersion=0&resourceVersionMatch=Exact", "sendInitialEvents=true", "resourceVersion=0&labelSelector=app"]:
    get(NS + "/configmaps?" + query)
table(NS + "/configmaps/x")
table(NS + "/configmaps?labelSelector=app")
get("/api/v1/configmaps?fieldSelector=metadata.name=x")
# update
put(NS + "/configmaps/nope", cm("nope"))
put(NS + "/configmaps/x", cm("other"))
put(NS + "/configmaps/x", cm("x", resourceVersion="1"))
put(NS + "/configmaps/x", cm("x", uid="other"))
put(NS + "/configmaps/x", cm("x", {"k": "w"}, labels={"app": "x"}))
put(NS + "/configmaps/x", cm("x", {"k": "w"}, labels={"app": "x"}))
put(NS + "/configmaps/x?dryRun=All", cm("x", {"k": "dry"}))
put(NS + "/configmaps/x", {"metadata": {"name": "x", "namespace": "other"}})
# patches
merge(NS + "/configmaps/x", {"data": {"k": None, "l": "1"}})
merge(NS + "/configmaps/x", {"metadata": {"name": "y"}})
merge(NS + "/configmaps/x", {"metadata": {"namespace": "y"}})
merge(NS + "/configmaps/x", {"metadata": {"uid": "y"}})
merge(NS + "/configmaps/x", {"metadata": {"resourceVersion": "1"}})
merge(NS + "/configmaps/x", {"metadata": {"labels": {"a b": "c"}}})
merge(NS + "/configmaps/nope", {})
merge(NS + "/configmaps/x", "{")
merge(NS + "/configmaps/x", "[]")
merge(NS + "/configmaps/x?force=true", {})
merge(NS + "/configmaps/x", {})
merge(NS + "/configmaps/x?fieldValidation=Strict", {"foo": 1})
merge(NS + "/configmaps/x", {"foo": 1})
patch(NS + "/configmaps/x", [{"op": "add", "path": "/data/m", "value": "2"}, {"op": "remove", "path": "/data/l"}])
patch(NS + "/configmaps/x", [{"op": "test", "path": "/data/m", "value": "9"}])
patch(NS + "/configmaps/x", [{"op": "remove", "path": "/data/nope"}])
patch(NS + "/configmaps/x", [{"op": "nope", "path": "/data"}])
patch(NS + "/configmaps/x", {})
strategic(NS + "/configmaps/x", {"data": {"s": "3"}})
strategic(NS + "/configmaps/x", {"data": {"$patch": "replace", "t": "4"}})
send("PATCH", NS + "/configmaps/x", "{}", "application/foo")
# server-side apply
C = {"apiVersion": "v1", "kind": "ConfigMap"}
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa", "labels": {"l": "1"}}, data={"a": "1", "b": "1"}))
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa", "labels": {"l": "1"}}, data={"a": "1", "b": "1"}))
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa"}, data={"a": "2"}))
apply(NS + "/configmaps/ssa", "two", dict(C, metadata={"name": "ssa"}, data={"a": "3"}))
apply(NS + "/configmaps/ssa", "two&force=true", dict(C, metadata={"name": "ssa"}, data={"a": "3"}))
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa"}, data={"a": "3", "c": "1"}))
merge(NS + "/configmaps/ssa", {"data": {"c": "9"}})
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa"}, data={"c": "1"}))
apply(NS + "/configmaps/ssa", "", dict(C, metadata={"name": "ssa"}))
apply(NS + "/configmaps/ssa", "one", {})
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "other"}))
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa", "managedFields": [{}]}))
apply(NS + "/configmaps/ssa", "one", dict(C, metadata={"name": "ssa"}, foo=1))
apply(NS + "/configmaps/ssa", "one", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ssa"}})
apply(NS + "/configmaps/ssa2?dryRun=All&x=", "one", dict(C, metadata={"name": "ssa2"}))
D = {"apiVersion": "apps/v1", "kind": "Deployment"}
apply(APPS + "/deployments/ssa", "one", dict(D, **workload("ssa")))
apply(APPS + "/deployments/ssa", "two", dict(D, metadata={"name": "ssa"}, spec={"replicas": 2}))
merge(APPS + "/deployments/ssa/scale", {"spec": {"replicas": 1}})
apply(APPS + "/deployments/ssa", "one", dict(D, **workload("ssa")))
apply(APPS + "/deployments/ssa", "three", dict(D, metadata={"name": "ssa"}, spec={"template": {"spec": {"containers": [container("side", "car")]}}}))
# workloads
for kind in ["deployments", "replicasets", "statefulsets", "daemonsets"]:
    body = workload("w", serviceName="s") if kind == "statefulsets" else workload("w")
    if kind == "daemonsets":
        del body["spec"]["replicas"]
    post(f"{APPS}/{kind}", body)
    get(f"{APPS}/{kind}/w/status")
    merge(f"{APPS}/{kind}/w", {"spec": {"selector": {"matchLabels": {"a": "c"}}, "template": {"metadata": {"labels": {"a": "c"}}}}})
    merge(f"{APPS}/{kind}/w", {"metadata": {"labels": {"l": "1"}}})
    merge(f"{APPS}/{kind}/w", {"spec": {"minReadySeconds": 3}})
    strategic(f"{APPS}/{kind}/w", {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "c:2"}, {"name": "n", "image": "m"}]}}}})
    merge(f"{APPS}/{kind}/w/status", {"status": {"observedGeneration": 2}, "spec": {"minReadySeconds": 9}})
    post(f"{APPS}/{kind}", {"metadata": {"name": "bad"}, "spec": {"template": {"spec": {"containers": []}}}})
    post(f"{APPS}/{kind}", workload("bad", selector={"matchLabels": {"x": "y"}}))
    post(f"{APPS}/{kind}", workload("bad", template=template(restartPolicy="Never")))
    post(f"{APPS}/{kind}", workload("bad", selector={}))
    post(f"{APPS}/{kind}", workload("bad", replicas="x"))
    if kind != "daemonsets":
        post(f"{APPS}/{kind}", workload("bad", replicas=-1))
        get(f"{APPS}/{kind}/w/scale")
        merge(f"{APPS}/{kind}/w/scale", {"spec": {"replicas": 3}})
        merge(f"{APPS}/{kind}/w/scale", {"spec": {"replicas": -1}})
        put(f"{APPS}/{kind}/w/scale", {"metadata": {"name": "w", "namespace": "diff"}, "spec": {"replicas": 0}})
    table(f"{APPS}/{kind}/w")
    delete(f"{APPS}/{kind}/w")
    delete(f"{APPS}/{kind}/w")
post(APPS + "/deployments", workload("bad", strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}))
post(APPS + "/deployments", workload("bad", strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}))
post(APPS + "/deployments", workload("bad", strategy={"type": "Foo"}))
# pods
post(NS + "/pods", {"metadata": {"name": "p"}, "spec": {"automountServiceAccountToken": False, "containers": [container()]}})
post(NS + "/pods", {"metadata": {"name": "bad"}, "spec": {}})
post(NS + "/pods", {"metadata": {"name": "bad"}, "spec": {"serviceAccountName": "zz", "containers": [container()]}})
post(NS + "/pods", {"metadata": {"name": "bad"}, "spec": {"priorityClassName": "zz", "containers": [container()]}})
for change in [dict(name="A"), dict(image=""), dict(ports=[{"containerPort": 0}]), dict(ports=[{"containerPort": 70000}]), dict(ports=[{"containerPort": 1, "protocol": "X"}]),
               dict(ports=[{"containerPort": 1, "name": "A"}]), dict(env=[{"name": ""}]), dict(volumeMounts=[{"name": "v", "mountPath": "/x"}]), dict(imagePullPolicy="X"), dict(livenessProbe={}),
               dict(env=[{"name": "a", "value": 1}]), dict(resources={"limits": {"cpu": 1}})]:
    post(NS + "/pods?dryRun=All", {"metadata": {"name": "bad"}, "spec": {"automountServiceAccountToken": False, "containers": [dict(container(), **change)]}})
for change in [dict(restartPolicy="X"), dict(dnsPolicy="X"), dict(volumes=[{"name": "A", "emptyDir": {}}]), dict(volumes=[{"name": "a", "secret": {}}]), dict(activeDeadlineSeconds=0),
               dict(volumes=[{"name": "a"}, {"name": "a"}]), dict(nodeSelector={"a b": "c"}), dict(initContainers=[dict(container("i"), livenessProbe={"exec": {"command": ["a"]}})]), dict(hostname="A B"), dict(containers=[container(), container()])]:
    post(NS + "/pods?dryRun=All", {"metadata": {"name": "bad"}, "spec": dict({"automountServiceAccountToken": False, "containers": [container()]}, **change)})
merge(NS + "/pods/p", {"metadata": {"labels": {"a": "b"}}})
merge(NS + "/pods/p/status", {"status": {"phase": "Running", "podIP": "1.2.3.4"}})
merge(NS + "/pods/p", {"spec": {"tolerations": []}})
get(NS + "/pods?fieldSelector=status.phase=Running")
get(NS + "/pods?fieldSelector=spec.nodeName=n")
post(NS + "/pods/p/binding", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})
post(NS + "/bindings", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})
post(NS + "/pods/nope/binding", {"metadata": {"name": "nope"}, "target": {"kind": "Node", "name": "n"}})
post(NS + "/pods/p/eviction", {"metadata": {"name": "q"}})
post(NS + "/pods/p/eviction", {"metadata": {"name": "p"}})
delete(NS + "/pods/p?gracePeriodSeconds=0")
# services
post(NS + "/services", {"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
merge(NS + "/services/s", {"spec": {"type": "NodePort"}})
merge(NS + "/services/s", {"spec": {"type": "ClusterIP"}})
merge(NS + "/services/s", {"spec": {"type": "ExternalName", "externalName": "a.b"}})
merge(NS + "/services/s", {"spec": {"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}})
for spec in [{}, {"ports": [{"port": 0}]}, {"ports": [{"port": 80}, {"port": 81}]}, {"ports": [{"port": 80, "protocol": "X"}]}, {"type": "X", "ports": [{"port": 80}]}, {"type": "ExternalName"},
             {"clusterIP": "1.2.3.4", "ports": [{"port": 80}]}, {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}, {"type": "NodePort", "ports": [{"port": 80, "nodePort": 1}]},
             {"ports": [{"name": "A", "port": 80}]}, {"ports": [{"port": 80, "targetPort": "A B"}]}, {"sessionAffinity": "X", "ports": [{"port": 80}]}, {"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}]:
    post(NS + "/services", {"metadata": {"name": "bad"}, "spec": spec})
post(NS + "/services", {"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 80}]}})
delete(NS + "/services/s")
# secrets, jobs, roles, budgets, webhooks
post(NS + "/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
merge(NS + "/secrets/s", {"type": "other"})
merge(NS + "/secrets/s", {"immutable": True})
merge(NS + "/secrets/s", {"data": {"x": "Yg=="}})
post(NS + "/secrets", {"metadata": {"name": "t"}, "type": "kubernetes.io/tls"})
post(NS + "/secrets", {"metadata": {"name": "t"}, "data": {"a": "!"}})
JOBS = "/apis/batch/v1/namespaces/diff"
post(JOBS + "/jobs", {"metadata": {"name": "j"}, "spec": {"template": template()}})
post(JOBS + "/jobs", {"metadata": {"name": "j"}, "spec": {"template": template(restartPolicy="Never")}})
merge(JOBS + "/jobs/j", {"spec": {"completions": 4}})
delete(JOBS + "/jobs/j?propagationPolicy=Background")
post(JOBS + "/cronjobs", {"metadata": {"name": "c"}, "spec": {"schedule": "x", "jobTemplate": {"spec": {"template": template(restartPolicy="Never")}}}})
post(RBAC + "/clusterroles", {"metadata": {"name": "diff"}, "rules": [{"verbs": []}, {"verbs": ["get"]}]})
post(RBAC + "/clusterroles", {"metadata": {"name": "diff"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})
post(RBAC + "/clusterrolebindings", {"metadata": {"name": "diff"}, "roleRef": {"kind": "Foo", "name": ""}, "subjects": [{"kind": "X", "name": ""}, {"kind": "ServiceAccount", "name": "a"}]})
post(RBAC + "/clusterrolebindings", {"metadata": {"name": "diff"}, "roleRef": {"kind": "ClusterRole", "name": "diff"}, "subjects": [{"kind": "User", "name": "jane"}]})
merge(RBAC + "/clusterrolebindings/diff", {"roleRef": {"name": "b"}})
SAR = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
post(SAR, {"spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "x"}}})
post(SAR, {"spec": {"user": "joe", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "x"}}})
post(SAR, {"spec": {"user": "joe"}})
post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}}})
post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
post("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": ""}})
post("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "nonsense"}})
post(NS + "/serviceaccounts/nope/token", {"spec": {}})
post(NS + "/serviceaccounts/default/token", {"spec": {"expirationSeconds": 10}})
PDB = "/apis/policy/v1/namespaces/diff/poddisruptionbudgets"
post(PDB, {"metadata": {"name": "b"}, "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}})
MWC = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
post(MWC, {"metadata": {"name": "diff"}, "webhooks": [{"name": "a", "clientConfig": {}}]})
LEASES = "/apis/coordination.k8s.io/v1/namespaces/diff/leases"
put(LEASES + "/l", {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 3}})
put(LEASES + "/l", {"metadata": {"name": "l"}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": 3}})
# deletion
delete(NS + "/configmaps/z")
delete(NS + "/configmaps/z")
merge(NS + "/configmaps/z", {"metadata": {"finalizers": ["a.b/c", "d.e/f"]}})
merge(NS + "/configmaps/z", {"metadata": {"finalizers": None}})
get(NS + "/configmaps/z")
delete(NS + "/configmaps/y", {"preconditions": {"uid": "x"}})
delete(NS + "/configmaps/y", {"preconditions": {"resourceVersion": "1"}})
delete(NS + "/configmaps/y?propagationPolicy=x")
delete(NS + "/configmaps/y?dryRun=All")
delete(NS + "/configmaps/y", {"propagationPolicy": "Foreground"})
get(NS + "/configmaps/y")
delete(NS + "/configmaps/nope")
delete(NS + "/configmaps?labelSelector=app=x")
delete("/api/v1/namespaces/kube-system")
# custom resources
def crd(name="tees.diff.io", **more):
    spec = {"group": "diff.io", "scope": "Namespaced", "names": {"plural": "tees", "kind": "Tee", "shortNames": ["te"]}, "versions": [
        {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
         "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
         "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["n"],
            "x-kubernetes-validations": [{"rule": "self.n != 13", "message": "unlucky"}, {"rule": "self.n >= oldSelf.n", "message": "only grows"}], "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 99}, "color": {"type": "string", "default": "blue", "enum": ["blue", "red"]},
            "tags": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "set", "items": {"type": "string"}}, "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}},
            "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}},
        {"name": "v1alpha1", "served": True, "storage": False, "deprecated": True, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}
    return {"metadata": {"name": name}, "spec": dict(spec, **more)}


post(CRDS, crd("wrong.diff.io"))
post(CRDS, {"metadata": {"name": "a.b"}, "spec": {}})
post(CRDS + "?dryRun=All", crd())
post(CRDS, crd())
get(CRDS + "/tees.diff.io")
get("/apis/diff.io/v1")
get("/apis/diff.io")
TEES = "/apis/diff.io/v1/namespaces/diff/tees"
T = {"apiVersion": "diff.io/v1", "kind": "Tee"}


def tee(name, spec, **more): return dict(T, metadata={"name": name}, spec=spec, **more)


post(TEES, tee("t", {"n": 2, "extra": 1, "any": {"x": {"y": 1}}}, status={"n": 7}))
post(TEES + "?fieldValidation=Strict", tee("u", {"n": 2, "extra": 1}))
for spec in [{}, {"n": "x"}, {"n": 0}, {"n": 100}, {"n": 13}, {"n": 1.5}, {"n": 1, "color": "green"}, {"n": 1, "tags": ["a", "a"]}, {"n": 1, "tags": ["a", "b", "c", "d"]}, {"n": 1, "any": 3}, None, {"n": 1, "tags": [1]}]:
    post(TEES, tee("bad", spec))
post(TEES, {"metadata": {"name": "bad"}})
post(TEES, {"kind": "Tee", "apiVersion": "diff.io/v2", "metadata": {"name": "bad"}})
merge(TEES + "/t", {"spec": {"n": 1}})
merge(TEES + "/t", {"spec": {"n": 3}})
merge(TEES + "/t", {"metadata": {"labels": {"a": "b"}}})
put(TEES + "/t", tee("t", {"n": 4}))
merge(TEES + "/t/status", {"status": {"n": 4}, "spec": {"n": 50}})
get(TEES + "/t/scale")
merge(TEES + "/t/scale", {"spec": {"replicas": 6}})
strategic(TEES + "/t", {})
table(TEES)
get("/apis/diff.io/v1alpha1/namespaces/diff/tees/t")
apply(TEES + "/a", "one", tee("a", {"n": 1, "tags": ["a"]}))
apply(TEES + "/a", "two", tee("a", {"n": 1, "tags": ["b"]}))
apply(TEES + "/a", "three", tee("a", {"n": 2}))
apply(TEES + "/a", "one", tee("a", {"n": 1, "nope": 1}))
get(TEES)
delete(TEES + "/t")
delete(TEES + "/a")
