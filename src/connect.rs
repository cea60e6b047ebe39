//! The cluster that is worked on.
//!
//! In: a kubeconfig and one of its contexts; in a pod with neither, the pod's own cluster. Out: a client of a cluster that
//! answers, or a [`Failure`] that says in our words what keeps it from being one. Never: a library's words, a log line.

use crate::failure::Failure;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use mizzen_crds::yaml;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A cluster that needs longer for its first answer is of no use.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// The kubeconfig that names the cluster [default: $KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Options {
    /// The cluster of a kubeconfig.
    pub(crate) fn of_file(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig: Some(kubeconfig),
            context: None,
        }
    }

    /// A client of the cluster, which may not answer just now.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.config().await.and_then(client)
    }

    /// A client of the cluster, which answers.
    pub(crate) async fn reach(&self) -> Result<Client, Failure> {
        let config = self.config().await?;
        let url = config.cluster_url.to_string();
        let url = url.trim_end_matches('/');
        let client = client(config)?;
        let what = format!("the cluster at {url} cannot be reached");
        match tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
            Ok(Ok(_)) => Ok(client),
            // Whoever may not even ask for the version may be allowed what is wanted.
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Ok(client),
            Ok(Err(error)) => Err(refused(&what, &error)),
            Err(_) => {
                let why = format!("it does not answer within {} s", PATIENCE.as_secs());
                Err(Failure::new(what, why, UNREACHABLE))
            }
        }
    }

    async fn config(&self) -> Result<Config, Failure> {
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let kubeconfig = match read {
            Ok(kubeconfig) => kubeconfig,
            Err(error) => {
                let in_a_pod = Config::incluster().ok().filter(|_| self.kubeconfig.is_none());
                return in_a_pod.ok_or_else(|| unusable(&error));
            }
        };
        self.check(&kubeconfig)?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| unusable(&error))
    }

    /// Whether the context exists, with all that it names.
    fn check(&self, kubeconfig: &Kubeconfig) -> Result<(), Failure> {
        let names: Vec<_> = kubeconfig.contexts.iter().map(|named| named.name.as_str()).collect();
        let names = match names.as_slice() {
            [] => "it has none".to_owned(),
            some => format!("it has {}", some.join(", ")),
        };
        let current = kubeconfig.current_context.as_ref();
        let Some(chosen) = self.context.as_ref().or(current).filter(|name| !name.is_empty()) else {
            return Err(broken(
                "the kubeconfig says no current context".to_owned(),
                format!("choose one of its contexts with --context or `kubectl config use-context`; {names}"),
            ));
        };
        let found = kubeconfig.contexts.iter().find(|named| named.name == *chosen);
        let Some(context) = found.and_then(|named| named.context.as_ref()) else {
            return Err(broken(
                format!("the kubeconfig has no context `{chosen}`"),
                format!("choose another with --context or `kubectl config use-context`; {names}"),
            ));
        };
        let remedy = || format!("correct the kubeconfig, or choose another context; {names}");
        if !kubeconfig.clusters.iter().any(|named| named.name == context.cluster) {
            let why = format!(
                "context `{chosen}` names the cluster `{}`, which is not there",
                context.cluster
            );
            return Err(broken(why, remedy()));
        }
        let user = context.user.as_ref().filter(|user| !user.is_empty());
        if let Some(user) = user.filter(|user| !kubeconfig.auth_infos.iter().any(|named| named.name == **user)) {
            let why = format!("context `{chosen}` names the user `{user}`, which is not there");
            return Err(broken(why, remedy()));
        }
        Ok(())
    }
}

const UNREACHABLE: &str =
    "see whether `kubectl version` works, and choose another cluster with --context or KUBECONFIG";

fn client(config: Config) -> Result<Client, Failure> {
    Client::try_from(config).map_err(|error| {
        let remedy = "correct the certificates and credentials of the context in the kubeconfig";
        broken(cause(&error), remedy.to_owned())
    })
}

fn broken(why: String, remedy: String) -> Failure {
    Failure::new("no cluster is configured", why, remedy)
}

/// A kubeconfig that cannot be used, in our words.
fn unusable(error: &KubeconfigError) -> Failure {
    let (why, remedy) = match error {
        KubeconfigError::ReadConfig(error, path) => (
            format!("the kubeconfig {} cannot be read: {}", path.display(), cause(error)),
            "name one that is there with --kubeconfig or KUBECONFIG",
        ),
        KubeconfigError::FindPath => (
            "there is no kubeconfig".to_owned(),
            "name one with --kubeconfig or KUBECONFIG",
        ),
        KubeconfigError::Parse(error) => (
            format!("the kubeconfig is not YAML: {}", yaml::reason(error, 1)),
            "correct it, or name another with --kubeconfig or KUBECONFIG",
        ),
        other => (other.to_string(), "correct the kubeconfig: `kubectl version` must work"),
    };
    broken(why, remedy.to_owned())
}

