//! watch: a stream of changes.

use super::read::{Filter, Presenter, check_match, revision};
use crate::kinds::Resource;
use crate::negotiate::{Body, BoxError, Encoding};
use crate::service::Call;
use crate::status::ApiError;
use crate::store::{Change, Event, Expired, Stored, Watcher};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use rand::Rng as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a client that wants bookmarks gets one while nothing else happens.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts where the client does not say; up to twice that, so that clients do not all come back at once.
const LASTS: u64 = 1800;
/// The annotation of the bookmark that ends the initial objects.
const INITIAL_END: &str = "k8s.io/initial-events-end";

struct Stream {
    watcher: Watcher,
    filter: Filter,
    presenter: Presenter,
    resource: Arc<Resource>,
    namespace: String,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    started: bool,
    over: bool,
}

pub(crate) fn start(call: &Call) -> Result<Response<Body>, ApiError> {
    let filter = Filter::of(call)?;
    check_match(call, true)?;
    if call.accept.encoding == Encoding::Yaml {
        return Err(ApiError::not_acceptable("application/json"));
    }
    let query = &call.info.query;
    let since = revision(call)?;
    let initial = query.flag("sendInitialEvents");
    let namespace = if call.resource.namespaced {
        call.info.namespace.clone()
    } else {
        String::new()
    };
    let seconds = match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => u64::try_from(seconds).unwrap_or(LASTS),
        _ => rand::rng().random_range(LASTS..2 * LASTS),
    };
    let store = &call.api.inner.store;
    let synthetic = if query.has("sendInitialEvents") {
        initial
    } else {
        since == 0
    };
    let (objects, watcher) = if synthetic || since == 0 {
        let (objects, watcher) = store.list_and_watch(&call.resource.collection, &namespace);
        (if synthetic { objects } else { Vec::new() }, Ok(watcher))
    } else {
        (Vec::new(), store.watch(&call.resource.collection, since))
    };
    let mut first = Vec::new();
    let presenter = Presenter::of(call);
    let mut started = false;
    for stored in objects.iter().filter(|stored| filter.matches(&call.resource, stored)) {
        first.push(line("ADDED", &presenter.one(stored, started)));
        started = true;
    }
    let stream = match watcher {
        Err(expired) => {
            first.push(expired_line(&expired));
            None
        }
        Ok(watcher) => {
            if initial && query.flag("allowWatchBookmarks") {
                first.push(bookmark(&call.resource, watcher.position(), true));
            }
            let now = Instant::now();
            Some(Stream {
                watcher,
                filter,
                presenter,
                resource: call.resource.clone(),
                namespace,
                bookmarks: query.flag("allowWatchBookmarks"),
                next_bookmark: now + BOOKMARK_EVERY,
                ends: now + Duration::from_secs(seconds),
                started,
                over: false,
            })
        }
    };
    let later = stream::unfold(stream, |state| async move {
        let mut state = state?;
        let lines = state.next().await?;
        Some((lines, Some(state)))
    });
    let initial = (!first.is_empty()).then(|| first.concat());
    let frames = stream::iter(initial)
        .chain(later)
        .map(|bytes| Ok::<_, BoxError>(Frame::data(Bytes::from(bytes))));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let media_type = match call.accept.form {
        crate::negotiate::Form::Object => "application/json",
        _ => "application/json;stream=watch",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    Ok(response)
}

impl Stream {
    /// The next lines, one chunk; `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        while !self.over {
            match self.watcher.ready() {
                Err(expired) => {
                    self.over = true;
                    return Some(expired_line(&expired));
                }
                Ok(events) => {
                    let mut lines = Vec::new();
                    for event in &events {
                        self.push(&mut lines, event);
                    }
                    if !lines.is_empty() {
                        return Some(lines);
                    }
                }
            }
            let wake = self.ends.min(self.next_bookmark);
            tokio::select! {
                biased;
                open = self.watcher.changed() => if !open { return None },
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.ends {
                        return None;
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if self.bookmarks {
                        return Some(bookmark(&self.resource, self.watcher.position(), false));
                    }
                }
            }
        }
        None
    }

    /// Adds what an event is for this watch: an object that begins or ends to match is added or deleted.
    fn push(&mut self, lines: &mut Vec<u8>, event: &Event) {
        if !self.namespace.is_empty() && *event.object.key.0 != *self.namespace {
            return;
        }
        let matches = |stored: &Stored| self.filter.is_empty() || self.filter.matches(&self.resource, stored);
        let before = event.previous.as_ref().is_some_and(|previous| matches(previous));
        let after = event.change != Change::Deleted && matches(&event.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        lines.extend(line(kind, &self.presenter.one(&event.object, self.started)));
        self.started = true;
    }
}

fn line(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line
}

fn expired_line(expired: &Expired) -> Vec<u8> {
    let error = ApiError::expired(expired.to_string());
    line("ERROR", error.body().to_string().as_bytes())
}

fn bookmark(resource: &Resource, revision: u64, initial_end: bool) -> Vec<u8> {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        crate::json::set(&mut metadata, "/annotations", json!({INITIAL_END: "true"}));
    }
    let object: Value = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
    line("BOOKMARK", object.to_string().as_bytes())
}
