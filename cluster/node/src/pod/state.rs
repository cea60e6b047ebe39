//! Where each container of a pod is, and from that what to do next. Pure: time is an argument.

use std::time::Duration;

use k8s_openapi::api::core::v1::{self as core, Pod};
use k8s_openapi::jiff::Timestamp;

/// Kubelet's numbers for restarts and image pulls.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with restart policy Always.
    Sidecar,
    Main,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) id: Option<String>,
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting { reason: String, message: Option<String> },
    Running { since: Timestamp },
    Ended(Ended),
}

/// Delays that double, and begin anew after ten quiet minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    delay: Duration,
    last: Option<Timestamp>,
}

impl Backoff {
    /// When the next attempt may be after an end at `ended`.
    pub(crate) fn due(&self, ended: Timestamp) -> Timestamp {
        if self.quiet(ended) { ended } else { ended + self.delay }
    }

    /// The delay that is in force.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    /// An attempt is made: the next waits longer.
    pub(crate) fn attempt(&mut self, now: Timestamp) {
        let quiet = self.quiet(now);
        self.delay = if quiet || self.delay.is_zero() {
            FIRST_DELAY
        } else {
            (self.delay * 2).min(LONGEST_DELAY)
        };
        self.last = Some(now);
    }

    fn quiet(&self, now: Timestamp) -> bool {
        self.last.is_some_and(|last| now > last + 2 * LONGEST_DELAY)
    }
}

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) spec: core::Container,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    /// How often it was started here; numbers its logs.
    pub(crate) attempts: i32,
    /// Runs, and its startup probe has succeeded.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    pub(crate) id: Option<String>,
    pub(crate) image_id: String,
    pub(crate) backoff: Backoff,
    pub(crate) pull: Backoff,
    /// The next attempt is not before.
    pub(crate) not_before: Option<Timestamp>,
}

impl Container {
    /// The containers of a pod as its status says they were; processes of an earlier life of this node are gone.
    pub(crate) fn all(pod: &Pod) -> Vec<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default().into_iter().map(|container| {
            let kind = if container.restart_policy.as_deref() == Some("Always") {
                Kind::Sidecar
            } else {
                Kind::Init
            };
            (kind, container)
        });
        let all = init.chain(spec.containers.into_iter().map(|container| (Kind::Main, container)));
        let known: Vec<_> = [status.init_container_statuses, status.container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        let waiting = if pod.spec.as_ref().is_some_and(|spec| spec.init_containers.is_some()) {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        all.map(|(kind, spec)| {
            let before = known.iter().find(|status| status.name == spec.name);
            let last = before.and_then(ended_before);
            let ran = last.is_some();
            let restarts = before.map_or(0, |status| status.restart_count + i32::from(ran));
            Self {
                spec,
                kind,
                state: State::Waiting {
                    reason: waiting.to_owned(),
                    message: None,
                },
                last,
                restarts,
                attempts: restarts,
                started: false,
                ready: false,
                id: None,
                image_id: String::new(),
                backoff: Backoff::default(),
                pull: Backoff::default(),
                not_before: None,
            }
        })
        .collect()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// How it ended, if it did and has not been started again.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            State::Waiting { .. } if self.attempts > 0 => self.last.as_ref(),
            _ => None,
        }
    }

    fn restarts_after(&self, ended: &Ended, policy: &str) -> bool {
        match (self.kind, policy) {
            (Kind::Sidecar, _) => true,
            (Kind::Init, "Never") => false,
            (Kind::Init, _) => ended.code != 0,
            (Kind::Main, "Never") => false,
            (Kind::Main, "OnFailure") => ended.code != 0,
            (Kind::Main, _) => true,
        }
    }
}

/// What a status of an earlier life says of a container that had been started.
fn ended_before(status: &core::ContainerStatus) -> Option<Ended> {
    let state = status.state.clone()?;
    if let Some(ended) = state.terminated {
        return Some(Ended {
            id: ended.container_id,
            code: ended.exit_code,
            reason: ended.reason.unwrap_or_default(),
            message: ended.message,
            started: ended.started_at.map(|time| time.0),
            finished: ended.finished_at.map(|time| time.0),
        });
    }
    state.running.map(|running| Ended {
        id: status.container_id.clone(),
        code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        started: running.started_at.map(|time| time.0),
        finished: None,
    })
}

/// What to do with a pod's containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// Indices to start, in this order.
    pub(crate) start: Vec<usize>,
    /// All is done, or an init container failed for good: whatever still runs is to end.
    pub(crate) finished: bool,
    /// When to ask again although nothing happens.
    pub(crate) wake: Option<Timestamp>,
    /// Init containers are through.
    pub(crate) initialized: bool,
}

/// `initialized` is what the last answer said; after that only sidecars among the init containers start again.
pub(crate) fn next(containers: &[Container], policy: &str, initialized: bool, now: Timestamp) -> Next {
    let mut next = Next {
        initialized,
        ..Next::default()
    };
    for (index, container) in containers.iter().enumerate().filter(|(_, c)| c.kind != Kind::Main) {
        if initialized && container.kind == Kind::Init {
            continue;
        }
        match (&container.state, container.kind) {
            (State::Ended(ended), Kind::Init) if ended.code == 0 => continue,
            (State::Ended(ended), _) if !container.restarts_after(ended, policy) => {
                next.finished = true;
                return next;
            }
            (State::Running { .. }, Kind::Sidecar) if container.started => continue,
            (State::Running { .. }, _) => {}
            _ => start_or_wait(&mut next, index, container, now),
        }
        if !initialized {
            return next;
        }
    }
    next.initialized = true;
    let mains = || {
        containers
            .iter()
            .enumerate()
            .filter(|(_, container)| container.kind == Kind::Main)
    };
    let over = |container: &Container| match &container.state {
        State::Ended(ended) => !container.restarts_after(ended, policy),
        _ => false,
    };
    if mains().all(|(_, container)| over(container)) {
        return Next {
            finished: true,
            initialized: true,
            ..Next::default()
        };
    }
    for (index, container) in mains() {
        if !container.is_running() && !over(container) {
            start_or_wait(&mut next, index, container, now);
        }
    }
    next
}

fn start_or_wait(next: &mut Next, index: usize, container: &Container, now: Timestamp) {
    match container.not_before {
        Some(then) if then > now => next.wake = Some(next.wake.map_or(then, |wake| wake.min(then))),
        _ => next.start.push(index),
    }
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
