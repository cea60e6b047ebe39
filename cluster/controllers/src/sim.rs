//! For tests: a cluster in memory. It applies plans as an API server would and marks pods as a node would, so that whole stories can
//! be told to the pure controllers, one step at a time and always the same.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{Endpoints, Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        policy::v1::PodDisruptionBudget,
    },
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use crate::{
    plan::{Action, Event, Kind, Verb, Write},
    queue::Key,
    work::{Failure, Step, Turn},
    world::World,
};

type Id = (&'static str, Key);

pub(crate) struct Sim {
    pub(crate) world: Arc<World>,
    pub(crate) now: Timestamp,
    /// What was told, oldest first: `Normal ScalingReplicaSet message`.
    pub(crate) events: Vec<String>,
    /// Refuses the creation of these: plural and what the server says.
    pub(crate) refuse: Option<(&'static str, &'static str)>,
    objects: BTreeMap<Id, Value>,
    failures: BTreeMap<(usize, Key), Failure>,
    version: u64,
}

impl Sim {
    pub(crate) fn new() -> Self {
        Self {
            world: Arc::default(),
            now: "2026-11-21T10:00:00Z".parse().unwrap(),
            events: Vec::new(),
            refuse: None,
            objects: BTreeMap::new(),
            failures: BTreeMap::new(),
            version: 0,
        }
    }

    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// A user creates an object in the namespace `ns`, or a cluster-scoped one.
    pub(crate) fn create<K: Kind>(&mut self, body: Value) {
        let cluster = ["nodes", "namespaces"].contains(&K::URL_PATH_SEGMENT);
        self.write(&Write::create::<K>(if cluster { "" } else { "ns" }, body))
            .unwrap();
    }

    /// A user or a node merges a change into an object.
    pub(crate) fn patch<K: Kind>(&mut self, name: &str, change: Value) {
        let id = self.id::<K>(name);
        let mut object = self.objects[&id].clone();
        json_patch::merge(&mut object, &change);
        self.store(&self.dummy::<K>(), id, object);
    }

    /// A user deletes an object; a pod goes only when its node says so (`gone`).
    pub(crate) fn delete<K: Kind>(&mut self, name: &str) {
        let write = Write {
            verb: Verb::Delete,
            name: name.to_owned(),
            ..self.dummy::<K>()
        };
        self.write(&write).unwrap();
    }

    /// The process that kept everything in memory is started anew.
    pub(crate) fn restart(&mut self) {
        self.world = Arc::default();
        self.failures.clear();
        for ((plural, _), object) in self.objects.clone() {
            let api_version: &'static str = String::leak(object["apiVersion"].as_str().unwrap().to_owned());
            let write = Write {
                plural,
                api_version,
                ..self.dummy::<Pod>()
            };
            self.world.answered(&write, object);
        }
    }

    pub(crate) fn get<K: Kind>(&self, name: &str) -> Value {
        self.objects.get(&self.id::<K>(name)).cloned().unwrap_or_default()
    }

    pub(crate) fn list<K: Kind>(&self) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((plural, _), _)| *plural == K::URL_PATH_SEGMENT)
            .map(|(_, o)| o.clone())
            .collect()
    }

    pub(crate) fn names<K: Kind>(&self) -> Vec<String> {
        self.list::<K>()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The node starts (or, with `Succeeded` and the like, ends) the first pod that `picks` takes.
    pub(crate) fn pod_becomes(&mut self, phase: &str, picks: impl Fn(&Value) -> bool) -> bool {
        let found = self
            .list::<Pod>()
            .into_iter()
            .find(|pod| pod["status"]["phase"] != phase && picks(pod));
        let Some(pod) = found else { return false };
        let ready = if phase == "Running" { "True" } else { "False" };
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let node = pod["spec"]["nodeName"].as_str().unwrap_or("n1");
        let ip = format!("10.244.0.{}", 1 + self.version % 250);
        self.patch::<Pod>(
            &name,
            json!({"spec": {"nodeName": node}, "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": crate::work::seconds(self.now)}]}}),
        );
        true
    }

    /// The node has ended the pods that were to end.
    pub(crate) fn pods_end(&mut self) {
        let ends = |pod: &Value| {
            pod["metadata"]["deletionTimestamp"].is_string() && pod["metadata"]["finalizers"] == json!([])
        };
        for pod in self.list::<Pod>() {
            if ends(&pod) || pod["metadata"]["deletionTimestamp"].is_string() && pod["metadata"]["finalizers"].is_null()
            {
                self.remove(
                    &self.dummy::<Pod>(),
                    ("pods", Key::new("ns", pod["metadata"]["name"].as_str().unwrap())),
                );
            }
        }
    }

    /// All controllers look at everything once; whether anything was done.
    pub(crate) fn round(&mut self) -> bool {
        let mut busy = false;
        let steps: [(Step, Vec<Key>); 11] = [
            (crate::deployment::step, self.keys::<Deployment>()),
            (crate::replicaset::step, self.keys::<ReplicaSet>()),
            (crate::statefulset::step, self.keys::<StatefulSet>()),
            (crate::daemonset::step, self.keys::<DaemonSet>()),
            (crate::job::step, self.keys::<Job>()),
            (crate::cronjob::step, self.keys::<CronJob>()),
            (crate::endpoints::step, self.keys::<Service>()),
            (crate::disruption::step, self.keys::<PodDisruptionBudget>()),
            (crate::scheduler::step, self.keys::<Pod>()),
            (crate::nodes::step, self.keys::<Node>()),
            (crate::namespace::step, self.keys::<Namespace>()),
        ];
        for (number, (step, keys)) in steps.into_iter().enumerate() {
            for key in keys {
                busy |= self.look(number, step, &key);
            }
        }
        busy
    }

    /// Rounds until nobody has anything to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            if !self.round() {
                return;
            }
        }
        panic!("the controllers never rest; last events: {:#?}", self.events);
    }

    fn look(&mut self, number: usize, step: Step, key: &Key) -> bool {
        let failure = self.failures.remove(&(number, key.clone()));
        let plan = step(&Turn {
            world: &self.world,
            key,
            now: self.now,
            failure: failure.as_ref(),
        });
        let mut wrote = false;
        for action in plan.actions {
            match action {
                Action::Event(event) => self.tell(event, ""),
                Action::Write(write) => match self.write(&write) {
                    Ok(name) => {
                        wrote = true;
                        write.done.into_iter().for_each(|event| self.tell(event, &name));
                    }
                    Err(message) => {
                        write
                            .failed
                            .clone()
                            .into_iter()
                            .for_each(|event| self.tell(event, message));
                        let (path, message) = (write.path(), message.to_owned());
                        self.failures.insert(
                            (number, key.clone()),
                            Failure {
                                verb: write.verb,
                                path,
                                code: 403,
                                message,
                            },
                        );
                        break;
                    }
                },
            }
        }
        wrote
    }

    fn tell(&mut self, event: Event, name: &str) {
        let kind = if event.warning { "Warning" } else { "Normal" };
        self.events
            .push(format!("{kind} {} {}", event.reason, event.message.replace("{}", name)));
    }

    fn write(&mut self, write: &Write) -> Result<String, &'static str> {
        let namespace = write.namespace.clone().unwrap_or_default();
        let id = |name: &str| (write.plural, Key::new(&namespace, name));
        match write.verb {
            Verb::Create if write.subresource == "binding" => {
                let mut pod = self.objects[&id(&write.name)].clone();
                pod["spec"]["nodeName"] = write.body["target"]["name"].clone();
                self.store(write, id(&write.name), pod);
                Ok(write.name.clone())
            }
            Verb::Create => {
                if let Some((_, message)) = self.refuse.filter(|(plural, _)| *plural == write.plural) {
                    return Err(message);
                }
                let mut object = write.body.clone();
                let meta = &mut object["metadata"];
                if meta["name"].is_null() {
                    meta["name"] = json!(format!("{}{:05}", meta["generateName"].as_str().unwrap(), self.version));
                }
                let name = meta["name"].as_str().unwrap().to_owned();
                assert!(!self.objects.contains_key(&id(&name)), "{name} exists");
                if !namespace.is_empty() {
                    meta["namespace"] = json!(namespace);
                }
                meta["uid"] = json!(format!("uid-{}", self.version));
                meta["creationTimestamp"] = json!(crate::work::seconds(self.now));
                if write.plural == "pods" {
                    object["status"] = json!({"phase": "Pending"});
                }
                self.store(write, id(&name), object);
                Ok(name)
            }
            Verb::Replace | Verb::Patch => {
                let known = self.objects.get(&id(&write.name)).cloned().unwrap_or_default();
                assert_eq!(
                    write.body["metadata"]["resourceVersion"], known["metadata"]["resourceVersion"],
                    "{} was written twice in one plan",
                    write.name
                );
                let mut object = known;
                match write.verb {
                    Verb::Patch => json_patch::merge(&mut object, &write.body),
                    _ => {
                        object["status"] = write.body["status"].clone();
                        object["metadata"]["annotations"] = write.body["metadata"]["annotations"].clone();
                    }
                }
                self.store(write, id(&write.name), object);
                Ok(write.name.clone())
            }
            Verb::Delete => {
                let mut object = self.objects[&id(&write.name)].clone();
                let meta = &mut object["metadata"];
                if write.plural == "pods" || meta["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
                    meta["deletionTimestamp"] = json!(crate::work::seconds(self.now));
                    meta["deletionGracePeriodSeconds"] = json!(30);
                    self.store(write, id(&write.name), object);
                } else {
                    self.remove(write, id(&write.name));
                }
                Ok(write.name.clone())
            }
        }
    }

    fn store(&mut self, write: &Write, id: Id, mut object: Value) {
        self.version += 1;
        let old = self.objects.get(&id);
        let meta = old.map_or(1, |old| {
            old["metadata"]["generation"].as_u64().unwrap() + u64::from(old["spec"] != object["spec"])
        });
        object["metadata"]["generation"] = json!(meta);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(id, object.clone());
        self.world.answered(write, object);
    }

    fn remove(&mut self, write: &Write, id: Id) {
        let Some(object) = self.objects.remove(&id) else { return };
        let uid = json!({"preconditions": {"uid": object["metadata"]["uid"]}});
        let (namespace, name) = (Some(id.1.namespace), id.1.name);
        let write = Write {
            verb: Verb::Delete,
            namespace,
            name,
            body: uid,
            plural: write.plural,
            api_version: write.api_version,
            ..self.dummy::<Pod>()
        };
        self.world.answered(&write, json!({"kind": "Status"}));
    }

    fn dummy<K: Kind>(&self) -> Write {
        let cluster = ["nodes", "namespaces"].contains(&K::URL_PATH_SEGMENT);
        Write {
            verb: Verb::Patch,
            ..Write::create::<K>(if cluster { "" } else { "ns" }, json!({}))
        }
    }

    fn id<K: Kind>(&self, name: &str) -> Id {
        let cluster = ["nodes", "namespaces"].contains(&K::URL_PATH_SEGMENT);
        (K::URL_PATH_SEGMENT, Key::new(if cluster { "" } else { "ns" }, name))
    }

    fn keys<K: Kind>(&self) -> Vec<Key> {
        self.objects
            .keys()
            .filter(|(plural, _)| *plural == K::URL_PATH_SEGMENT)
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// The kinds that are looked at somewhere in tests, so that their names are checked by the compiler.
    pub(crate) fn kept(&self) -> (usize, usize, usize) {
        (
            self.list::<ControllerRevision>().len(),
            self.list::<Endpoints>().len(),
            self.list::<EndpointSlice>().len(),
        )
    }
}
