//! What images are on this machine: this program in its roles, and what the user names.

use super::Args;
use crate::failure::Failure;
use mizzen_node::{Image, Images};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where the manifests say that images come from; nothing is fetched.
pub(super) const REGISTRY: &str = "localhost/mizzen";
pub(super) const TAG: &str = "dev";

/// The table, as it is told to the inner process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    own: PathBuf,
    envoy: Option<PathBuf>,
    users: Vec<(String, PathBuf)>,
}

/// Which user ids there are in the namespaces of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// All that containers have.
    Many,
    /// One: an ordinary user to whom the system lends no others.
    One,
}

impl Users {
    /// Those of this process's user namespace.
    pub(super) fn here() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
        if map.lines().filter_map(count).sum::<u64>() > 1 {
            Self::Many
        } else {
            Self::One
        }
    }
}

/// The highest that takes no capability.
const SIDECAR_PRIORITY: &str = "6";

/// `NAME=PROGRAM`.
pub(super) fn row(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, program)) if !name.is_empty() && !program.is_empty() => Ok((name.to_owned(), program.into())),
        _ => Err("write NAME=PROGRAM, as in shop=./target/debug/shop".to_owned()),
    }
}

/// This program.
pub(super) fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .map_err(|error| {
            let remedy = "start it again: it may have been replaced while it ran";
            Failure::new("this program's own file is not found", error.to_string(), remedy)
        })
}

/// All that images will be, checked.
pub(super) fn table(args: &Args) -> Result<Table, Failure> {
    let envoy = match &args.envoy {
        Some(path) => Some(program("--envoy", path)?),
        None => in_path("envoy"),
    };
    let mut users = Vec::new();
    for (name, path) in &args.images {
        users.push((name.clone(), program(&format!("--image {name}"), path)?));
    }
    Ok(Table {
        own: own_program()?,
        envoy,
        users,
    })
}

impl Table {
    /// Why pods cannot have Envoy as their data plane, and what to do, if so.
    pub(super) fn without_envoy(&self, users: Users) -> Option<&'static str> {
        match (&self.envoy, users) {
            (None, _) => Some("There is no Envoy: pods that ask for that data plane need one in PATH or --envoy PATH."),
            (Some(_), Users::One) => Some(
                "Envoy sidecars need user ids that the system lends you: usermod --add-subuids 100000-165535 --add-subgids \
                 100000-165535 YOU, and the package uidmap.",
            ),
            (Some(_), Users::Many) => None,
        }
    }

    /// The rows for the node.
    pub(super) fn images(&self, users: Users) -> Images {
        let images = Images::default();
        // By the names that the programs have in images the roles are called too: `kubectl exec … mizzen-app call`.
        let own = |args: &[&str], called: &str| Image {
            program: self.own.clone(),
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            files: BTreeMap::from([(Path::new("/usr/local/bin").join(called), self.own.clone())]),
            ..Image::default()
        };
        // A sidecar that is the same user as its application is told from it by its sockets.
        let env = match users {
            Users::Many => BTreeMap::new(),
            Users::One => BTreeMap::from([("MIZZEN_SOCKET_PRIORITY".to_owned(), SIDECAR_PRIORITY.to_owned())]),
        };
        let sidecar = || Image {
            env: env.clone(),
            ..own(&["sidecar"], "mizzen-proxy")
        };
        images.insert(format!("{REGISTRY}/mizzen"), own(&[], "mizzen"));
        images.insert(format!("{REGISTRY}/mizzen-proxy"), sidecar());
        images.insert(format!("{REGISTRY}/mizzen-app"), own(&["sample"], "mizzen-app"));
        // An Envoy that is the same user as its application would capture its own connections.
        if let (Some(envoy), Users::Many) = (&self.envoy, users) {
            let mut image = sidecar();
            image.files.insert("/usr/local/bin/envoy".into(), envoy.clone());
            images.insert(format!("{REGISTRY}/mizzen-proxy-envoy"), image);
        }
        for (name, program) in &self.users {
            images.insert(
                name.clone(),
                Image {
                    program: program.clone(),
                    ..Image::default()
                },
            );
        }
        images
    }
}

fn program(flag: &str, path: &Path) -> Result<PathBuf, Failure> {
    let failed = |why: String| {
        Failure::new(
            format!("{flag}: {} cannot be run", path.display()),
            why,
            "build it, or correct the path",
        )
    };
    let path = std::fs::canonicalize(path).map_err(|error| failed(error.to_string()))?;
    let data = std::fs::metadata(&path).map_err(|error| failed(error.to_string()))?;
    if data.is_file() && data.permissions().mode() & 0o111 != 0 {
        Ok(path)
    } else {
        Err(failed("it is no executable file".to_owned()))
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).find_map(|folder| program(name, &folder.join(name)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_the_user_is_a_name_and_a_program() {
        assert_eq!(
            row("shop=./target/shop"),
            Ok(("shop".to_owned(), "./target/shop".into()))
        );
        for bad in ["shop", "=x", "shop="] {
            assert!(row(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_told_with_its_flag() {
        for (path, why) in [
            ("/nowhere/x", "No such file"),
            ("/etc/passwd", "no executable"),
            ("/etc", "no executable"),
        ] {
            let said = program("--image shop", Path::new(path)).unwrap_err().to_string();
            assert!(said.contains("--image shop") && said.contains(why), "{said}");
        }
    }

    #[test]
    fn the_proxy_is_this_program() {
        let table = Table {
            own: "/m".into(),
            envoy: None,
            users: vec![("shop".to_owned(), "/s".into())],
        };
        let images = table.images(Users::Many);
        assert_eq!(
            images.find("localhost/mizzen/mizzen-proxy:dev").unwrap().args,
            ["sidecar"]
        );
        let env = |users| table.images(users).find("localhost/mizzen/mizzen-proxy").unwrap().env;
        assert!(env(Users::Many).is_empty() && env(Users::One).contains_key("MIZZEN_SOCKET_PRIORITY"));
        assert_eq!(images.find("shop:1").unwrap().program, PathBuf::from("/s"));
        assert_eq!(images.find("localhost/mizzen/mizzen-proxy-envoy:dev"), None);
    }
}
