//! Runs the steps of one scenario and holds what is seen against what is expected.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use regex::Regex;

use crate::cluster::{Cluster, Output};
use crate::scenario::{Action, Call, DataPlane, Expect, Scenario, Step};
use crate::{csr, kill};

/// Runs a scenario's steps in order, then its clean-up, and deletes what it applied.
pub(crate) async fn scenario(cluster: &Cluster, scenario: &Scenario, plane: DataPlane) -> anyhow::Result<()> {
    let run = Run {
        cluster,
        scenario,
        plane,
        namespace: &plane.namespace(),
        gateway: cluster.gateway().await?,
        remembered: RefCell::default(),
    };
    let mut outcome = run.steps(&scenario.steps).await;
    let cleaned = async {
        run.steps(&scenario.cleanup).await?;
        run.delete_applied().await
    };
    let cleaned = cleaned.await.context("cleaning up");
    if outcome.is_ok() {
        outcome = cleaned;
    }
    outcome
}

struct Run<'a> {
    cluster: &'a Cluster,
    scenario: &'a Scenario,
    plane: DataPlane,
    namespace: &'a str,
    gateway: String,
    /// What steps printed, by the name that they gave it.
    remembered: RefCell<BTreeMap<String, String>>,
}

impl Run<'_> {
    async fn steps(&self, steps: &[Step]) -> anyhow::Result<()> {
        for (index, step) in steps.iter().enumerate() {
            let name = step.name.as_deref().unwrap_or("");
            self.step(step)
                .await
                .with_context(|| format!("step {} {name}", index + 1))?;
        }
        Ok(())
    }

    /// One step, repeated until it shows what is expected or its time is over.
    async fn step(&self, step: &Step) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(step.within);
        loop {
            let output = self.act(&step.action).await?;
            let seen = check(&step.expect, &output, |text| self.fill(text))
                .and_then(|()| compare(&step.expect, &output, &self.remembered.borrow()));
            let Err(error) = seen else {
                if let Some(name) = &step.remember {
                    self.remembered.borrow_mut().insert(name.clone(), output.text);
                }
                return Ok(());
            };
            if Instant::now() >= end {
                return Err(error.context(format!("{:?}", step.action)));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn act(&self, action: &Action) -> anyhow::Result<Output> {
        match action {
            Action::Apply(file) => match self.cluster.apply(self.namespace, &self.manifest(file)?).await {
                Ok(()) => Ok(Output {
                    success: true,
                    text: String::new(),
                }),
                Err(error) => Ok(Output {
                    success: false,
                    text: format!("{error:#}"),
                }),
            },
            Action::Delete(file) => self.cluster.delete(self.namespace, &self.manifest(file)?).await,
            Action::Kubectl(args) => {
                let args: Vec<_> = args.iter().map(|arg| self.fill(arg)).collect();
                self.cluster
                    .kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>())
                    .await
            }
            Action::Mizzen(args) => {
                let args: Vec<_> = args.iter().map(|arg| self.fill(arg)).collect();
                self.cluster
                    .mizzen(&args.iter().map(String::as_str).collect::<Vec<_>>())
                    .await
            }
            Action::Call(call) => self.call(call).await,
            Action::Csr(asked) => {
                let asks = asked.asks.as_ref().map(|asks| self.fill(asks));
                csr::ask(self.cluster, self.namespace, asked, asks.as_deref()).await
            }
            Action::Ready(namespace) => {
                let namespace = self.fill(namespace);
                self.cluster.wait_ready(&namespace, Duration::from_secs(120)).await?;
                Ok(Output {
                    success: true,
                    text: String::new(),
                })
            }
        }
    }

    async fn call(&self, call: &Call) -> anyhow::Result<Output> {
        match &call.killing {
            None => self.requests(call).await,
            Some(killing) => {
                let pods_of = self.fill(&killing.namespace);
                let kills = kill::run(self.cluster, self.namespace, &pods_of, killing);
                let (output, ()) = tokio::try_join!(self.requests(call), kills)?;
                Ok(output)
            }
        }
    }

    async fn requests(&self, call: &Call) -> anyhow::Result<Output> {
        let args: Vec<_> = call.args.iter().map(|arg| self.fill(arg)).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        if call.from == "gateway" {
            return self.cluster.client(&args).await;
        }
        let from = self.fill(&call.from);
        let (deployment, namespace) = from.split_once('@').unwrap_or((&from, self.namespace));
        self.cluster.client_in(namespace, deployment, &args).await
    }

    async fn delete_applied(&self) -> anyhow::Result<()> {
        let applied = self.scenario.steps.iter().filter_map(|step| match &step.action {
            Action::Apply(file) if !step.expect.fails && !step.keep => Some(file),
            _ => None,
        });
        for file in applied {
            let output = self.cluster.delete(self.namespace, &self.manifest(file)?).await?;
            ensure!(output.success, "deleting what {file} made: {}", output.text);
        }
        Ok(())
    }

    fn manifest(&self, file: &str) -> anyhow::Result<String> {
        let path = self.scenario.folder.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.fill(&text))
    }

    fn fill(&self, text: &str) -> String {
        let (client, server) = self.plane.ends();
        let mut text = text.to_owned();
        for (name, printed) in self.remembered.borrow().iter() {
            text = text.replace(&format!("${{{name}}}"), printed.trim());
        }
        text.replace("$NS", self.namespace)
            .replace("$CLIENT_PLANE", client)
            .replace("$SERVER_PLANE", server)
            .replace("$GATEWAY", &self.gateway)
            .replace("$FOLDER", &self.scenario.folder.to_string_lossy())
    }
}

