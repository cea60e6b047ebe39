//! TCP services: an endpoint by weight and balance, then a tunnel.
//!
//! In: a connection whose filter chain is a TCP proxy. Out: bytes both ways, counted. Connections that cannot be made are tried
//! at other endpoints as often as the chain allows; then the client's connection is closed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use mizzen_decide::{HostId, Limit, Pick, Report, pick_cluster};
use mizzen_proxy_config::{Cluster, Direction, TcpProxy};
use smallvec::SmallVec;

use crate::balance::Wanted;
use crate::buffer::Input;
use crate::conn::Conn;
use crate::format::Values;
use crate::info::namespace_of;
use crate::mesh::Lookup;
use crate::telemetry::{Flags, PeerId, PeerLabels, Reporter, ServiceLabels, Workload};
use crate::timer::Timer;
use crate::tunnel::{self, End};
use crate::upstream::{self, Speaks, Target, Upstream};
use crate::worker::Worker;

/// A client's connection with its addresses.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub conn: Conn,
    /// What was read of it.
    pub input: Input,
    /// Which way it goes.
    pub direction: Direction,
    /// The client.
    pub remote: SocketAddr,
    /// Where it wanted to go.
    pub local: SocketAddr,
}

/// Serves the connection to its end.
pub async fn serve(worker: &Rc<Worker>, proxy: &TcpProxy, mut client: Client) {
    let (started, wall) = (Instant::now(), SystemTime::now());
    let random: u64 = rand::random();
    let Some(entry) = pick_cluster(&proxy.clusters, random) else {
        return;
    };
    let cluster = worker.view.resolve::<Cluster>(&entry.cluster).await;
    let mut flags = Flags::NONE;
    let mut passed = tunnel::Passed::default();
    let (mut address, mut local_address, mut failure) = (None, None, String::new());
    match cluster {
        Lookup::Present(cluster) => {
            let state = worker.clusters.state(&cluster);
            match state.permit(Limit::Connection, false) {
                None => flags.add(Flags::OVERFLOW),
                Some(_permit) => match connect(worker, &client, proxy, &cluster, random).await {
                    Ok((mut upstream, _chosen)) => {
                        (address, local_address) = (Some(upstream.address), upstream.local);
                        let peer = labels(worker, proxy, &client, &cluster, Some(&upstream));
                        worker.shard.tcp_opened(peer);
                        let mut timer = Timer::new();
                        let first = std::mem::take(&mut client.input);
                        let counted = |moved: tunnel::Passed| {
                            worker.shard.tcp_bytes(peer, moved.up, moved.down);
                        };
                        let (all, end) = tunnel::run(
                            &mut client.conn,
                            first,
                            &mut upstream.conn,
                            Input::none(),
                            &mut timer,
                            proxy.idle_timeout,
                            counted,
                        )
                        .await;
                        passed = all;
                        match end {
                            End::Finished => {}
                            End::Idle => flags.add(Flags::IDLE_TIMEOUT),
                            End::Downstream => flags.add(Flags::DOWNSTREAM_GONE),
                            End::Upstream => flags.add(Flags::UPSTREAM_CLOSED),
                        }
                        worker.shard.tcp_closed(peer, flags);
                    }
                    Err((flag, text)) => {
                        flags.add(flag);
                        failure = text;
                    }
                },
            }
            if address.is_none() {
                let peer = labels(worker, proxy, &client, &cluster, None);
                worker.shard.tcp_opened(peer);
                worker.shard.tcp_closed(peer, flags);
            }
        }
        Lookup::Absent | Lookup::Requested => flags.add(Flags::NO_CLUSTER),
    }
    if proxy.access_logs.is_empty() {
        return;
    }
    let own = worker
        .shared
        .svids
        .current()
        .map(|svid| svid.spiffe().clone())
        .unwrap_or_default();
    let values = Values {
        request: None,
        request_id: None,
        response: None,
        start: wall,
        duration: started.elapsed(),
        first_byte: None,
        status: 0,
        flags,
        details: "",
        transport_failure: &failure,
        received: passed.up,
        sent: passed.down,
        upstream: address,
        cluster: &entry.cluster,
        upstream_local: local_address,
        local: Some(client.local),
        remote: Some(client.remote),
        peer: client.conn.peer.as_ref().map(|peer| &*peer.spiffe).unwrap_or_default(),
        own: &own,
        tls_version: client.conn.tls_version().unwrap_or_default(),
        server_name: client.conn.server_name().unwrap_or_default(),
        route: "",
        attempts: 1,
        grpc: None,
        hostname: &worker.shared.settings.pod,
        connection: 0,
    };
    crate::format::log(&proxy.access_logs, &values, &worker.shared.log);
}

async fn connect(
    worker: &Rc<Worker>,
    client: &Client,
    proxy: &TcpProxy,
    cluster: &std::sync::Arc<Cluster>,
    random: u64,
) -> Result<(Upstream, crate::balance::Chosen), (Flags, String)> {
    let mut tried: SmallVec<[HostId; 4]> = SmallVec::new();
    let mut last = (Flags::NO_HEALTHY_UPSTREAM, String::new());
    for attempt in 0..proxy.max_connect_attempts.max(1) {
        let pick = Pick {
            random: mizzen_decide::mix(random, u64::from(attempt)),
            hash: None,
            tried: &tried,
            draws: 3,
        };
        let wanted = Wanted {
            pick,
            original: client.local,
        };
        let Some(chosen) = worker.clusters.choose(&worker.view, cluster, &wanted).await else {
            break;
        };
        let target = Target {
            cluster: cluster.clone(),
            address: chosen.address,
            socket: chosen.socket.clone(),
            speaks: Speaks::Tcp,
            workload: chosen.workload.clone(),
            reporter: reporter(client.direction),
        };
        match upstream::fresh(worker, &target).await {
            Ok(upstream) => {
                chosen.report(Report::Connected);
                return Ok((upstream, chosen));
            }
            Err(error) => {
                chosen.report(Report::LocalFailure);
                tried.extend(chosen.id());
                last = (Flags::UPSTREAM_FAILURE, error.to_string());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Err(last)
}

fn reporter(direction: Direction) -> Reporter {
    match direction {
        Direction::Inbound => Reporter::Destination,
        Direction::Outbound | Direction::Unspecified => Reporter::Source,
    }
}

fn labels(
    worker: &Worker,
    proxy: &TcpProxy,
    client: &Client,
    cluster: &Cluster,
    upstream: Option<&Upstream>,
) -> PeerId {
    let reporter = reporter(client.direction);
    if let (Reporter::Source, Some(upstream)) = (reporter, upstream) {
        return upstream.peer;
    }
    let service = cluster.service.as_ref().or(proxy.service.as_ref());
    let mut peer = Workload::default();
    if let (Reporter::Destination, Some(proven)) = (reporter, &client.conn.peer) {
        peer.principal = proven.spiffe.clone();
        peer.namespace = namespace_of(&proven.spiffe).unwrap_or_default().into();
    }
    worker.shard.peer(PeerLabels {
        reporter,
        peer,
        service: service
            .map(|service| ServiceLabels::from(&**service))
            .unwrap_or_default(),
        mutual_tls: client.conn.peer.is_some(),
    })
}
