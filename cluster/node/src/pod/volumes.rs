//! A pod's volumes as folders. What a volume holds is decided purely ([`content`]); files are replaced all at once, so that a program
//! that reads while they change sees the old ones or the new ones.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{KeyToPath, Pod, Volume};

use super::env::{Place, Sources, pod_field, quantity, resource_field};

/// Path in the volume to bytes and mode.
pub(crate) type Files = BTreeMap<String, (Vec<u8>, u32)>;
/// Tokens by the path of their file, for each volume name.
pub(crate) type Tokens = BTreeMap<(String, String), String>;

/// What a volume is.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Files(Files),
    /// In memory, with a limit in bytes, or on disk.
    Empty {
        memory: Option<Option<u64>>,
    },
    Host {
        path: PathBuf,
        kind: String,
    },
}

/// What a volume holds now, or why it cannot be mounted.
pub(crate) fn content(
    volume: &Volume,
    pod: &Pod,
    sources: &Sources,
    tokens: &Tokens,
    place: &Place,
) -> Result<Content, String> {
    let mode =
        |item: Option<i32>, default: Option<i32>| u32::try_from(item.or(default).unwrap_or(0o644)).unwrap_or(0o644);
    if let Some(source) = &volume.config_map {
        let optional = source.optional.unwrap_or(false);
        let values = sources.config_map(&source.name, optional)?;
        let picked = pick(values, source.items.as_deref(), source.default_mode, optional, "config")?;
        return Ok(Content::Files(picked));
    }
    if let Some(source) = &volume.secret {
        let optional = source.optional.unwrap_or(false);
        let values = sources.secret(source.secret_name.as_deref().unwrap_or_default(), optional)?;
        let picked = pick(values, source.items.as_deref(), source.default_mode, optional, "secret")?;
        return Ok(Content::Files(picked));
    }
    if let Some(source) = &volume.downward_api {
        let mut files = Files::new();
        for item in source.items.iter().flatten() {
            let text = downward(pod, item, place)?;
            files.insert(
                item.path.clone(),
                (text.into_bytes(), mode(item.mode, source.default_mode)),
            );
        }
        return Ok(Content::Files(files));
    }
    if let Some(projected) = &volume.projected {
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let optional = source.optional.unwrap_or(false);
                let values = sources.config_map(&source.name, optional)?;
                files.extend(pick(
                    values,
                    source.items.as_deref(),
                    projected.default_mode,
                    optional,
                    "config",
                )?);
            }
            if let Some(source) = &source.secret {
                let optional = source.optional.unwrap_or(false);
                let values = sources.secret(&source.name, optional)?;
                files.extend(pick(
                    values,
                    source.items.as_deref(),
                    projected.default_mode,
                    optional,
                    "secret",
                )?);
            }
            for item in source
                .downward_api
                .iter()
                .flat_map(|source| source.items.iter().flatten())
            {
                let text = downward(pod, item, place)?;
                files.insert(
                    item.path.clone(),
                    (text.into_bytes(), mode(item.mode, projected.default_mode)),
                );
            }
            if let Some(source) = &source.service_account_token {
                let key = (volume.name.clone(), source.path.clone());
                let token = tokens.get(&key).ok_or("failed to fetch token: none was issued")?;
                let bytes = token.clone().into_bytes();
                files.insert(source.path.clone(), (bytes, mode(None, projected.default_mode)));
            }
        }
        return Ok(Content::Files(files));
    }
    if let Some(source) = &volume.empty_dir {
        let memory = source.medium.as_deref() == Some("Memory");
        let limit = source.size_limit.as_ref().map(|limit| quantity(limit) as u64);
        return Ok(Content::Empty {
            memory: memory.then_some(limit),
        });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Content::Host {
            path: (&source.path).into(),
            kind: source.type_.clone().unwrap_or_default(),
        });
    }
    Err("this node knows the volumes configMap, secret, projected, downwardAPI, emptyDir and hostPath".to_owned())
}

