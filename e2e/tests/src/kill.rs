//! Kills processes of the cluster again and again while something else is looked at.

use anyhow::{Context, ensure};

use crate::cluster::Cluster;
use crate::scenario::Killing;

/// Kills what `killing` names in `namespace` for its time, by the DaemonSet `killer` in `killers`. Fails if that were fewer kills
/// than it asks for.
pub(crate) async fn run(cluster: &Cluster, killers: &str, namespace: &str, killing: &Killing) -> anyhow::Result<()> {
    let victims = pods(cluster, namespace, &killing.pods).await?;
    let (_, node, _) = victims
        .first()
        .with_context(|| format!("no pod of {namespace} has the label {}", killing.pods))?;
    ensure!(
        victims.iter().all(|(_, other, _)| other == node),
        "the pods {} of {namespace} are on several nodes: name one of them",
        killing.pods
    );
    let killer = pods(cluster, killers, "app=killer").await?;
    let killer = killer.iter().find(|(_, other, _)| other == node);
    let (_, _, killer) = killer.with_context(|| format!("no killer runs on {node}: apply killer.yaml in {killers}"))?;
    let seconds = killing.seconds.to_string();
    let mut args = vec!["exec", "-n", killers, killer, "--", "/usr/local/bin/mizzen-app", "kill"];
    args.extend(["--container", &killing.container, "--seconds", &seconds]);
    for (uid, _, _) in &victims {
        args.extend(["--pod", uid]);
    }
    if killing.stop {
        args.push("--stop");
    }
    if let Some(program) = &killing.program {
        args.extend(["--program", program]);
    }
    let printed = cluster.must(&args).await?;
    let kills = printed.lines().count();
    ensure!(
        kills >= killing.least,
        "{} was met {kills} times in {} s, {} are the least:\n{printed}",
        killing.container,
        killing.seconds,
        killing.least
    );
    Ok(())
}

/// Uid, node and name of each.
async fn pods(cluster: &Cluster, namespace: &str, label: &str) -> anyhow::Result<Vec<(String, String, String)>> {
    let columns = "custom-columns=U:.metadata.uid,N:.spec.nodeName,P:.metadata.name";
    let args = [
        "get",
        "pods",
        "-n",
        namespace,
        "-l",
        label,
        "--no-headers",
        "-o",
        columns,
    ];
    let printed = cluster.must(&args).await?;
    Ok(printed
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::to_owned);
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
        .collect())
}
