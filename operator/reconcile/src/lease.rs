//! Leader election: one replica at a time holds the Lease and writes.

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

const NAME: &str = "mizzen-operator";
/// After this long without a renewal another replica may take it.
const LASTS: Duration = Duration::from_secs(15);
/// Three tries before it runs out.
const EVERY: Duration = Duration::from_secs(4);
/// The holder gives up earlier than others may take over, whatever their clocks do.
const GIVE_UP: Duration = Duration::from_secs(12);

pub(crate) struct Lease {
    api: Api<Object>,
    identity: String,
    /// The renewal last seen and when, by our own clock: clocks of replicas need not agree.
    seen: Mutex<Option<(Option<MicroTime>, Instant)>>,
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    Wait,
}

impl Lease {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            seen: Mutex::new(None),
        }
    }

    /// Returns when this replica holds the lease.
    pub(crate) async fn acquire(&self) -> anyhow::Result<()> {
        let mut told = false;
        loop {
            match self.attempt().await {
                Ok(true) => return Ok(()),
                Ok(false) if !told => {
                    tracing::info!("another replica leads; waiting");
                    told = true;
                }
                Ok(false) => {}
                // Forbidden does not go away by itself.
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    return Err(anyhow::anyhow!("{}; check the operator's Role", status.message));
                }
                Err(error) => tracing::warn!(%error, "the lease cannot be read or written; trying again"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Renews for as long as that works; returns why it no longer did.
    pub(crate) async fn keep(&self) -> anyhow::Error {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            match tokio::time::timeout(EVERY, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return anyhow::anyhow!("another replica holds it"),
                Ok(Err(error)) if renewed.elapsed() > GIVE_UP => return error.into(),
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed; trying again"),
                Err(_) if renewed.elapsed() > GIVE_UP => return anyhow::anyhow!("the API server does not answer"),
                Err(_) => {}
            }
        }
    }

    /// Gives it back, if it is still ours.
    pub(crate) async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(NAME).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.renew_time = None;
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(EVERY, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease was not given back"),
            Err(_) => tracing::debug!("the lease was not given back in time"),
        }
    }

    /// Takes or renews it. The resourceVersion in what is written keeps two replicas from both succeeding.
    async fn attempt(&self) -> kube::Result<bool> {
        let found = self.api.get_opt(NAME).await?;
        let step = self.step(
            found.as_ref().and_then(|lease| lease.spec.as_ref()),
            found.is_some(),
            Instant::now(),
        );
        let now = MicroTime(Timestamp::now());
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(false),
            (Step::Take, Some(mut lease)) => {
                let spec = lease.spec.get_or_insert_default();
                if spec.holder_identity.as_deref() != Some(&self.identity) {
                    spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
                    spec.acquire_time = Some(now.clone());
                }
                self.fill(spec, now);
                self.api.replace(NAME, &PostParams::default(), &lease).await
            }
            (Step::Create | Step::Take, _) => {
                let mut spec = LeaseSpec {
                    acquire_time: Some(now.clone()),
                    ..LeaseSpec::default()
                };
                self.fill(&mut spec, now);
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                };
                let lease = Object {
                    metadata,
                    spec: Some(spec),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn fill(&self, spec: &mut LeaseSpec, now: MicroTime) {
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(LASTS.as_secs()).ok();
        spec.renew_time = Some(now);
    }

    fn step(&self, spec: Option<&LeaseSpec>, exists: bool, now: Instant) -> Step {
        let Some(spec) = spec else {
            return if exists { Step::Take } else { Step::Create };
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return Step::Take;
        }
        let mut seen = self.seen.lock();
        match &*seen {
            Some((renewal, since)) if *renewal == spec.renew_time => {
                if now.duration_since(*since) > LASTS {
                    Step::Take
                } else {
                    Step::Wait
                }
            }
            _ => {
                *seen = Some((spec.renew_time.clone(), now));
                Step::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        let (service, _handle) =
            tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
        Lease::new(Client::new(service, "default"), "operators", "me")
    }

    fn held(by: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    // A12
    #[tokio::test]
    async fn a_lease_of_another_is_taken_only_when_it_stops_being_renewed() {
        let lease = lease();
        let start = Instant::now();
        assert_eq!(lease.step(None, false, start), Step::Create);
        assert_eq!(lease.step(Some(&held("me", 1)), true, start), Step::Take);
        assert_eq!(lease.step(Some(&held("", 1)), true, start), Step::Take);
        assert_eq!(lease.step(Some(&held("other", 1)), true, start), Step::Wait);
        assert_eq!(
            lease.step(Some(&held("other", 2)), true, start + LASTS * 2),
            Step::Wait,
            "renewed meanwhile"
        );
        assert_eq!(
            lease.step(Some(&held("other", 2)), true, start + LASTS * 2 + EVERY),
            Step::Wait
        );
        assert_eq!(lease.step(Some(&held("other", 2)), true, start + LASTS * 4), Step::Take);
    }

    #[test]
    fn the_holder_gives_up_before_others_take_over() {
        assert!(GIVE_UP < LASTS);
        assert!(EVERY * 3 <= GIVE_UP);
    }
}
