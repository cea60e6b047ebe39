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
    /// Once, after all others, in one of its data planes: it changes the mesh itself.
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

    /// The sidecars of the two ends of a call, where a scenario brings applications of its own.
    pub(crate) fn ends(&self) -> (&'static str, &'static str) {
        match self {
            Self::Native => ("native", "native"),
            Self::Envoy => ("envoy", "envoy"),
            Self::Mixed => ("native", "envoy"),
        }
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

/// `$NS` in any text is the namespace of the data plane, `$CLIENT_PLANE` and `$SERVER_PLANE` what the sidecars there are at the
/// two ends of a call (`native` or `envoy`), `$GATEWAY` the ingress gateway's address as host:port, `$FOLDER` the scenario's own
/// folder, and `${NAME}` what the step printed that was remembered under this name.
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
    /// The name under which later steps know what this one printed.
    pub(crate) remember: Option<String>,
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
    /// A certificate signing request to the control plane
    Csr(Csr),
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
    csr: Option<Csr>,
    ready: Option<String>,
    #[serde(default)]
    within: u64,
    #[serde(default)]
    expect: Expect,
    #[serde(default)]
    keep: bool,
    remember: Option<String>,
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
            raw.csr.map(Action::Csr),
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
                remember: raw.remember,
            }),
            _ => Err("a step is exactly one of apply, delete, kubectl, mizzen, call, csr, ready".to_owned()),
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
    /// What is killed meanwhile.
    pub(crate) killing: Option<Killing>,
}

/// Processes that get SIGKILL, and again as soon as they are back, while a call runs. Needs the DaemonSet `killer` of
/// `e2e/scenarios/faults` in the scenario's namespace.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Killing {
    /// The label of the pods.
    pub(crate) pods: String,
    /// Their namespace.
    #[serde(default = "own_namespace")]
    pub(crate) namespace: String,
    /// The container whose first process it is.
    pub(crate) container: String,
    /// Not the container's first process, but those of this name.
    pub(crate) program: Option<String>,
    /// How long it goes on.
    pub(crate) seconds: u32,
    /// They are stopped for that time instead, and go on afterwards.
    #[serde(default)]
    pub(crate) stop: bool,
    /// So many kills at least, else the step shows nothing.
    pub(crate) least: usize,
}

fn own_namespace() -> String {
    "$NS".to_owned()
}

/// Asks the running control plane for a certificate, and prints the names in it.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Csr {
    /// The service account in `$NS` whose token is shown; without one no token is.
    pub(crate) account: Option<String>,
    /// For whom the token is made.
    #[serde(default = "mesh_audience")]
    pub(crate) audience: String,
    /// Whether the token has been revoked: it is bound to a Secret, which is deleted before the token is used.
    #[serde(default)]
    pub(crate) revoked: bool,
    /// The identity that the request asks for; without one it asks for none.
    pub(crate) asks: Option<String>,
}

fn mesh_audience() -> String {
    "istio-ca".to_owned()
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
    /// Per regular expression how many different texts its first group has at least.
    pub(crate) distinct: BTreeMap<String, usize>,
    /// What is printed is what the step printed that was remembered under this name.
    pub(crate) same: Option<String>,
    /// What is printed is not that.
    pub(crate) differs: Option<String>,
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
