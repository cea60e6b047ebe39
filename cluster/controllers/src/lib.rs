//! The controllers of a Kubernetes: what the API server stores, they make happen. In: watches of a `kube::Client`. Out: requests of
//! the same client. Every behaviour carries the name of the Kubernetes controller it is taken from: Deployment, ReplicaSet,
//! StatefulSet, DaemonSet, Job, CronJob, Endpoints and EndpointSlice, namespace (default ServiceAccount, root certificates,
//! end of content), garbage collection, disruption, scheduler.
//!
//! A controller is a pure function `step`: it looks at the objects that are known, at the time and at the last failure and returns a plan
//! of writes and events. `work` carries plans out, one object at a time; `garbage` and the end of namespaces, which go
//! by discovery over all kinds, have their own loops. Controllers keep no state of their own: after a restart they go on from
//! the objects. They never run a pod; that is the node's.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Handler, key},
    queue::{Key, Queue},
    work::{Desk, Step},
    world::World,
};

mod cache;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod garbage;
mod job;
mod namespace;
mod nodes;
mod plan;
mod pods;
mod queue;
mod replicaset;
mod resources;
mod revision;
mod scheduler;
#[cfg(test)]
mod sim;
mod statefulset;
mod work;
mod world;

/// What the controllers need to know beside the objects.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The certificates by which pods know the API server, as PEM: `kube-root-ca.crt` of every namespace. Empty: no such ConfigMap.
    pub root_ca: String,
    /// Whether to bind pods to nodes too.
    pub schedule: bool,
}

/// Runs all controllers until `shutdown`; requests under way are then given up.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) {
    let world = Arc::new(World::default());
    if !options.root_ca.is_empty() {
        let _ = world.root_ca.set(options.root_ca); // it is new: nobody has set it
    }
    let queues = Queues::default();
    wire(&world, &queues);
    let mut tasks = JoinSet::new();
    world.watch(&client, &mut tasks);
    let desk = Arc::new(Desk::new(client.clone(), world.clone()));
    let mut work: Vec<(&'static str, &Arc<Queue>, Step)> = vec![
        (deployment::NAME, &queues.deployments, deployment::step),
        (replicaset::NAME, &queues.replica_sets, replicaset::step),
        (statefulset::NAME, &queues.stateful_sets, statefulset::step),
        (daemonset::NAME, &queues.daemon_sets, daemonset::step),
        (job::NAME, &queues.jobs, job::step),
        (cronjob::NAME, &queues.cron_jobs, cronjob::step),
        ("endpoint-controller", &queues.services, endpoints::step),
        ("disruption-controller", &queues.budgets, disruption::step),
        ("node-lifecycle-controller", &queues.nodes, nodes::step),
        ("namespace-controller", &queues.namespaces, namespace::step),
    ];
    if options.schedule {
        work.push((scheduler::NAME, &queues.unscheduled, scheduler::step));
    }
    for (name, queue, step) in work {
        let (desk, queue) = (desk.clone(), queue.clone());
        tasks.spawn(async move {
            desk.world.synced().await;
            desk.work(name, queue, step).await;
        });
    }
    tasks.spawn(namespace::end(desk, queues.ending.clone()));
    tasks.spawn(garbage::run(client));
    shutdown.cancelled().await;
    tasks.shutdown().await;
}

#[derive(Default)]
struct Queues {
    deployments: Arc<Queue>,
    replica_sets: Arc<Queue>,
    stateful_sets: Arc<Queue>,
    daemon_sets: Arc<Queue>,
    jobs: Arc<Queue>,
    cron_jobs: Arc<Queue>,
    services: Arc<Queue>,
    budgets: Arc<Queue>,
    namespaces: Arc<Queue>,
    nodes: Arc<Queue>,
    ending: Arc<Queue>,
    unscheduled: Arc<Queue>,
}

