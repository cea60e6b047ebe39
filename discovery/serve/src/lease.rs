//! One replica among several does what must be done once: it holds a Lease.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

/// Kubernetes' own leaders use these values: another replica takes over within 15 s.
const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);

/// Tries to hold the lease for as long as it lives, and tells whether it does.
pub(crate) async fn hold(
    client: Client,
    namespace: String,
    name: String,
    holder: String,
    leader: Arc<watch::Sender<bool>>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    // Somebody else's lease counts from when we saw it change, not by its clock.
    let mut seen: Option<(Option<String>, Instant)> = None;
    let mut until = Instant::now();
    loop {
        match attempt(&leases, &name, &holder, &mut seen).await {
            Ok(true) => {
                until = Instant::now() + DURATION;
                if !leader.send_replace(true) {
                    info!(lease = name, "this replica writes status");
                }
            }
            Ok(false) => {
                leader.send_replace(false);
            }
            Err(error) => {
                debug!(lease = name, %error, "lease not renewed");
                if Instant::now() >= until && leader.send_replace(false) {
                    warn!(lease = name, %error, "lease lost");
                }
            }
        }
        tokio::time::sleep(RENEW).await;
    }
}

async fn attempt(
    leases: &Api<Lease>,
    name: &str,
    holder: &str,
    seen: &mut Option<(Option<String>, Instant)>,
) -> Result<bool, kube::Error> {
    let now = MicroTime(Timestamp::now());
    let Some(mut lease) = leases.get_opt(name).await? else {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let lease = Lease {
            metadata,
            spec: Some(spec),
        };
        return taken(leases.create(&PostParams::default(), &lease).await);
    };
    let version = lease.metadata.resource_version.clone();
    let mut spec = lease.spec.take().unwrap_or_default();
    let mine = spec.holder_identity.as_deref() == Some(holder);
    if !mine && spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()) {
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => {
                *seen = Some((version, Instant::now()));
                return Ok(false);
            }
        };
        if since.elapsed() < DURATION {
            return Ok(false);
        }
    }
    if !mine {
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    spec.holder_identity = Some(holder.to_owned());
    spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
    spec.renew_time = Some(now);
    lease.spec = Some(spec);
    // The resource version in it makes sure that of two replicas one wins.
    taken(leases.replace(name, &PostParams::default(), &lease).await)
}

fn taken(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the lease up, so that another replica need not wait for it to run out.
pub(crate) async fn release(client: Client, namespace: &str, name: &str, holder: &str) {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let Ok(Some(mut lease)) = leases.get_opt(name).await else {
        return;
    };
    let Some(spec) = lease
        .spec
        .as_mut()
        .filter(|spec| spec.holder_identity.as_deref() == Some(holder))
    else {
        return;
    };
    spec.holder_identity = Some(String::new());
    let _ = leases.replace(name, &PostParams::default(), &lease).await;
}
