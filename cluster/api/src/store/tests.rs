use super::*;
use serde_json::json;

fn write(name: &str, expect: Expect, value: Value) -> Write {
    Write {
        collection: Arc::from("configmaps"),
        key: (Arc::from("ns"), Arc::from(name)),
        expect,
        value,
        delete: false,
    }
}

fn object(name: &str, text: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "labels": {"a": "b"}}, "data": {"text": text}})
}

#[tokio::test]
async fn a_write_with_an_old_revision_changes_nothing() {
    let store = Store::open(None).unwrap();
    let first = store.write(write("x", Expect::Absent, object("x", "1"))).await.unwrap();
    assert_eq!(
        store
            .write(write("x", Expect::Absent, object("x", "2")))
            .await
            .unwrap_err(),
        WriteError::Exists
    );
    let second = write("x", Expect::Revision(first.revision), object("x", "2"));
    let second = store.write(second).await.unwrap();
    let late = write("x", Expect::Revision(first.revision), object("x", "3"));
    assert_eq!(store.write(late).await.unwrap_err(), WriteError::Conflict);
    let kept = store.get("configmaps", "ns", "x").unwrap();
    assert_eq!(kept.revision, second.revision);
    assert_eq!(kept.value()["data"]["text"], "2");
    assert_eq!(kept.value()["metadata"]["resourceVersion"], second.revision.to_string());
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = Store::open(Some(&path)).unwrap();
    let mut last = 0;
    for name in ["a", "b", "c"] {
        last = store
            .write(write(name, Expect::Absent, object(name, name)))
            .await
            .unwrap()
            .revision;
    }
    let gone = store.get("configmaps", "ns", "b").unwrap();
    let mut delete = write("b", Expect::Revision(gone.revision), gone.value());
    delete.delete = true;
    assert_eq!(store.write(delete).await.unwrap().revision, last + 1);
    assert!(matches!(Store::open(Some(&path)), Err(OpenError::InUse(_))));
    let state = Arc::downgrade(&store.state);
    drop(store);
    // The writer lets go of the file when it sees that nobody is left.
    while state.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    let again = loop {
        match Store::open(Some(&path)) {
            Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(again.revision(), last + 1);
    let (_, all) = again.list("configmaps", "", None);
    let names: Vec<_> = all.iter().map(|stored| stored.key.1.to_string()).collect();
    assert_eq!(names, ["a", "c"]);
    assert!(again.watch(&Arc::from("configmaps"), 1).is_err());
    assert!(again.watch(&Arc::from("configmaps"), last + 1).is_ok());
}

#[test]
fn a_file_that_is_no_state_is_named_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    std::fs::write(
        &path,
        "not a database, but text that is long enough to be looked at".repeat(100),
    )
    .unwrap();
    let error = Store::open(Some(&path)).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_watcher_sees_every_change_once_in_order() {
    let store = Store::open(None).unwrap();
    let (now, mut watcher) = store.list_and_watch(&Arc::from("configmaps"), "");
    assert!(now.is_empty());
    let writers: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let name = format!("x{n}");
                store
                    .write(write(&name, Expect::Absent, object(&name, "1")))
                    .await
                    .unwrap()
                    .revision
            })
        })
        .collect();
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    written.sort_unstable();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        assert!(watcher.changed().await);
        seen.extend(watcher.ready().unwrap().into_iter().map(|event| event.object.revision));
    }
    assert_eq!(seen, written);
    assert!(watcher.ready().unwrap().is_empty());
}

#[tokio::test]
async fn a_revision_that_fell_out_of_the_window_is_expired() {
    let store = Store::open(None).unwrap();
    let first = store.write(write("x", Expect::Absent, object("x", ""))).await.unwrap();
    let mut revision = first.revision;
    let large = "y".repeat(100_000);
    for _ in 0..60 {
        let next = write("x", Expect::Revision(revision), object("x", &large));
        revision = store.write(next).await.unwrap().revision;
    }
    let expired = store.watch(&Arc::from("configmaps"), first.revision).unwrap_err();
    assert_eq!(expired.asked, first.revision);
    assert!(store.watch(&Arc::from("configmaps"), expired.oldest).is_ok());
}
