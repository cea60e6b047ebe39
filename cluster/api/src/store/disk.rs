//! The file: one row per object and the revision, written in transactions that are flushed before they count.

use super::{Stored, labels};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Pages kept in memory: everything is read from the store's own memory, so writing needs only a few.
const CACHE: usize = 4 << 20;

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the state {0} is in use by another process: end that one, or choose another folder")]
    InUse(PathBuf),
    /// It is no state of ours, or damaged.
    #[error("the state {path} is damaged ({reason}): put a copy back, or remove the file to start empty")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// It could not be read or made.
    #[error("the state {path} cannot be opened: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The writer could not be started.
    #[error("the storage thread cannot be started")]
    Thread(#[source] io::Error),
}

pub(super) struct Disk {
    path: PathBuf,
    /// Closed after a failed write: what is in memory of the file may differ from it then.
    database: Option<Database>,
}

/// What is written of an object.
pub(super) struct Row {
    pub(super) collection: Arc<str>,
    pub(super) stored: Arc<Stored>,
    pub(super) delete: bool,
}

type Loaded = Vec<(Arc<str>, Stored)>;

fn open_file(path: &Path) -> Result<Database, redb::DatabaseError> {
    let database = Database::builder().set_cache_size(CACHE).create(path)?;
    // Secrets are in it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| redb::DatabaseError::Storage(redb::StorageError::Io(error)))?;
    Ok(database)
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, u64, Loaded), OpenError> {
        let database = open_file(path).map_err(|error| opening(path, error))?;
        match load(&database) {
            Ok((revision, objects)) => {
                let disk = Self {
                    path: path.to_owned(),
                    database: Some(database),
                };
                Ok((disk, revision, objects))
            }
            Err(error) => Err(OpenError::Damaged {
                path: path.to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    /// Writes rows and the revision, and returns when they are on the disk. After a failure nobody knows what of it is there: the next
    /// call opens the file anew and writes `everything` that was there before, too.
    pub(super) fn commit(
        &mut self,
        revision: u64,
        rows: &[Row],
        everything: impl FnOnce() -> Vec<Row>,
    ) -> Result<(), redb::Error> {
        let (database, before) = match self.database.take() {
            Some(database) => (database, None),
            None => (open_file(&self.path)?, Some(everything())),
        };
        write(&database, revision, before.as_deref(), rows)?;
        self.database = Some(database);
        Ok(())
    }
}

fn load(database: &Database) -> Result<(u64, Loaded), redb::Error> {
    let transaction = database.begin_read()?;
    let revision = match transaction.open_table(NUMBERS) {
        Ok(numbers) => numbers.get("revision")?.map_or(0, |found| found.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((0, Vec::new())),
        Err(error) => return Err(error.into()),
    };
    let mut objects = Vec::new();
    for row in transaction.open_table(OBJECTS)?.iter()? {
        let (key, body) = row?;
        let key = key.value();
        let mut parts = key.split('\0');
        let (Some(collection), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(redb::Error::Corrupted(format!(
                "the key {key:?} is not one of an object"
            )));
        };
        let value: Value = serde_json::from_slice(body.value())
            .map_err(|error| redb::Error::Corrupted(format!("the object {key:?} is not JSON: {error}")))?;
        let text = value.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let stored = Stored {
            key: (Arc::from(namespace), Arc::from(name)),
            revision: text.and_then(|text| text.parse().ok()).unwrap_or_default(),
            labels: labels(&value),
            body: Bytes::copy_from_slice(body.value()),
        };
        objects.push((Arc::from(collection), stored));
    }
    Ok((revision, objects))
}

fn write(database: &Database, revision: u64, before: Option<&[Row]>, rows: &[Row]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    if before.is_some() {
        transaction.delete_table(OBJECTS)?;
    }
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for row in before.unwrap_or_default().iter().chain(rows) {
            let (namespace, name) = &row.stored.key;
            let key = format!("{}\0{namespace}\0{name}", row.collection);
            if row.delete {
                objects.remove(key.as_str())?;
            } else {
                objects.insert(key.as_str(), &*row.stored.body)?;
            }
        }
        transaction.open_table(NUMBERS)?.insert("revision", revision)?;
    }
    transaction.commit()?;
    Ok(())
}

fn opening(path: &Path, error: redb::DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path),
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
            let reason = error.to_string();
            OpenError::Unreadable { path, reason }
        }
        other => OpenError::Damaged {
            path,
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(name: &str) -> Row {
        let value = json!({"metadata": {"name": name, "resourceVersion": "7"}});
        let stored = Stored {
            key: (Arc::from(""), Arc::from(name)),
            revision: 7,
            labels: None,
            body: Bytes::from(value.to_string()),
        };
        Row {
            collection: Arc::from("things"),
            stored: Arc::new(stored),
            delete: false,
        }
    }

    #[test]
    fn after_a_failure_the_file_is_made_equal_to_what_was_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (mut disk, _, _) = Disk::open(&path).unwrap();
        disk.commit(7, &[row("acknowledged"), row("doubtful")], Vec::new)
            .unwrap();
        // As a failed commit leaves it.
        disk.database = None;
        disk.commit(8, &[row("later")], || vec![row("acknowledged")]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(disk);
        let (_, revision, objects) = Disk::open(&path).unwrap();
        let names: Vec<String> = objects.iter().map(|(_, stored)| stored.key.1.to_string()).collect();
        assert_eq!(
            (revision, names),
            (8, vec!["acknowledged".to_owned(), "later".to_owned()])
        );
    }
}
