//! `mizzen install`: applies what `kubectl apply -k config/default` applies, a ServiceMeshControlPlane and, if asked for, a
//! sample, each by server-side apply; and waits until it all works.

pub(crate) mod cluster;
mod gateway;
pub(crate) mod manifests;
mod mesh;
pub(crate) mod progress;
pub(crate) mod sample;
pub(crate) mod wait;

use crate::connect::{self, refused};
use crate::failure::Failure;
use cluster::Cluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use manifests::{Images, OPERATOR_NAMESPACE};
use progress::{Output, Progress};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// What to install.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  mizzen install                                        the profile `default`: two of everything
  mizzen install --profile demo --sample tutorial       one of everything, and something to try it with
  mizzen install --registry registry.example/mesh --tag 1.0.0
  mizzen install --dry-run | kubectl diff -f -          what would change")]
pub(crate) struct Args {
    /// A profile of the mesh: default, small, demo or minimal. Several: a later one wins over an earlier one.
    #[arg(long, default_value = "default", value_delimiter = ',')]
    profile: Vec<String>,
    /// Something to try the mesh with.
    #[arg(long, value_parser = ["tutorial"])]
    sample: Option<String>,
    /// Where images come from. A source build writes localhost/mizzen.
    #[arg(long, env = "MIZZEN_IMAGE_REGISTRY", default_value = "localhost/mizzen")]
    registry: String,
    /// Their tag.
    #[arg(long, env = "MIZZEN_IMAGE_TAG", default_value = "dev")]
    tag: String,
    /// The mesh's namespace.
    #[arg(short, long, default_value = "istio-system")]
    namespace: String,
    /// The mesh's name, which is its revision too.
    #[arg(long, default_value = "basic")]
    name: String,
    /// Print the objects, as YAML or, with --output json, as a List, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long each step may take: 90s, 5m.
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// How results are printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    cluster: connect::Options,
}

/// Installs; the exit code says whether everything works.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let images = Images {
        registry: args.registry.trim_end_matches('/').to_owned(),
        tag: args.tag.clone(),
    };
    if args.dry_run {
        if let Err(failure) = check(&args, &images) {
            // Standard output is for objects alone.
            anyhow::bail!("{}:\n{}\n{}", failure.what, failure.why.join("\n"), failure.remedy);
        }
        print_objects(&args, &images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut progress = Progress::new(args.output);
    let outcome = Installation::steps(&args, &images, &mut progress).await;
    Ok(progress.end(outcome))
}

impl Args {
    /// What `mizzen up` installs.
    pub(crate) fn for_machine(profile: Vec<String>, sample: Option<String>, registry: &str, tag: &str) -> Self {
        Self {
            profile,
            sample,
            registry: registry.to_owned(),
            tag: tag.to_owned(),
            namespace: "istio-system".to_owned(),
            name: "basic".to_owned(),
            dry_run: false,
            timeout: Duration::from_secs(120),
            output: Output::Text,
            cluster: connect::Options::default(),
        }
    }
}

/// Installs into a cluster that answers, whose gateway is reached at a known address.
pub(crate) async fn into(
    client: kube::Client,
    args: &Args,
    gateway: Option<&str>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let images = Images {
        registry: args.registry.clone(),
        tag: args.tag.clone(),
    };
    check(args, &images)?;
    let installation = Installation {
        args,
        images: &images,
        cluster: Cluster::of(client),
        progress,
    };
    installation.all(gateway).await
}

fn print_objects(args: &Args, images: &Images) -> anyhow::Result<()> {
    let mut objects = manifests::crds()?;
    objects.extend(manifests::operator(images)?);
    objects.extend(manifests::mesh(&args.namespace, &args.name, &args.profile));
    if let Some(name) = &args.sample {
        let sample = manifests::sample(name, &args.namespace, images)?;
        objects.extend(sample.place);
        objects.extend(sample.objects);
    }
    if args.output == Output::Json {
        crate::output::write_list(objects.iter())?;
        return Ok(());
    }
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&object)?);
    }
    crate::output::write(&text)?;
    Ok(())
}