/// Says which change makes which controller look at what.
fn wire(world: &Arc<World>, queues: &Queues) {
    macro_rules! itself {
        ($($cache:ident => $queue:ident),*) => {
            $({
                let queue = queues.$queue.clone();
                let mut handlers: Vec<Handler<_>> = vec![Box::new(move |object| queue.add(key(meta(object))))];
                handlers.extend(owners(queues));
                world.$cache.handlers(handlers);
            })*
        };
    }
    itself!(deployments => deployments, stateful_sets => stateful_sets, daemon_sets => daemon_sets, cron_jobs => cron_jobs, budgets => budgets);
    itself!(replica_sets => replica_sets, jobs => jobs);
    let wake: fn(&Arc<Queue>, &Arc<Queue>) -> [Arc<Queue>; 2] = |a, b| [a.clone(), b.clone()];

    // Orphans may be taken in by whoever selects them.
    let [replica_sets, services] = wake(&queues.replica_sets, &queues.services);
    let [budgets, unscheduled] = wake(&queues.budgets, &queues.unscheduled);
    let [ending, stateful_sets] = wake(&queues.ending, &queues.stateful_sets);
    let [daemon_sets, deployments] = wake(&queues.daemon_sets, &queues.deployments);
    let known = Arc::downgrade(world);
    let mut of_pods: Vec<Handler<Pod>> = vec![Box::new(move |pod| {
        let Some(world) = known.upgrade() else { return };
        let labels = &pod.metadata.labels;
        let key = key(&pod.metadata);
        let namespace = key.namespace.as_str();
        if pods::controller(&pod.metadata).is_none() {
            world
                .replica_sets
                .list(namespace)
                .iter()
                .for_each(|set| replica_sets.add(cache::key(&set.metadata)));
            world
                .stateful_sets
                .list(namespace)
                .iter()
                .for_each(|set| stateful_sets.add(cache::key(&set.metadata)));
            world
                .daemon_sets
                .list(namespace)
                .iter()
                .for_each(|set| daemon_sets.add(cache::key(&set.metadata)));
        }
        // A Recreate waits for the last pod of an old ReplicaSet, whose own status no longer counts it.
        if let Some(set) = pods::controller(&pod.metadata).filter(|_| pod.metadata.deletion_timestamp.is_some()) {
            let set = world.replica_sets.get(&Key::new(namespace, &set.name));
            let owner = set.as_ref().and_then(|set| pods::controller(&set.metadata));
            owner
                .into_iter()
                .for_each(|owner| deployments.add(Key::new(namespace, &owner.name)));
        }
        for service in world.services.list(namespace) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
            let selector = LabelSelector {
                match_labels: selector,
                match_expressions: None,
            };
            if selector.match_labels.as_ref().is_some_and(|s| !s.is_empty()) && pods::selects(&selector, labels) {
                services.add(cache::key(&service.metadata));
            }
        }
        for budget in world.budgets.list(namespace) {
            if budget
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.as_ref())
                .is_some_and(|s| pods::selects(s, labels))
            {
                budgets.add(cache::key(&budget.metadata));
            }
        }
        let home = Key::new("", namespace);
        if world
            .namespaces
            .get(&home)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            ending.add(home);
        }
        if scheduler::is_waiting(pod) {
            unscheduled.add(key);
        }
    })];
    of_pods.extend(owners(queues));
    world.pods.handlers(of_pods);
    world.revisions.handlers(owners(queues));

    let [daemon_sets, unscheduled] = wake(&queues.daemon_sets, &queues.unscheduled);
    let known = Arc::downgrade(world);
    let nodes = queues.nodes.clone();
    world.nodes.handlers(vec![Box::new(move |node| {
        nodes.add(key(&node.metadata));
        let Some(world) = known.upgrade() else { return };
        world
            .daemon_sets
            .all()
            .iter()
            .for_each(|set| daemon_sets.add(cache::key(&set.metadata)));
        let waiting = world.pods.all().into_iter().filter(|pod| scheduler::is_waiting(pod));
        waiting.for_each(|pod| unscheduled.add(cache::key(&pod.metadata)));
    })]);

    let services = queues.services.clone();
    world
        .services
        .handlers(vec![Box::new(move |service| services.add(key(&service.metadata)))]);
    let services = queues.services.clone();
    let known = Arc::downgrade(world);
    world.endpoints.handlers(vec![Box::new(move |endpoints| {
        let key = key(&endpoints.metadata);
        if known.upgrade().is_some_and(|world| world.services.get(&key).is_some()) {
            services.add(key);
        }
    })]);
    let services = queues.services.clone();
    world.endpoint_slices.handlers(vec![Box::new(move |slice| {
        let service = pods::text(&slice.metadata.labels, endpoints::SERVICE);
        if !service.is_empty() {
            services.add(Key::new(
                slice.metadata.namespace.as_deref().unwrap_or_default(),
                service,
            ));
        }
    })]);

    let [namespaces, ending] = wake(&queues.namespaces, &queues.ending);
    world.namespaces.handlers(vec![Box::new(move |namespace| {
        namespaces.add(key(&namespace.metadata));
        ending.add(key(&namespace.metadata));
    })]);
    let home = |meta: &ObjectMeta| Key::new("", meta.namespace.as_deref().unwrap_or_default());
    let namespaces = queues.namespaces.clone();
    world
        .service_accounts
        .handlers(vec![Box::new(move |account| namespaces.add(home(&account.metadata)))]);
    let namespaces = queues.namespaces.clone();
    world
        .config_maps
        .handlers(vec![Box::new(move |map| namespaces.add(home(&map.metadata)))]);
}

fn meta<K: k8s_openapi::Metadata<Ty = ObjectMeta>>(object: &K) -> &ObjectMeta {
    object.metadata()
}

/// Makes the controller of an object look when the object changes.
fn owners<K: k8s_openapi::Metadata<Ty = ObjectMeta>>(queues: &Queues) -> Vec<Handler<K>> {
    let of = [
        ("Deployment", queues.deployments.clone()),
        ("ReplicaSet", queues.replica_sets.clone()),
        ("StatefulSet", queues.stateful_sets.clone()),
        ("DaemonSet", queues.daemon_sets.clone()),
        ("Job", queues.jobs.clone()),
        ("CronJob", queues.cron_jobs.clone()),
    ];
    vec![Box::new(move |object| {
        let meta = object.metadata();
        if let Some(owner) = pods::controller(meta) {
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            let queue = of.iter().find(|(kind, _)| *kind == owner.kind).map(|(_, queue)| queue);
            queue
                .into_iter()
                .for_each(|queue| queue.add(Key::new(namespace, &owner.name)));
        }
    })]
}
