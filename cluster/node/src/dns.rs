//! The cluster's name server: a question comes in, its answer from services and endpoint slices goes out (the schema is
//! <https://github.com/kubernetes/dns/blob/master/docs/specification.md>); what is not the cluster's is asked outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;

use crate::config::{NodeConfig, Outside};
use crate::services::slices_of;
use crate::stores::Stores;

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const SRV: u16 = 33;
const ANY: u16 = 255;
/// Seconds; as CoreDNS says for cluster names, short for what is watched.
const TTL: u32 = 5;
const NAME_ERROR: u8 = 3;
const SERVER_FAILURE: u8 = 2;
/// Concurrent questions that wait for the outside.
const PENDING: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Record {
    Address(Ipv4Addr),
    Alias(String),
    Name(String),
    Service {
        port: u16,
        target: String,
        address: Ipv4Addr,
    },
}

/// A question: id and flags, the name in lower case, the type, and where it ends in the message.
struct Question {
    id: u16,
    recursion: bool,
    name: String,
    kind: u16,
    end: usize,
}

/// Serves UDP and TCP on an address until it is dropped.
pub(crate) async fn run(config: NodeConfig, stores: Arc<Stores>) -> std::io::Result<()> {
    let address = SocketAddr::new(IpAddr::V4(config.gateway()), 53);
    let udp = Arc::new(UdpSocket::bind(address).await?);
    let tcp = TcpListener::bind(address).await?;
    let server = Arc::new(Server {
        domain: config.domain.clone(),
        outside: config.outside.clone(),
        stores,
    });
    let pending = Arc::new(Semaphore::new(PENDING));
    let mut buffer = vec![0; 4096];
    loop {
        let permit = Arc::clone(&pending).acquire_owned().await;
        let server = Arc::clone(&server);
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                let message = buffer.get(..length).unwrap_or_default().to_vec();
                let udp = Arc::clone(&udp);
                tokio::spawn(async move {
                    if let Some(answer) = server.answer(message).await {
                        _ = udp.send_to(&answer, from).await;
                    }
                    drop(permit);
                });
            }
            accepted = tcp.accept() => {
                let Ok((mut stream, _)) = accepted else { continue };
                tokio::spawn(async move {
                    let exchange = async {
                        while let Ok(length) = stream.read_u16().await {
                            let mut message = vec![0; usize::from(length)];
                            stream.read_exact(&mut message).await?;
                            let Some(answer) = server.answer(message).await else { break };
                            stream.write_u16(u16::try_from(answer.len()).unwrap_or(u16::MAX)).await?;
                            stream.write_all(&answer).await?;
                        }
                        std::io::Result::Ok(())
                    };
                    _ = tokio::time::timeout(std::time::Duration::from_secs(10), exchange).await;
                    drop(permit);
                });
            }
        }
    }
}

struct Server {
    domain: String,
    outside: Option<Arc<dyn Outside>>,
    stores: Arc<Stores>,
}

impl Server {
    async fn answer(&self, message: Vec<u8>) -> Option<Vec<u8>> {
        let question = parse(&message)?;
        let services = self.stores.services();
        let slices = self.stores.slices();
        if let Some(records) = look_up(&question.name, &self.domain, &services, &slices) {
            return Some(reply(&message, &question, records.as_deref().ok_or(NAME_ERROR)));
        }
        let Some(outside) = &self.outside else {
            return Some(reply(&message, &question, Err(NAME_ERROR)));
        };
        Some(
            outside
                .resolve(message.clone())
                .await
                .unwrap_or_else(|_| reply(&message, &question, Err(SERVER_FAILURE))),
        )
    }
}

/// `None`: not the cluster's; `Some(None)`: no such name; else all records of the name, of whatever type.
#[expect(clippy::option_option, reason = "three answers, documented")]
fn look_up(
    name: &str,
    domain: &str,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> Option<Option<Vec<Record>>> {
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        let mut labels: Vec<&str> = reversed.split('.').collect();
        labels.reverse();
        let address: Ipv4Addr = labels.join(".").parse().ok()?;
        return pointer(address, domain, services, slices).map(Some);
    }
    let inside = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'))?;
    let labels: Vec<&str> = inside.split('.').collect();
    Some(match labels.as_slice() {
        [_, "svc"] | ["svc" | "pod"] => Some(Vec::new()),
        [address, _, "pod"] => address
            .replace('-', ".")
            .parse()
            .ok()
            .map(|address| vec![Record::Address(address)]),
        [rest @ .., service, namespace, "svc"] => {
            let wanted = |found: &&Arc<Service>| {
                found.name_any() == *service && found.namespace().as_deref() == Some(*namespace)
            };
            let found = services.iter().find(wanted);
            found.and_then(|found| of_service(rest, found, domain, slices))
        }
        _ => None,
    })
}

fn host(service: &Service, domain: &str) -> String {
    format!(
        "{}.{}.svc.{domain}",
        service.name_any(),
        service.namespace().unwrap_or_default()
    )
}

