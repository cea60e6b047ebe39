//! A container's environment and the fields of its pod that it may see. Pure; what is referred to comes as [`Sources`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, Client, ResourceExt as _};

/// The config maps and secrets that a pod names, as far as they exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
}

/// What else a pod's fields are made of.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) host: Ipv4Addr,
    pub(crate) address: Option<Ipv4Addr>,
    /// Stand for absent limits: cores and bytes.
    pub(crate) cores: u64,
    pub(crate) memory: u64,
}

impl Sources {
    /// Asks for all that the pod names.
    pub(crate) async fn fetch(client: &Client, pod: &Pod) -> kube::Result<Self> {
        let (config_maps, secrets) = named(pod);
        let namespace = pod.namespace().unwrap_or_default();
        let mut found = Self::default();
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        for name in config_maps {
            if let Some(object) = api.get_opt(&name).await? {
                found.config_maps.insert(name, object);
            }
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        for name in secrets {
            if let Some(object) = api.get_opt(&name).await? {
                found.secrets.insert(name, object);
            }
        }
        Ok(found)
    }

    /// All keys of a config map; absent is no error where it is optional.
    pub(crate) fn config_map(&self, name: &str, optional: bool) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let Some(object) = self.config_maps.get(name) else {
            return if optional {
                Ok(BTreeMap::new())
            } else {
                Err(format!("configmap {name:?} not found"))
            };
        };
        let text = object
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = object
            .binary_data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone()));
        Ok(text.chain(binary).collect())
    }

    /// All keys of a secret.
    pub(crate) fn secret(&self, name: &str, optional: bool) -> Result<BTreeMap<String, Vec<u8>>, String> {
        match self.secrets.get(name) {
            Some(object) => Ok(object
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.0.clone()))
                .collect()),
            None if optional => Ok(BTreeMap::new()),
            None => Err(format!("secret {name:?} not found")),
        }
    }
}

/// The names of config maps and of secrets in a pod.
fn named(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let Some(spec) = &pod.spec else {
        return (config_maps, secrets);
    };
    for volume in spec.volumes.iter().flatten() {
        config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for from in container.env_from.iter().flatten() {
            config_maps.extend(from.config_map_ref.iter().map(|source| source.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|source| source.name.clone()));
        }
        for from in container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            config_maps.extend(from.config_map_key_ref.iter().map(|source| source.name.clone()));
            secrets.extend(from.secret_key_ref.iter().map(|source| source.name.clone()));
        }
    }
    (config_maps, secrets)
}

