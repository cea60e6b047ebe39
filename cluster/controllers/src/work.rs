//! Carries plans out. In: keys from a queue. It asks the controller's pure `step` for a plan, sends the plan's requests, takes
//! the answers into the world and tells events. A failure is told to the next step, which comes after a growing pause.
//! It never decides what to do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    plan::{Action, Event, Plan, Verb, Write, put},
    queue::{Key, Queue},
    world::World,
};

/// What a step may look at.
pub(crate) struct Turn<'a> {
    /// All objects.
    pub(crate) world: &'a World,
    /// The object to look at.
    pub(crate) key: &'a Key,
    /// The time.
    pub(crate) now: Timestamp,
    /// Why the last plan for this key could not be carried out.
    pub(crate) failure: Option<&'a Failure>,
}

/// A write that failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{verb:?} {path}: {message}")]
pub(crate) struct Failure {
    /// What was tried.
    pub(crate) verb: Verb,
    /// On what.
    pub(crate) path: String,
    /// HTTP status, 0 if there was no answer.
    pub(crate) code: u16,
    /// What the server said.
    pub(crate) message: String,
}

/// The decisions of a controller.
pub(crate) type Step = fn(&Turn<'_>) -> Plan;

/// Failures of one key are followed by pauses that double from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(30));
/// How many events are remembered to count repetitions instead of telling them again.
const EVENTS: usize = 4096;

/// What all controllers write through.
pub(crate) struct Desk {
    /// The API.
    pub(crate) client: Client,
    /// All objects.
    pub(crate) world: Arc<World>,
    told: Mutex<BTreeMap<String, (String, u64)>>,
}

impl Desk {
    /// A desk that writes through `client` and takes answers into `world`.
    pub(crate) fn new(client: Client, world: Arc<World>) -> Self {
        Self {
            client,
            world,
            told: Mutex::default(),
        }
    }

    /// Serves one queue forever.
    pub(crate) async fn work(&self, name: &'static str, queue: Arc<Queue>, step: Step) {
        let mut failures: BTreeMap<Key, (u32, Failure)> = BTreeMap::new();
        loop {
            let key = queue.next().await;
            let now = Timestamp::now();
            let failure = failures.get(&key).map(|(_, failure)| failure);
            let plan = step(&Turn {
                world: &self.world,
                key: &key,
                now,
                failure,
            });
            if let Some(at) = plan.again {
                let pause = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                queue.add_at(key.clone(), Instant::now() + pause);
            }
            match self.carry_out(plan.actions).await {
                Ok(()) => {
                    failures.remove(&key);
                }
                Err(failure) => {
                    tracing::debug!(controller = name, %key, %failure, "will be tried again");
                    let times = failures.get(&key).map_or(0, |(times, _)| times + 1);
                    queue.add_at(key.clone(), Instant::now() + pause(times));
                    failures.insert(key, (times, failure));
                }
            }
        }
    }

    /// Sends the requests in order, then tells the events.
    pub(crate) async fn carry_out(&self, actions: Vec<Action>) -> Result<(), Failure> {
        let mut events = Vec::new();
        let mut outcome = Ok(());
        for action in actions {
            match action {
                Action::Event(event) => events.push(event),
                Action::Write(mut write) => match self.send(&write).await {
                    Ok(answer) => {
                        let name = answer
                            .as_ref()
                            .and_then(|a| a.pointer("/metadata/name"))
                            .and_then(Value::as_str);
                        let name = name.unwrap_or(&write.name).to_owned();
                        if let (Some(mut done), Some(_)) = (write.done.take(), &answer) {
                            done.message = done.message.replace("{}", &name);
                            events.push(done);
                        }
                        if let Some(answer) = answer {
                            self.world.answered(&write, answer);
                        }
                    }
                    Err(failure) => {
                        // A conflict only means that the object is newer than what was looked at.
                        if let (Some(mut failed), false) = (write.failed.take(), failure.code == 409) {
                            failed.message = failed.message.replace("{}", &failure.message);
                            events.push(failed);
                        }
                        outcome = Err(failure);
                        break;
                    }
                },
            }
        }
        for event in events {
            self.tell(event).await;
        }
        outcome
    }

    /// Sends one request; no answer if what was to be deleted is gone already.
    async fn send(&self, write: &Write) -> Result<Option<Value>, Failure> {
        let (method, content) = match write.verb {
            Verb::Create => (Method::POST, "application/json"),
            Verb::Replace => (Method::PUT, "application/json"),
            Verb::Patch => (Method::PATCH, "application/merge-patch+json"),
            Verb::Delete => (Method::DELETE, "application/json"),
        };
        match request(&self.client, method, &write.path(), content, &write.body).await {
            Ok(answer) => Ok(Some(answer)),
            Err((404, _)) if write.verb == Verb::Delete => {
                self.world.answered(write, json!({"kind": "Status"}));
                Ok(None)
            }
            Err((code, message)) => Err(Failure {
                verb: write.verb,
                path: write.path(),
                code,
                message,
            }),
        }
    }

    /// Tells an event; one that was told before is counted up. Events are a courtesy: errors are only logged.
    pub(crate) async fn tell(&self, event: Event) {
        let now = Timestamp::now();
        let of = |field: &str| event.regarding.get(field).and_then(Value::as_str).unwrap_or_default();
        let identity = format!("{}{}{}", of("uid"), event.reason, event.message);
        let namespace = if of("namespace").is_empty() {
            "default"
        } else {
            of("namespace")
        };
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let known = {
            let mut told = self.told.lock();
            if told.len() > EVENTS {
                told.clear();
            }
            told.get_mut(&identity).map(|(name, count)| {
                *count += 1;
                (name.clone(), *count)
            })
        };
        let seconds = seconds(now);
        if let Some((name, count)) = known {
            let change = match event.component {
                crate::scheduler::NAME => json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}}),
                _ => json!({"count": count, "lastTimestamp": seconds}),
            };
            let path = format!("{path}/{name}");
            if request(
                &self.client,
                Method::PATCH,
                &path,
                "application/merge-patch+json",
                &change,
            )
            .await
            .is_ok()
            {
                return;
            }
        }
        let name = format!("{}.{:x}", of("name"), now.as_nanosecond());
        let mut body = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": event.regarding, "reason": event.reason, "message": event.message,
            "type": if event.warning { "Warning" } else { "Normal" },
            "reportingComponent": event.component, "reportingInstance": "",
        });
        if event.component == crate::scheduler::NAME {
            // The scheduler speaks the newer events.k8s.io: its events have a precise time and an action.
            put(&mut body, &["eventTime"], json!(MicroTime(now)));
            put(&mut body, &["reportingInstance"], json!(event.component));
            put(
                &mut body,
                &["action"],
                json!(if event.warning { "Scheduling" } else { "Binding" }),
            );
        } else {
            put(&mut body, &["source"], json!({"component": event.component}));
            put(&mut body, &["count"], json!(1));
            put(&mut body, &["firstTimestamp"], json!(seconds));
            put(&mut body, &["lastTimestamp"], json!(seconds));
        }
        match request(&self.client, Method::POST, &path, "application/json", &body).await {
            Ok(_) => {
                self.told.lock().insert(identity, (name, 1));
            }
            Err((code, error)) => tracing::debug!(code, %error, reason = event.reason, "event not told"),
        }
    }
}

/// Sends a request as `kube-controller-manager`; an error is the HTTP status (0: no answer) and what the server said.
pub(crate) async fn request(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> Result<Value, (u16, String)> {
    let manager = if method == Method::DELETE {
        ""
    } else {
        "?fieldManager=kube-controller-manager"
    };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{path}{manager}"))
        .header(http::header::CONTENT_TYPE, content_type)
        .body(body.to_string().into_bytes())
        .map_err(|error| (0, error.to_string()))?;
    client.request::<Value>(request).await.map_err(|error| match error {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        error => (0, error.to_string()),
    })
}

/// The time as metadata has it: whole seconds.
pub(crate) fn seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn pause(times: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << times.min(20)).min(PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        assert_eq!(pause(0), Duration::from_millis(5));
        assert_eq!(pause(3), Duration::from_millis(40));
        assert_eq!(pause(40), Duration::from_secs(30));
    }
}