fn of_service(rest: &[&str], service: &Service, domain: &str, slices: &[Arc<EndpointSlice>]) -> Option<Vec<Record>> {
    let spec = service.spec.as_ref()?;
    if let Some(external) = spec
        .external_name
        .as_ref()
        .filter(|_| spec.type_.as_deref() == Some("ExternalName"))
    {
        return rest.is_empty().then(|| vec![Record::Alias(external.clone())]);
    }
    let address: Option<Ipv4Addr> = spec.cluster_ip.as_ref().and_then(|ip| ip.parse().ok());
    let endpoints = || endpoints(service, slices);
    match (rest, address) {
        ([], Some(address)) => Some(vec![Record::Address(address)]),
        ([], None) => {
            let all: Vec<Record> = endpoints().map(|(_, address)| Record::Address(address)).collect();
            (!all.is_empty()).then_some(all)
        }
        ([port, protocol], _) if port.starts_with('_') && protocol.starts_with('_') => {
            let wanted = |name: Option<&str>, transport: Option<&str>| {
                name.is_some_and(|name| Some(name) == port.strip_prefix('_'))
                    && transport
                        .unwrap_or("TCP")
                        .eq_ignore_ascii_case(protocol.strip_prefix('_').unwrap_or_default())
            };
            let records: Vec<Record> = match address {
                Some(address) => {
                    let ports = spec.ports.iter().flatten();
                    let found = ports.filter(|p| wanted(p.name.as_deref(), p.protocol.as_deref()));
                    let numbers = found.filter_map(|port| u16::try_from(port.port).ok());
                    numbers
                        .map(|port| Record::Service {
                            port,
                            target: host(service, domain),
                            address,
                        })
                        .collect()
                }
                None => slices_of(service, slices)
                    .flat_map(|slice| slice.ports.iter().flatten())
                    .filter(|p| wanted(p.name.as_deref(), p.protocol.as_deref()))
                    .filter_map(|port| u16::try_from(port.port?).ok())
                    .flat_map(|port| {
                        endpoints().map(move |(name, address)| Record::Service {
                            port,
                            target: format!("{name}.{}", host(service, domain)),
                            address,
                        })
                    })
                    .collect(),
            };
            (!records.is_empty()).then_some(records)
        }
        ([hostname], None) => {
            let all: Vec<Record> = endpoints()
                .filter(|(name, _)| name == hostname)
                .map(|(_, address)| Record::Address(address))
                .collect();
            (!all.is_empty()).then_some(all)
        }
        _ => None,
    }
}

/// The ready endpoints: their host names (or addresses with dashes) and addresses.
fn endpoints<'a>(
    service: &'a Service,
    slices: &'a [Arc<EndpointSlice>],
) -> impl Iterator<Item = (String, Ipv4Addr)> + 'a {
    slices_of(service, slices)
        .flat_map(|slice| slice.endpoints.iter())
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        })
        .filter_map(|endpoint| {
            let text = endpoint.addresses.first()?;
            let name = endpoint.hostname.clone().unwrap_or_else(|| text.replace('.', "-"));
            Some((name, text.parse().ok()?))
        })
}

fn pointer(
    address: Ipv4Addr,
    domain: &str,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> Option<Vec<Record>> {
    for service in services {
        let own = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
        if own == Some(&address.to_string()) {
            return Some(vec![Record::Name(host(service, domain))]);
        }
        if own == Some("None")
            && let Some((name, _)) = endpoints(service, slices).find(|(_, found)| *found == address)
        {
            return Some(vec![Record::Name(format!("{name}.{}", host(service, domain)))]);
        }
    }
    None
}

fn parse(message: &[u8]) -> Option<Question> {
    let number = |at: usize| message.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    // A standard query with one question.
    if number(2)? & 0xf800 != 0 || number(4)? != 1 {
        return None;
    }
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase()),
            _ => return None,
        }
        at += length;
    }
    Some(Question {
        id: number(0)?,
        recursion: number(2)? & 0x100 != 0,
        name: labels.join("."),
        kind: number(at)?,
        end: at + 4,
    })
}

fn reply(message: &[u8], question: &Question, records: Result<&[Record], u8>) -> Vec<u8> {
    let (records, code) = match records {
        Ok(records) => (records, 0),
        Err(code) => (&[][..], code),
    };
    let mut out = question.id.to_be_bytes().to_vec();
    // response, authoritative, recursion desired; recursion available, code
    out.push(0x84 | u8::from(question.recursion));
    out.push(0x80 | code);
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(message.get(12..question.end).unwrap_or_default());
    let mut count = 0_u16;
    let mut extra = Vec::new();
    for record in records {
        let matches = match record {
            Record::Address(_) => question.kind == A || question.kind == ANY,
            Record::Alias(_) => true,
            Record::Name(_) => question.kind == PTR || question.kind == ANY,
            Record::Service { .. } => question.kind == SRV || question.kind == ANY,
        };
        if !matches {
            continue;
        }
        count = count.saturating_add(1);
        // The name of the question.
        out.extend_from_slice(&[0xc0, 12]);
        match record {
            Record::Address(address) => data(&mut out, A, &address.octets()),
            Record::Alias(target) => data(&mut out, CNAME, &encode(target)),
            Record::Name(target) => data(&mut out, PTR, &encode(target)),
            Record::Service { port, target, address } => {
                let mut body = vec![0, 0, 0, 100];
                body.extend_from_slice(&port.to_be_bytes());
                body.extend_from_slice(&encode(target));
                data(&mut out, SRV, &body);
                extra.push((target, address));
            }
        }
    }
    for (target, address) in &extra {
        out.extend_from_slice(&encode(target));
        data(&mut out, A, &address.octets());
    }
    if let Some(place) = out.get_mut(6..8) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    if let Some(place) = out.get_mut(10..12) {
        place.copy_from_slice(&u16::try_from(extra.len()).unwrap_or(0).to_be_bytes());
    }
    out
}

fn data(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    // class IN
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&TTL.to_be_bytes());
    out.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(body);
}

fn encode(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes().get(..label.len().min(63)).unwrap_or_default();
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend_from_slice(label);
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests;