/// The environment: the image's, then services, then what the container says.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    image: &BTreeMap<String, String>,
    sources: &Sources,
    services: &[Arc<Service>],
    place: &Place,
) -> Result<BTreeMap<String, String>, String> {
    let service_variables = service_variables(pod, services);
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let values = match (&from.config_map_ref, &from.secret_ref) {
            (Some(source), _) => sources.config_map(&source.name, source.optional.unwrap_or(false))?,
            (_, Some(source)) => sources.secret(&source.name, source.optional.unwrap_or(false))?,
            _ => BTreeMap::new(),
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        own.extend(
            values
                .into_iter()
                .map(|(key, value)| (format!("{prefix}{key}"), text(&value))),
        );
    }
    for variable in container.env.iter().flatten() {
        let value = if variable.value_from.is_some() {
            referred(pod, container, variable, sources, place)?
        } else {
            let known = |name: &str| own.get(name).or_else(|| service_variables.get(name)).cloned();
            Some(expand(variable.value.as_deref().unwrap_or_default(), known))
        };
        if let Some(value) = value {
            own.insert(variable.name.clone(), value);
        }
    }
    let mut all = image.clone();
    all.extend(service_variables);
    all.extend(own);
    Ok(all)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn referred(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, String> {
    let from = variable.value_from.clone().unwrap_or_default();
    let namespace = pod.namespace().unwrap_or_default();
    let (kind, name, key, optional, values) = if let Some(source) = from.config_map_key_ref {
        let optional = source.optional.unwrap_or(false);
        let values = sources.config_map(&source.name, optional)?;
        ("ConfigMap", source.name, source.key, optional, values)
    } else if let Some(source) = from.secret_key_ref {
        let optional = source.optional.unwrap_or(false);
        let values = sources.secret(&source.name, optional)?;
        ("Secret", source.name, source.key, optional, values)
    } else if let Some(field) = from.field_ref {
        return pod_field(pod, &field, place).map(Some);
    } else if let Some(resource) = from.resource_field_ref {
        return resource_field(pod, Some(container), &resource, place).map(Some);
    } else {
        return Ok(None);
    };
    match values.get(&key) {
        Some(value) => Ok(Some(text(value))),
        None if optional => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
    }
}

/// A field of the downward API.
pub(crate) fn pod_field(pod: &Pod, field: &ObjectFieldSelector, place: &Place) -> Result<String, String> {
    let path = field.field_path.as_str();
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return Ok(pod.labels().get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Ok(pod.annotations().get(key).cloned().unwrap_or_default());
    }
    let lines = |map: &BTreeMap<String, String>| {
        map.iter()
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let address = || place.address.map(|address| address.to_string()).unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => place.node.clone(),
        "spec.serviceAccountName" => pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => place.host.to_string(),
        "status.podIP" | "status.podIPs" => address(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// A container's requests and limits; what is not limited is limited by the node.
pub(crate) fn resource_field(
    pod: &Pod,
    container: Option<&Container>,
    field: &ResourceFieldSelector,
    place: &Place,
) -> Result<String, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let named = field.container_name.as_deref();
    let container = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|found| Some(found.name.as_str()) == named)
        .or(container)
        .ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
    let resources = container.resources.clone().unwrap_or_default();
    let (kind, name) = field
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", field.resource))?;
    let limits = resources.limits.unwrap_or_default();
    let value = match kind {
        "limits" => limits.get(name).map(quantity),
        _ => resources
            .requests
            .unwrap_or_default()
            .get(name)
            .or(limits.get(name))
            .map(quantity),
    };
    let value = match (value, kind, name) {
        (Some(value), _, _) => value,
        (None, "limits", "cpu") => place.cores as f64,
        (None, "limits", "memory") => place.memory as f64,
        _ => 0.0,
    };
    let divisor = field
        .divisor
        .as_ref()
        .map(quantity)
        .filter(|divisor| *divisor > 0.0)
        .unwrap_or(1.0);
    // Half a millionth of slack: a thousandth has no exact binary form.
    Ok(format!("{:.0}", (value / divisor - 5e-7).ceil().max(0.0)))
}

/// A quantity as a number; what is none is 0, as the API server let it pass.
pub(crate) fn quantity(quantity: &Quantity) -> f64 {
    let text = quantity.0.as_str();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().unwrap_or(0.0);
    let factor = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        _ => return text.parse().unwrap_or(0.0),
    };
    number * factor
}

/// `$(NAME)` becomes the variable's value where there is one; `$$` is a dollar sign.
pub(crate) fn expand(text: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if let Some(escaped) = after.strip_prefix("$$") {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix("$(").and_then(|inner| inner.split_once(')')) {
            match known(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after.strip_prefix('$').unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// Docker's link variables of the services in the pod's namespace, and of the API server's always.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let namespace = pod.namespace();
    let mut all = BTreeMap::new();
    for service in services {
        let api_server = service.namespace().as_deref() == Some("default") && service.name_any() == "kubernetes";
        let local = links && service.namespace() == namespace;
        let spec = service.spec.clone().unwrap_or_default();
        let Some(address) = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None") else {
            continue;
        };
        if !(api_server || local) {
            continue;
        }
        let name = service.name_any().to_uppercase().replace('-', "_");
        all.insert(format!("{name}_SERVICE_HOST"), address.clone());
        for (index, port) in spec.ports.unwrap_or_default().into_iter().enumerate() {
            let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
            let (number, transport) = (port.port, protocol.to_lowercase());
            let url = format!("{transport}://{address}:{number}");
            if index == 0 {
                all.insert(format!("{name}_SERVICE_PORT"), number.to_string());
                all.insert(format!("{name}_PORT"), url.clone());
            }
            if let Some(port_name) = port.name.filter(|port_name| !port_name.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                all.insert(format!("{name}_SERVICE_PORT_{port_name}"), number.to_string());
            }
            let prefix = format!("{name}_PORT_{number}_{protocol}");
            all.insert(format!("{prefix}_PROTO"), transport);
            all.insert(format!("{prefix}_PORT"), number.to_string());
            all.insert(format!("{prefix}_ADDR"), address.clone());
            all.insert(prefix, url);
        }
    }
    all
}

#[cfg(test)]
#[path = "env/tests.rs"]
mod tests;