/// `fill` replaces the variables in patterns.
fn check(expect: &Expect, output: &Output, fill: impl Fn(&str) -> String) -> anyhow::Result<()> {
    let shown = || output.text.chars().take(1500).collect::<String>();
    ensure!(
        output.success != expect.fails,
        "the command {}:\n{}",
        if expect.fails { "succeeded" } else { "failed" },
        shown()
    );
    let lines: Vec<_> = output.text.lines().filter(|line| !line.trim().is_empty()).collect();
    for pattern in &expect.contains {
        ensure!(
            Regex::new(&fill(pattern))?.is_match(&output.text),
            "'{pattern}' is not in:\n{}",
            shown()
        );
    }
    for pattern in &expect.absent {
        ensure!(
            !Regex::new(&fill(pattern))?.is_match(&output.text),
            "'{pattern}' is in:\n{}",
            shown()
        );
    }
    if let Some(pattern) = &expect.all {
        ensure!(
            !lines.is_empty(),
            "nothing was printed, and '{pattern}' was expected on every line"
        );
        let regex = Regex::new(&fill(pattern))?;
        if let Some(line) = lines.iter().find(|line| !regex.is_match(line)) {
            bail!("'{pattern}' does not match '{line}'");
        }
    }
    if let Some(count) = expect.lines {
        ensure!(
            lines.len() == count,
            "{} lines instead of {count}:\n{}",
            lines.len(),
            shown()
        );
    }
    for (pattern, least) in &expect.distinct {
        let regex = Regex::new(&fill(pattern))?;
        let found: BTreeSet<_> = lines
            .iter()
            .filter_map(|line| Some(regex.captures(line)?.get(1)?.as_str()))
            .collect();
        ensure!(
            found.len() >= *least,
            "'{pattern}' finds {} different texts, not {least}: {found:?}",
            found.len()
        );
    }
    for (pattern, [least, most]) in &expect.shares {
        ensure!(!lines.is_empty(), "nothing was printed");
        let regex = Regex::new(&fill(pattern))?;
        let hits = lines.iter().filter(|line| regex.is_match(line)).count();
        let percent = hits as f64 * 100.0 / lines.len() as f64;
        let odd = lines.iter().find(|line| !regex.is_match(line)).unwrap_or(&"");
        ensure!(
            (*least..=*most).contains(&percent),
            "'{pattern}' is on {percent:.1} % of {} lines, not {least} to {most} % (another line: {odd})",
            lines.len()
        );
    }
    Ok(())
}

/// Holds the output against what earlier steps printed.
fn compare(expect: &Expect, output: &Output, remembered: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let earlier = |name: &String| {
        let text = remembered.get(name);
        text.with_context(|| format!("no step before this one remembers '{name}'"))
    };
    if let Some(name) = &expect.same {
        let before = earlier(name)?;
        ensure!(
            output.text == *before,
            "'{name}' was\n{before}\nand is\n{}",
            output.text
        );
    }
    if let Some(name) = &expect.differs {
        ensure!(output.text != *earlier(name)?, "'{name}' is still\n{}", output.text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> Output {
        Output {
            success: true,
            text: text.to_owned(),
        }
    }

    #[test]
    fn shares_are_of_the_lines_printed() {
        let expect = |least, most| Expect {
            shares: [("v2".to_owned(), [least, most])].into(),
            ..Expect::default()
        };
        let output = printed("200 v1\n200 v2\n200 v1\n200 v1\n");
        assert!(check(&expect(20.0, 30.0), &output, str::to_owned).is_ok());
        assert!(check(&expect(30.0, 40.0), &output, str::to_owned).is_err());
        assert!(check(&expect(0.0, 100.0), &printed(""), str::to_owned).is_err());
    }

    #[test]
    fn an_expected_failure_must_fail() {
        let expect = Expect {
            fails: true,
            ..Expect::default()
        };
        assert!(check(&expect, &printed("created"), str::to_owned).is_err());
        assert!(
            check(
                &expect,
                &Output {
                    success: false,
                    text: "refused".to_owned()
                },
                str::to_owned
            )
            .is_ok()
        );
    }

    #[test]
    fn every_line_must_match_all() {
        let expect = Expect {
            all: Some("^200 ".to_owned()),
            ..Expect::default()
        };
        assert!(check(&expect, &printed("200 a\n200 b\n"), str::to_owned).is_ok());
        assert!(check(&expect, &printed("200 a\n503 b\n"), str::to_owned).is_err());
        assert!(check(&expect, &printed("\n"), str::to_owned).is_err());
    }

    #[test]
    fn different_texts_are_counted_once_each() {
        let expect = |least| Expect {
            distinct: [("Hash=([0-9a-f]+)".to_owned(), least)].into(),
            ..Expect::default()
        };
        let output = printed("200 Hash=0a;\n200 Hash=0b;\n200 Hash=0a;\n");
        assert!(check(&expect(2), &output, str::to_owned).is_ok());
        assert!(check(&expect(3), &output, str::to_owned).is_err());
    }

    #[test]
    fn what_was_remembered_is_compared() {
        let remembered = [("leader".to_owned(), "pod-a".to_owned())].into();
        let same = Expect {
            same: Some("leader".to_owned()),
            ..Expect::default()
        };
        let differs = Expect {
            differs: Some("leader".to_owned()),
            ..Expect::default()
        };
        assert!(compare(&same, &printed("pod-a"), &remembered).is_ok());
        assert!(compare(&same, &printed("pod-b"), &remembered).is_err());
        assert!(compare(&differs, &printed("pod-b"), &remembered).is_ok());
        assert!(compare(&differs, &printed("pod-a"), &remembered).is_err());
        assert!(compare(&differs, &printed("pod-a"), &BTreeMap::new()).is_err());
    }
}
