//! An API in memory, and a client that sees codes and bodies.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test uses its part, and may fail loudly"
)]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use mizzen_api::user::User;
use mizzen_api::{Api, Options, Service};
use serde_json::Value;
use tower::ServiceExt as _;

/// An API that forgets.
pub(crate) async fn memory() -> Api {
    Api::open(Options::default()).await.unwrap()
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{}: {}", self.code, self.body);
        self.body
    }

    /// Code and message of a refusal.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.code, self.body["message"].as_str().unwrap_or_default())
    }
}

/// A user's client.
#[derive(Clone)]
pub(crate) struct Client {
    service: Service,
}

impl Client {
    pub(crate) fn new(api: &Api) -> Self {
        Self::of(api, User::admin())
    }

    pub(crate) fn of(api: &Api, user: User) -> Self {
        let service = api.service(user);
        Self { service }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, media_type: &str, body: impl Into<Bytes>) -> Answer {
        self.request(method, path, media_type, "application/json", body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        accept: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .header("user-agent", "golden/1")
            .header("accept", accept)
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.service.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|value| value.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code, body, warnings }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, "application/merge-patch+json", body.to_string())
            .await
    }

    pub(crate) async fn apply(&self, path: &str, manager: &str, body: &Value) -> Answer {
        let path = format!("{path}?fieldManager={manager}");
        self.send("PATCH", &path, "application/apply-patch+yaml", body.to_string())
            .await
    }
}
