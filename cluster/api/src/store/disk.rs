//! The file: one row per object and the revision, written in transactions that are flushed before they count.

use super::{Stored, labels};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use std::io;
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
    database: Database,
}

type Loaded = Vec<(Arc<str>, Stored)>;

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, u64, Loaded), OpenError> {
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(path)
            .map_err(|error| opening(path, error))?;
        let disk = Self { database };
        match disk.load() {
            Ok((revision, objects)) => Ok((disk, revision, objects)),
            Err(error) => Err(OpenError::Damaged {
                path: path.to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    fn load(&self) -> Result<(u64, Loaded), redb::Error> {
        let transaction = self.database.begin_read()?;
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

    /// Writes rows and the revision, and returns when they are on the disk.
    pub(super) fn commit<'a>(
        &mut self,
        revision: u64,
        rows: impl Iterator<Item = (&'a str, &'a Stored, bool)>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (collection, stored, delete) in rows {
                let key = format!("{collection}\0{}\0{}", stored.key.0, stored.key.1);
                if delete {
                    objects.remove(key.as_str())?;
                } else {
                    objects.insert(key.as_str(), &*stored.body)?;
                }
            }
            transaction.open_table(NUMBERS)?.insert("revision", revision)?;
        }
        transaction.commit()?;
        Ok(())
    }
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