/// Checks what would be installed by the rules of the operator, before anything is printed or applied.
fn check(args: &Args, images: &Images) -> Result<(), Failure> {
    let settings = mizzen_desired::Settings {
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
        operator_version: env!("CARGO_PKG_VERSION").to_owned(),
        image_registry: images.registry.clone(),
        image_tag: images.tag.clone(),
    };
    let mut why: Vec<String> = Vec::new();
    if let Err(errors) = settings.check() {
        why.extend(errors.errors().iter().map(ToString::to_string));
    }
    for object in manifests::mesh(&args.namespace, &args.name, &args.profile) {
        if manifests::text(&object, "/kind") == "ServiceMeshControlPlane"
            && let Err(errors) = mizzen_desired::ValidatedMesh::check_raw(&object, &settings)
        {
            why.extend(errors.errors().iter().map(ToString::to_string));
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    let remedy = "correct --profile, --namespace, --name, --registry or --tag, whichever is named; nothing was changed";
    Err(Failure {
        what: "what would be installed is not valid".to_owned(),
        why,
        remedy: remedy.to_owned(),
        ..Failure::default()
    })
}

struct Installation<'a> {
    args: &'a Args,
    images: &'a Images,
    cluster: Cluster,
    progress: &'a mut Progress,
}

impl<'a> Installation<'a> {
    async fn steps(args: &'a Args, images: &'a Images, progress: &'a mut Progress) -> Result<(), Failure> {
        progress.start("arguments");
        check(args, images)?;
        progress.start("cluster");
        let cluster = Cluster::connect(&args.cluster).await?;
        let installation = Self {
            args,
            images,
            cluster,
            progress,
        };
        installation.all(None).await
    }

    /// All steps, in a cluster that answers. Whoever knows where the gateway is reached says so.
    async fn all(mut self, gateway: Option<&str>) -> Result<(), Failure> {
        self.crds().await?;
        self.operator().await?;
        self.mesh().await?;
        if let Some(name) = &self.args.sample {
            sample::install(&mut self, name).await?;
        }
        self.gateway(gateway).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.args.timeout
    }

    async fn crds(&mut self) -> Result<(), Failure> {
        self.progress.start("crds");
        let deadline = self.deadline();
        let crds: Api<CustomResourceDefinition> = Api::all(self.cluster.client.clone());
        for object in built_in(manifests::crds())? {
            let applied = self.cluster.apply(&object, deadline).await?;
            let name = applied.name_any();
            self.progress.spin(&name);
            loop {
                let found = crds
                    .get(&name)
                    .await
                    .map_err(|error| refused("a CRD cannot be read", &error))?;
                let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
                if conditions
                    .iter()
                    .any(|c| c.type_ == "Established" && c.status == "True")
                {
                    break;
                }
                if Instant::now() > deadline {
                    let why = conditions.iter().find_map(|c| c.message.clone()).unwrap_or_default();
                    return Err(Failure::new(
                        format!("CRD {name} is not served"),
                        why,
                        "see kubectl describe crd",
                    ));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.progress.done("applied", "");
        Ok(())
    }

    async fn operator(&mut self) -> Result<(), Failure> {
        self.progress.start("operator");
        let deadline = self.deadline();
        for object in built_in(manifests::operator(self.images))? {
            self.cluster.apply(&object, deadline).await?;
        }
        let client = self.cluster.client.clone();
        wait::deployment(&client, OPERATOR_NAMESPACE, "mizzen-operator", deadline, self.progress).await?;
        self.progress.done("ready", OPERATOR_NAMESPACE);
        Ok(())
    }
}

/// What is built in is tested; if it were wrong after all, this would say so.
fn built_in<T>(read: anyhow::Result<T>) -> Result<T, Failure> {
    read.map_err(|error| {
        Failure::new(
            "a built-in manifest is wrong",
            format!("{error:#}"),
            "report it as a bug",
        )
    })
}

/// `90s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write 90s, 5m or 1h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// What is said against a command line.
    fn objections(line: &[&str]) -> Vec<String> {
        let Line { args } = clap::Parser::try_parse_from([&["install"], line].concat()).unwrap();
        let images = Images {
            registry: args.registry.clone(),
            tag: args.tag.clone(),
        };
        check(&args, &images).err().map_or_else(Vec::new, |failure| failure.why)
    }

    #[test]
    fn bad_arguments_are_told_before_anything_is_printed_or_applied() {
        for good in [&[][..], &["--profile", "demo,small"], &["--name", "x", "-n", "mesh"]] {
            assert_eq!(objections(good), Vec::<String>::new(), "{good:?}");
        }
        for (bad, named) in [
            (["--profile", "huge"], "`huge`"),
            (["--name", "Not_A_Name"], "metadata.name"),
            (["--namespace", "a b"], "metadata.namespace"),
            (["--namespace", OPERATOR_NAMESPACE], "metadata.namespace"),
            (["--registry", "https://x"], "--registry"),
            (["--registry", ""], "--registry"),
            (["--tag", ""], "--tag"),
            (["--tag", "a b"], "--tag"),
        ] {
            let why = objections(&bad).join("\n");
            assert!(why.contains(named), "{bad:?}: {why}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "m", "-1s", "1d", "1.5m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
