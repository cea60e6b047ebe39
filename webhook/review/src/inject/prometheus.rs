//! Scraping led to the agent, which adds the sidecar's metrics to the application's.

use std::collections::BTreeMap;

use serde_json::json;

use super::InjectError;

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const MERGED_PATH: &str = "/stats/prometheus";

/// Ports that belong to the sidecar: an agent that scraped one would scrape itself.
const OWN_PORTS: [u16; 9] = [15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090];

/// Rewrites the annotations, and returns what the application's were (JSON, as the agent reads it) if it had any.
///
/// A pod without annotations is made scrapable too: the sidecar always has metrics. `prometheus.io/scrape: "false"` is left
/// alone, and so is a pod whose annotations lead to the agent already.
pub(super) fn lead_to_agent(
    annotations: &mut BTreeMap<String, String>,
    status_port: u16,
) -> Result<Option<String>, InjectError> {
    if annotations.get(SCRAPE).is_some_and(|value| value == "false") {
        return Ok(None);
    }
    let status_port = status_port.to_string();
    let port = annotations.get(PORT).cloned();
    if port.as_ref() == Some(&status_port) {
        return Ok(None);
    }
    if let Some(port) = &port
        && port.parse().is_ok_and(|port| OWN_PORTS.contains(&port))
    {
        return Err(InjectError::PrometheusPort { port: port.clone() });
    }
    let has_any = [SCRAPE, PORT, PATH].iter().any(|key| annotations.contains_key(*key));
    let original = has_any.then(|| {
        let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
        json!({"scrape": text(SCRAPE), "path": text(PATH), "port": text(PORT)}).to_string()
    });
    annotations.insert(SCRAPE.to_owned(), "true".to_owned());
    annotations.insert(PORT.to_owned(), status_port);
    annotations.insert(PATH.to_owned(), MERGED_PATH.to_owned());
    Ok(original)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    // B4, F1
    #[test]
    fn the_applications_annotations_move_to_the_agent() {
        let mut pod = annotations(&[(SCRAPE, "true"), (PORT, "9102"), (PATH, "/m")]);
        let original = lead_to_agent(&mut pod, 15020).unwrap();
        assert_eq!(
            original.as_deref(),
            Some(r#"{"path":"/m","port":"9102","scrape":"true"}"#)
        );
        assert_eq!(
            pod,
            annotations(&[(SCRAPE, "true"), (PORT, "15020"), (PATH, "/stats/prometheus")])
        );
        // Again: nothing.
        assert_eq!(lead_to_agent(&mut pod, 15020).unwrap(), None);
        let mut none = annotations(&[]);
        assert_eq!(lead_to_agent(&mut none, 15020).unwrap(), None);
        assert_eq!(none, pod);
    }

    // B4
    #[test]
    fn a_pod_that_is_not_to_be_scraped_stays_so_and_own_ports_are_refused() {
        let mut off = annotations(&[(SCRAPE, "false"), (PORT, "9102")]);
        assert_eq!(lead_to_agent(&mut off, 15020).unwrap(), None);
        assert_eq!(off, annotations(&[(SCRAPE, "false"), (PORT, "9102")]));
        let mut own = annotations(&[(PORT, "15090")]);
        assert!(matches!(
            lead_to_agent(&mut own, 15020),
            Err(InjectError::PrometheusPort { .. })
        ));
    }
}
