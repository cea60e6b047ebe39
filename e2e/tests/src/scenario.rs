//! What a scenario folder says: which behaviours it covers, where it runs, and its steps. Unknown fields are refused, so that a
//! misspelt expectation cannot pass unnoticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

/// One folder below `e2e/scenarios`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Scenario {
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(skip)]
    pub(crate) folder: PathBuf,
    /// Ids of the behaviours that this scenario shows.
    pub(crate) covers: Vec<String>,
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) scope: Scope,
    #[serde(default = "DataPlane::all")]
    pub(crate) data_planes: Vec<DataPlane>,
    pub(crate) steps: Vec<Step>,
    /// Steps that run whether the others passed or not; what `apply` made is deleted without being named here.
    #[serde(default)]
    pub(crate) cleanup: Vec<Step>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Scope {
    /// Once per data plane, in that plane's own copy of the tutorial applications.
    #[default]
    DataPlane,
    /// Once, after all others: it changes the mesh itself.
    Cluster,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DataPlane {
    Native,
    Envoy,
    /// Half of the applications on each.
    Mixed,
}

impl DataPlane {
    fn all() -> Vec<Self> {
        vec![Self::Native, Self::Envoy, Self::Mixed]
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Envoy => "envoy",
            Self::Mixed => "mixed",
        }
    }

    /// The namespace that holds the applications for this data plane.
    pub(crate) fn namespace(&self) -> String {
        format!("e2e-{}", self.name())
    }

    /// Which sidecar an application of the tutorial gets here.
    pub(crate) fn sidecar_of(&self, app: &str) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Envoy => "envoy",
            Self::Mixed if app == "preference" || app == "recommendation-v2" => "envoy",
            Self::Mixed => "native",
        }
    }
}

/// `$NS` in any text is the namespace of the data plane, `$GATEWAY` the ingress gateway's address as host:port, `$FOLDER`
/// the scenario's own folder.
#[derive(Deserialize, Debug)]
#[serde(try_from = "RawStep")]
pub(crate) struct Step {
    /// What this step shows; printed when it fails.
    pub(crate) name: Option<String>,
    pub(crate) action: Action,
    /// Repeat until the expectation holds, for this many seconds at most. Without it the first try counts.
    pub(crate) within: u64,
    pub(crate) expect: Expect,
    /// What this step applies stays after the scenario.
    pub(crate) keep: bool,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// `kubectl apply -n $NS -f FILE`
    Apply(String),
    /// `kubectl delete -n $NS -f FILE`, waiting until it is gone
    Delete(String),
    /// `kubectl ARGS…`
    Kubectl(Vec<String>),
    /// `mizzen ARGS…`
    Mizzen(Vec<String>),
    /// Requests of the sample program's client
    Call(Call),
    /// Waits until all pods of this namespace are ready and none is left over from an earlier version
    Ready(String),
}

/// A step as it is written: exactly one of the actions is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    name: Option<String>,
    apply: Option<String>,
    delete: Option<String>,
    kubectl: Option<Vec<String>>,
    mizzen: Option<Vec<String>>,
    call: Option<Call>,
    ready: Option<String>,
    #[serde(default)]
    within: u64,
    #[serde(default)]
    expect: Expect,
    #[serde(default)]
    keep: bool,
}

impl TryFrom<RawStep> for Step {
    type Error = String;

    fn try_from(raw: RawStep) -> Result<Self, String> {
        let mut actions = [
            raw.apply.map(Action::Apply),
            raw.delete.map(Action::Delete),
            raw.kubectl.map(Action::Kubectl),
            raw.mizzen.map(Action::Mizzen),
            raw.call.map(Action::Call),
            raw.ready.map(Action::Ready),
        ]
        .into_iter()
        .flatten();
        match (actions.next(), actions.next()) {
            (Some(action), None) => Ok(Self {
                name: raw.name,
                action,
                within: raw.within,
                expect: raw.expect,
                keep: raw.keep,
            }),
            _ => Err("a step is exactly one of apply, delete, kubectl, mizzen, call, ready".to_owned()),
        }
    }
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Call {
    /// `gateway` (from outside the cluster) or `deploy/NAME` (inside that pod), with `@namespace` for another one.
    pub(crate) from: String,
    /// The client's arguments: `call http://… -n 100`, `tcp host:port`
    pub(crate) args: Vec<String>,
}

/// What the output must be. An empty one only asks the command to succeed.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct Expect {
    /// The command must fail.
    pub(crate) fails: bool,
    /// Regular expressions that must each match somewhere in the output.
    pub(crate) contains: Vec<String>,
    /// Regular expressions that must not match anywhere.
    pub(crate) absent: Vec<String>,
    /// Every line must match.
    pub(crate) all: Option<String>,
    /// Per regular expression the share of lines that match it, in percent: [least, most].
    pub(crate) shares: BTreeMap<String, [f64; 2]>,
    /// Exactly this many lines.
    pub(crate) lines: Option<usize>,
}

impl Scenario {
    pub(crate) fn load_all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let mut scenarios = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let folder = entry?.path();
            let file = folder.join("scenario.yaml");
            if !file.exists() {
                continue;
            }
            let text = std::fs::read_to_string(&file)?;
            let mut scenario: Self =
                serde_saphyr::from_str(&text).with_context(|| format!("{} is not a scenario", file.display()))?;
            scenario.name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            scenario.folder = folder;
            scenarios.push(scenario);
        }
        scenarios.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(scenarios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_of_the_project_parses_and_names_what_it_covers() {
        let scenarios = Scenario::load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")).unwrap();
        assert!(!scenarios.is_empty());
        let id = regex::Regex::new("^[A-Z][0-9]+$").unwrap();
        for scenario in scenarios {
            assert!(!scenario.covers.is_empty(), "{} covers nothing", scenario.name);
            assert!(
                scenario.covers.iter().all(|covered| id.is_match(covered)),
                "{}: {:?}",
                scenario.name,
                scenario.covers
            );
        }
    }

    #[test]
    fn a_misspelt_expectation_is_refused() {
        let text = "{covers: [A1], about: x, steps: [{kubectl: [get, pods], expect: {contain: [x]}}]}";
        assert!(serde_saphyr::from_str::<Scenario>(text).is_err());
    }
}
