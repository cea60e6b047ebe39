//! Cluster IPs and node ports of Services.

use crate::api::Api;
use crate::json;
use crate::kinds::Resource;
use crate::schema::FieldError;
use ipnet::Ipv4Net;
use rand::Rng as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use tokio::sync::OwnedMutexGuard;

/// Held until what was chosen is stored.
pub(crate) type Allocation = Option<OwnedMutexGuard<()>>;

/// What other Services have.
#[derive(Debug, Default)]
struct Used {
    addresses: BTreeSet<String>,
    ports: BTreeSet<(u64, String)>,
}

/// Chooses what a Service asks for and does not name, and refuses what others have. Other kinds pass.
pub(crate) async fn allocate(
    api: &Api,
    resource: &Resource,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Allocation, Vec<FieldError>> {
    if !resource.is("", "services") || new.get("spec") == old.and_then(|old| old.get("spec")) {
        return Ok(None);
    }
    let held = api.inner.allocation.clone().lock_owned().await;
    let mut used = Used::default();
    let own = (
        json::text(new, "/metadata/namespace"),
        json::text(new, "/metadata/name"),
    );
    let (_, all) = api.inner.store.list("services", "", None);
    for stored in all.iter().filter(|stored| (&*stored.key.0, &*stored.key.1) != own) {
        let other = stored.value();
        used.addresses.insert(json::text(&other, "/spec/clusterIP").to_owned());
        for port in json::list(&other, "/spec/ports") {
            if let Some(number) = port.get("nodePort").and_then(Value::as_u64) {
                used.ports.insert((number, json::text(port, "/protocol").to_owned()));
            }
        }
        if let Some(number) = other.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64) {
            used.ports.insert((number, "TCP".to_owned()));
        }
    }
    settle(new, old);
    address(new, &api.inner.options.service_range, &used)?;
    ports(new, old, &api.inner.options.node_ports, &mut used)?;
    Ok(Some(held))
}

/// Keeps on an update what the type still has, and drops what it has no more.
fn settle(new: &mut Value, old: Option<&Value>) {
    let kind = json::text(new, "/spec/type").to_owned();
    let old_kind = old.map(|old| json::text(old, "/spec/type").to_owned());
    let spec = json::object(new, "spec");
    if kind == "ExternalName" && old_kind.as_deref().is_some_and(|old| old != "ExternalName") {
        // What it had as another type goes.
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            spec.remove(field);
        }
    } else if let Some(old) = old.filter(|_| kind != "ExternalName") {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.pointer(&format!("/spec/{field}")) {
                json::default(spec, field, value.clone());
            }
        }
    }
    let has_ports = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if !has_ports {
        spec.remove("externalTrafficPolicy");
        spec.remove("allocateLoadBalancerNodePorts");
        spec.remove("healthCheckNodePort");
    }
    let Some(old) = old else { return };
    let same_type = old_kind.as_deref() == Some(kind.as_str());
    let old_ports = json::list(old, "/spec/ports").to_vec();
    for port in json::items(new, "/spec/ports") {
        let before = old_ports
            .iter()
            .find(|before| before.get("port") == port.get("port") && before.get("protocol") == port.get("protocol"));
        let before = before.and_then(|before| before.get("nodePort")).cloned();
        let Some(map) = port.as_object_mut() else { continue };
        match before {
            Some(number) if has_ports => json::default(map, "nodePort", number),
            // A port that came with the former type goes with it.
            Some(number) if !same_type && map.get("nodePort") == Some(&number) => {
                map.remove("nodePort");
            }
            _ => {}
        }
    }
}

fn address(new: &mut Value, range: &Ipv4Net, used: &Used) -> Result<(), Vec<FieldError>> {
    if json::text(new, "/spec/type") == "ExternalName" {
        return Ok(());
    }
    let first = json::list(new, "/spec/clusterIPs")
        .first()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let given = match json::text(new, "/spec/clusterIP") {
        "" => first,
        address => address.to_owned(),
    };
    let refuse = |why: &str| {
        let detail = format!("[]string{{{given:?}}}: failed to allocate IP {given}: {why}");
        let value = None;
        Err(vec![FieldError {
            value,
            ..FieldError::invalid("spec.clusterIPs", Value::Null, detail)
        }])
    };
    let chosen = match given.parse::<Ipv4Addr>() {
        _ if given == "None" => given,
        Ok(address) => {
            if !range.contains(&address) || address == range.network() || address == range.broadcast() {
                return refuse("the provided network does not match the current range");
            }
            if used.addresses.contains(&given) {
                return refuse("provided IP is already allocated");
            }
            given
        }
        Err(_) if given.is_empty() => match free_address(range, used) {
            Some(address) => address,
            None => return refuse("range is full"),
        },
        // Validation tells what is wrong with it.
        Err(_) => return Ok(()),
    };
    let spec = json::object(new, "spec");
    spec.insert("clusterIPs".to_owned(), json!([chosen]));
    spec.insert("clusterIP".to_owned(), chosen.into());
    json::default(spec, "ipFamilies", json!(["IPv4"]));
    json::default(spec, "ipFamilyPolicy", "SingleStack");
    Ok(())
}