fn downward(
    pod: &Pod,
    item: &k8s_openapi::api::core::v1::DownwardAPIVolumeFile,
    place: &Place,
) -> Result<String, String> {
    match (&item.field_ref, &item.resource_field_ref) {
        (Some(field), _) => pod_field(pod, field, place),
        (_, Some(resource)) => resource_field(pod, None, resource, place),
        _ => Ok(String::new()),
    }
}

fn pick(
    mut values: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    kind: &str,
) -> Result<Files, String> {
    let mode = |mode: Option<i32>| u32::try_from(mode.or(default_mode).unwrap_or(0o644)).unwrap_or(0o644);
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(values
            .into_iter()
            .map(|(key, value)| (key, (value, mode(None))))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match values.remove(&item.key) {
            Some(value) => _ = files.insert(item.path.clone(), (value, mode(item.mode))),
            None if optional => {}
            None => return Err(format!("references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(files)
}

/// Brings a volume's folder to what it should hold and says where it is.
pub(crate) fn set_up(folder: &Path, content: &Content, group: Option<u32>) -> Result<PathBuf, String> {
    let told = |what: &str, path: &Path, error: &dyn std::fmt::Display| format!("{what} {}: {error}", path.display());
    match content {
        Content::Files(files) => {
            replace(folder, files, group).map_err(|error| told("writing", folder, &error))?;
            Ok(folder.to_owned())
        }
        Content::Empty { memory } => {
            if folder.exists() {
                return Ok(folder.to_owned());
            }
            fs::create_dir_all(folder).map_err(|error| told("making", folder, &error))?;
            if let Some(limit) = memory {
                let options = limit.map_or("mode=0777".to_owned(), |limit| format!("mode=0777,size={limit}"));
                let options = std::ffi::CString::new(options).unwrap_or_default();
                rustix::mount::mount(
                    "tmpfs",
                    folder,
                    "tmpfs",
                    rustix::mount::MountFlags::NODEV,
                    Some(options.as_c_str()),
                )
                .map_err(|error| told("tmpfs on", folder, &error))?;
            }
            let mode = if group.is_some() { 0o2777 } else { 0o777 };
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(|e| told("mode of", folder, &e))?;
            own(folder, group);
            Ok(folder.to_owned())
        }
        Content::Host { path, kind } => {
            let made = match kind.as_str() {
                "DirectoryOrCreate" => fs::create_dir_all(path),
                "FileOrCreate" if !path.exists() => fs::write(path, []),
                _ => Ok(()),
            };
            made.map_err(|error| told("making", path, &error))?;
            let found = fs::metadata(path);
            let fits = match (kind.as_str(), &found) {
                (_, Err(_)) => false,
                ("Directory" | "DirectoryOrCreate", Ok(found)) => found.is_dir(),
                ("File" | "FileOrCreate", Ok(found)) => found.is_file(),
                _ => true,
            };
            match (fits, kind.as_str()) {
                (true, _) => Ok(path.clone()),
                (false, "Directory") => Err(format!(
                    "hostPath type check failed: {} is not a directory",
                    path.display()
                )),
                (false, "File") => Err(format!("hostPath type check failed: {} is not a file", path.display())),
                (false, _) => Err(format!("hostPath {} does not exist", path.display())),
            }
        }
    }
}

/// `..data` leads to a folder with all files, and each file to `..data`; a rename of the link replaces them all.
fn replace(folder: &Path, files: &Files, group: Option<u32>) -> std::io::Result<()> {
    let data = folder.join("..data");
    let old = fs::read_link(&data).ok();
    if old.is_some() && holds(&data, files) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let number = old
        .as_ref()
        .and_then(|old| old.to_str()?.rsplit_once('_')?.1.parse::<u64>().ok())
        .unwrap_or(0);
    let name = format!("..files_{}", number + 1);
    let fresh = folder.join(&name);
    _ = fs::remove_dir_all(&fresh);
    fs::create_dir(&fresh)?;
    for (path, (bytes, mode)) in files {
        let Some(path) = inside(path) else { continue };
        let file = fresh.join(&path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, bytes)?;
        let mode = if group.is_some() { mode | 0o040 } else { *mode };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        own(&file, group);
    }
    let link = folder.join("..data_tmp");
    _ = fs::remove_file(&link);
    symlink(&name, &link)?;
    fs::rename(&link, &data)?;
    let wanted: Vec<_> = fs::read_dir(&fresh)?.flatten().map(|entry| entry.file_name()).collect();
    for name in &wanted {
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        _ = fs::remove_dir_all(folder.join(old));
    }
    Ok(())
}

fn holds(data: &Path, files: &Files) -> bool {
    let same = files
        .iter()
        .all(|(path, (bytes, _))| fs::read(data.join(path)).is_ok_and(|found| found == *bytes));
    same && count(data) == files.len()
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 })
        .sum()
}

/// Groups that the kernel does not map here are not given.
fn own(path: &Path, group: Option<u32>) {
    if group.is_some() {
        _ = std::os::unix::fs::chown(path, None, group);
    }
}

/// A relative path without steps up.
fn inside(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
        .then(|| path.into())
}

/// The part of a volume that `subPath` names, which is made if it is not there; links do not lead out of the volume.
pub(crate) fn sub_path(volume: &Path, path: &str) -> Result<PathBuf, String> {
    let refused = || format!("failed to prepare subPath for volumeMount: {path:?} is not within the volume");
    let joined = volume.join(inside(path).ok_or_else(refused)?);
    if !joined.exists() {
        fs::create_dir_all(&joined).map_err(|error| format!("failed to create subPath directory {path:?}: {error}"))?;
        _ = fs::set_permissions(&joined, fs::Permissions::from_mode(0o777));
    }
    let real = joined.canonicalize().map_err(|_| refused())?;
    let volume = volume.canonicalize().map_err(|_| refused())?;
    if real.starts_with(&volume) {
        Ok(real)
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> Content {
        Content::Files(
            all.iter()
                .map(|(path, text)| ((*path).into(), (text.as_bytes().to_vec(), 0o600)))
                .collect(),
        )
    }

    #[test]
    fn files_are_replaced_at_once_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        set_up(&volume, &files(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        let first = fs::read_link(volume.join("..data")).unwrap();
        assert_eq!(fs::read_to_string(volume.join("deep/b")).unwrap(), "2");
        assert_eq!(
            fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777,
            0o600
        );
        set_up(&volume, &files(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), first, "nothing changed");
        set_up(&volume, &files(&[("c", "3")]), None).unwrap();
        let mut names: Vec<_> = fs::read_dir(&volume).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["..data", "..files_2", "c"]);
    }

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc", folder.path().join("out")).unwrap();
        assert!(
            sub_path(folder.path(), "out/passwd")
                .unwrap_err()
                .contains("not within the volume")
        );
        assert!(sub_path(folder.path(), "../x").is_err());
        assert!(sub_path(folder.path(), "new/folder").unwrap().is_dir());
    }

    #[test]
    fn missing_keys_and_unknown_volumes_say_so() {
        let volume = |text: serde_json::Value| -> Volume { serde_json::from_value(text).unwrap() };
        let place = Place {
            node: String::new(),
            host: [0; 4].into(),
            address: None,
            cores: 1,
            memory: 1,
        };
        let ask = |volume: &Volume| content(volume, &Pod::default(), &Sources::default(), &Tokens::new(), &place);
        let claim = volume(serde_json::json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}));
        assert!(ask(&claim).unwrap_err().contains("emptyDir"));
        let map = volume(serde_json::json!({"name": "v", "configMap": {"name": "m"}}));
        assert_eq!(ask(&map).unwrap_err(), "configmap \"m\" not found");
        let items = [KeyToPath {
            key: "k".into(),
            path: "p".into(),
            mode: None,
        }];
        let none = pick(BTreeMap::new(), Some(&items), None, false, "secret").unwrap_err();
        assert_eq!(none, "references non-existent secret key: k");
    }
}