/// An answer of the API server, or that there was none, as a failure with a remedy.
pub(crate) fn refused(what: &str, error: &kube::Error) -> Failure {
    let (why, remedy) = match error {
        kube::Error::Api(status) if status.code == 401 => (
            "the cluster does not accept the credentials of the kubeconfig".to_owned(),
            "log in again, or choose another context with --context",
        ),
        kube::Error::Api(status) if status.is_forbidden() => (
            status.message.clone(),
            "use a context whose user may do this (installing and uninstalling need cluster-admin or its like)",
        ),
        kube::Error::Api(status) if status.is_invalid() => (status.message.clone(), "correct what the message names"),
        kube::Error::Api(status) => (
            status.message.clone(),
            "do what the message says, then run the command again",
        ),
        kube::Error::Auth(_) => (
            format!("the credentials of the kubeconfig cannot be had: {}", cause(error)),
            "log in again, or choose another context with --context",
        ),
        other => (cause(other), UNREACHABLE),
    };
    Failure::new(what, why, remedy)
}

/// What is at the bottom of an error; the layers above it only say that they failed too.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if let Some(error) = innermost.downcast_ref::<io::Error>()
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        return "nothing listens there".to_owned();
    }
    let text = innermost.to_string();
    if let Some(why) = text.strip_prefix("invalid peer certificate: ") {
        return format!("its TLS certificate is not to be trusted ({why})");
    }
    match text.find(" (os error ") {
        Some(end) => text.chars().take(end).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(options: &Options, yaml: &str) -> String {
        let kubeconfig = Kubeconfig::from_yaml(yaml).unwrap();
        options
            .check(&kubeconfig)
            .err()
            .map_or_else(String::new, |failure| failure.to_string())
    }

    const GOOD: &str = "
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: x}}]
contexts: [{name: c, context: {cluster: a, user: u}}, {name: d, context: {cluster: b, user: u}},
           {name: e, context: {cluster: a, user: v}}, {name: f, context: {cluster: a}}]
current-context: c
";

    #[test]
    fn a_context_that_leads_nowhere_is_told_with_those_that_there_are() {
        let of = |name: &str| Options {
            context: Some(name.to_owned()),
            ..Options::default()
        };
        assert_eq!(said(&Options::default(), GOOD), "");
        assert_eq!(said(&of("f"), GOOD), "");
        for (options, yaml, expected) in [
            (
                of("x"),
                GOOD,
                "the kubeconfig has no context `x`; choose another with --context or `kubectl config use-context`; it has c, d, e, f",
            ),
            (
                of("d"),
                GOOD,
                "context `d` names the cluster `b`, which is not there; correct the kubeconfig, or choose another context; it has c, d, e, f",
            ),
            (
                of("e"),
                GOOD,
                "context `e` names the user `v`, which is not there; correct the kubeconfig, or choose another context; it has c, d, e, f",
            ),
            (
                Options::default(),
                "{}",
                "the kubeconfig says no current context; choose one of its contexts with --context or `kubectl config use-context`; it has none",
            ),
        ] {
            assert_eq!(said(&options, yaml), format!("no cluster is configured: {expected}"));
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_read_is_named() {
        let options = |path: PathBuf| Options {
            kubeconfig: Some(path),
            ..Options::default()
        };
        let missing = options("/nowhere/kubeconfig".into()).config().await.err().unwrap();
        assert_eq!(
            missing.to_string(),
            "no cluster is configured: the kubeconfig /nowhere/kubeconfig cannot be read: No such file or directory; name \
             one that is there with --kubeconfig or KUBECONFIG"
        );
        let broken = std::env::temp_dir().join(format!("mizzen-broken-kubeconfig-{}", std::process::id()));
        std::fs::write(&broken, "contexts: [\n").unwrap();
        let said = options(broken.clone()).config().await.err().unwrap();
        std::fs::remove_file(broken).unwrap();
        assert!(
            said.to_string()
                .starts_with("no cluster is configured: the kubeconfig is not YAML: line 1 column 11: "),
            "{said}"
        );
    }

    #[test]
    fn the_bottom_of_an_error_is_what_is_told() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(cause(&kube::Error::ReadEvents(refused)), "nothing listens there");
        let untrusted = io::Error::other("invalid peer certificate: UnknownIssuer");
        assert_eq!(
            cause(&kube::Error::ReadEvents(untrusted)),
            "its TLS certificate is not to be trusted (UnknownIssuer)"
        );
        let other = io::Error::from_raw_os_error(113);
        assert_eq!(cause(&kube::Error::ReadEvents(other)), "No route to host");
    }
}