/// A free address, from a random place on; the first of the range is the API's own.
fn free_address(range: &Ipv4Net, used: &Used) -> Option<String> {
    let (first, last) = (
        u32::from(range.network()) + 2,
        u32::from(range.broadcast()).checked_sub(1)?,
    );
    let size = last.checked_sub(first)? + 1;
    let start = rand::rng().random_range(0..size);
    (0..size)
        .map(|step| Ipv4Addr::from(first + (start + step) % size).to_string())
        .find(|address| !used.addresses.contains(address))
}

fn ports(
    new: &mut Value,
    old: Option<&Value>,
    range: &RangeInclusive<u16>,
    used: &mut Used,
) -> Result<(), Vec<FieldError>> {
    let kind = json::text(new, "/spec/type").to_owned();
    let wanted = new
        .pointer("/spec/allocateLoadBalancerNodePorts")
        .and_then(Value::as_bool)
        != Some(false);
    if !(kind == "NodePort" || (kind == "LoadBalancer" && wanted)) {
        return Ok(());
    }
    let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
    let mut errors = Vec::new();
    // The ports that are named go first, so that none is chosen for another.
    for (position, port) in json::list(new, "/spec/ports").iter().enumerate() {
        let Some(number) = port
            .get("nodePort")
            .and_then(Value::as_u64)
            .filter(|number| *number != 0)
        else {
            continue;
        };
        let field = format!("spec.ports[{position}].nodePort");
        let protocol = json::text(port, "/protocol").to_owned();
        if !(low..=high).contains(&number) {
            let detail = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
            errors.push(FieldError::invalid(field, number, detail));
        } else if !used.ports.insert((number, protocol)) {
            errors.push(FieldError::invalid(field, number, "provided port is already allocated"));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut free = |protocol: &str| {
        let start = rand::rng().random_range(low..=high);
        let found = (start..=high)
            .chain(low..start)
            .find(|n| !used.ports.contains(&(*n, protocol.to_owned())));
        found.inspect(|number| {
            used.ports.insert((*number, protocol.to_owned()));
        })
    };
    for port in json::items(new, "/spec/ports") {
        if port
            .get("nodePort")
            .and_then(Value::as_u64)
            .is_some_and(|number| number != 0)
        {
            continue;
        }
        let protocol = json::text(port, "/protocol").to_owned();
        match free(&protocol) {
            Some(number) => json::set(port, "/nodePort", number),
            None => return Err(vec![FieldError::forbidden("spec.ports", "no node port is free")]),
        }
    }
    if kind == "LoadBalancer" && json::text(new, "/spec/externalTrafficPolicy") == "Local" {
        let kept = old.and_then(|old| old.pointer("/spec/healthCheckNodePort")).cloned();
        let number = kept.or_else(|| free("TCP").map(Value::from));
        if let Some(number) = number {
            json::default(json::object(new, "spec"), "healthCheckNodePort", number);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Ipv4Net {
        "10.96.0.0/29".parse().unwrap()
    }

    #[test]
    fn addresses_run_out_and_are_refused_when_taken() {
        let mut used = Used::default();
        for _ in 0..5 {
            let mut service = json!({"spec": {"type": "ClusterIP"}});
            address(&mut service, &range(), &used).unwrap();
            assert!(
                used.addresses
                    .insert(json::text(&service, "/spec/clusterIP").to_owned())
            );
        }
        let mut service = json!({"spec": {"type": "ClusterIP"}});
        assert!(address(&mut service, &range(), &used).is_err());
        let mut taken = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.2"}});
        let errors = address(&mut taken, &range(), &used).unwrap_err();
        assert_eq!(
            errors[0].detail,
            "[]string{\"10.96.0.2\"}: failed to allocate IP 10.96.0.2: provided IP is already allocated"
        );
        let mut outside = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.97.0.2"}});
        let errors = address(&mut outside, &range(), &used).unwrap_err();
        assert!(errors[0].detail.ends_with("does not match the current range"));
    }

    #[test]
    fn a_node_port_stays_with_its_port_and_goes_with_the_type() {
        let old = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 81, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]}});
        settle(&mut new, Some(&old));
        ports(&mut new, Some(&old), &(30000..=30001), &mut Used::default()).unwrap();
        assert_eq!(new["spec"]["ports"][1]["nodePort"], 30001);
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30000);
        let mut plain = old.clone();
        json::set(&mut plain, "/spec/type", "ClusterIP");
        settle(&mut plain, Some(&old));
        assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
    }
}
