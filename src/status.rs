//! `mizzen status`: how what `mizzen up` runs is.

use crate::connect::Options;
use crate::install::progress::Output;
use crate::output;
use crate::up::DEFAULT_NAME;
use crate::up::state::{self, Found, State};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use mizzen_crds::maistra::{ConditionStatus, ConditionType, ServiceMeshControlPlane};
use mizzen_operator::readiness;
use serde::Serialize;
use std::process::ExitCode;

/// Of what.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  mizzen status                    a line per part
  mizzen status --output json      the same for programs; the exit code says whether all is ready")]
pub(crate) struct Args {
    /// Which machine.
    #[arg(long, default_value = DEFAULT_NAME, value_parser = state::name)]
    name: String,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// A part and how it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    part: String,
    state: String,
    detail: String,
    #[serde(rename = "ready")]
    is_ready: bool,
}

/// Prints it; the exit code says whether all is ready.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let state = State::of(&args.name)?;
    let lines = match (state.find()?, state.record()) {
        (Found::Running(pid), Some(record)) => {
            let kubeconfig = state.path("kubeconfig");
            let how = if record.ready { "running" } else { "starting" };
            let detail = format!(
                "API {} · kubeconfig {} · process {}",
                record.api,
                kubeconfig.display(),
                pid.as_raw_pid()
            );
            let mut lines = vec![line("cluster", how, detail, record.ready)];
            match Options::of_file(kubeconfig).reach().await {
                Ok(client) => lines.extend(parts(client, &record.mesh).await?),
                Err(failure) => lines.push(line("cluster", "failed", failure.to_string(), false)),
            }
            lines.push(line("gateway", &record.gateway, String::new(), true));
            lines
        }
        (Found::Running(pid), None) => {
            vec![line(
                "cluster",
                "starting",
                format!("process {}", pid.as_raw_pid()),
                false,
            )]
        }
        (Found::Nothing, _) => {
            let detail = format!("start it with `mizzen up{}`", state.flag());
            vec![line("cluster", "not running", detail, false)]
        }
    };
    let ready = lines.iter().all(|line| line.is_ready);
    match args.output {
        Output::Json => output::write(&format!(
            "{:#}\n",
            serde_json::json!({ "ready": ready, "parts": lines })
        ))?,
        Output::Text => {
            for Line {
                part, state, detail, ..
            } in &lines
            {
                output::line(format!("{part:<12}{state:<12}  {detail}").trim_end());
            }
        }
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(part: &str, state: &str, detail: impl Into<String>, is_ready: bool) -> Line {
    Line {
        part: part.to_owned(),
        state: state.to_owned(),
        detail: detail.into(),
        is_ready,
    }
}

async fn parts(client: Client, mesh: &str) -> Result<Vec<Line>, kube::Error> {
    let operator = crate::install::manifests::OPERATOR_NAMESPACE;
    let mut lines = vec![namespace(&client, "operator", operator).await?];
    let meshes: Api<ServiceMeshControlPlane> = Api::all(client.clone());
    let meshes = match meshes.list(&ListParams::default()).await {
        Ok(list) => list.items,
        // Before its definition is there, there is none of it.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error),
    };
    for mesh in meshes {
        let status = mesh.status.clone().unwrap_or_default();
        let count = status
            .annotations
            .as_ref()
            .and_then(|all| all.get("readyComponentCount").cloned())
            .unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.kind == ConditionType::Ready);
        let is_ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True);
        let why = ready.filter(|_| !is_ready).and_then(|ready| ready.message.clone());
        let name = format!("{}/{}", mesh.namespace().unwrap_or_default(), mesh.name_any());
        let detail = why.map_or(name.clone(), |why| format!("{name}: {why}"));
        lines.push(line(
            "mesh",
            &format!("{} {count}", if is_ready { "ready" } else { "not ready" }),
            detail,
            is_ready,
        ));
    }
    let members: Api<Namespace> = Api::all(client.clone());
    let members = members
        .list(&ListParams::default().labels(&format!("maistra.io/member-of={mesh}")))
        .await?;
    for member in members {
        lines.push(namespace(&client, "member", &member.name_any()).await?);
    }
    Ok(lines)
}

/// The Deployments of a namespace, and why its pods are not ready.
async fn namespace(client: &Client, part: &str, name: &str) -> Result<Line, kube::Error> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), name);
    let all = api.list(&ListParams::default()).await?.items;
    let works =
        |deployment: &&Deployment| readiness::deployment(&serde_json::to_value(deployment).unwrap_or_default()).is_ok();
    let ready = all.iter().filter(works).count();
    let mut detail = name.to_owned();
    if ready < all.len() {
        let pods: Api<Pod> = Api::namespaced(client.clone(), name);
        let pods = pods.list(&ListParams::default()).await?.items;
        if let Some(why) = pods.iter().find_map(readiness::pod) {
            detail = format!("{name}: {why}");
        }
    }
    let is_ready = ready == all.len();
    let state = format!("{} {ready}/{}", if is_ready { "ready" } else { "not ready" }, all.len());
    Ok(line(part, &state, detail, is_ready))
}
