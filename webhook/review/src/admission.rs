//! `admission.k8s.io/v1` as the API server speaks it.
//!
//! Objects stay raw JSON: they may have fields that are newer than our types, and those must survive a patch.

use base64::Engine as _;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the API server asks.
#[derive(Debug, Clone, Deserialize)]
pub struct Review {
    /// The question. (An answer has none.)
    pub request: Option<Request>,
}

/// A question.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Comes back in the answer.
    pub uid: String,
    /// The object's kind.
    #[serde(default)]
    pub kind: Kind,
    /// The object's name; empty while the API server has not made one.
    #[serde(default)]
    pub name: String,
    /// The object's namespace; empty for objects of the cluster.
    #[serde(default)]
    pub namespace: String,
    /// What happens to it.
    pub operation: Operation,
    /// Who does it.
    #[serde(default)]
    pub user_info: UserInfo,
    /// As it shall be; null if it is deleted.
    #[serde(default)]
    pub object: Value,
    /// As it is; null if it is created.
    #[serde(default)]
    pub old_object: Value,
}

/// A group, version and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Kind {
    /// `networking.istio.io`.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `VirtualService`.
    pub kind: String,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// A client connects to it.
    Connect,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Of the question.
    pub uid: String,
    /// Yes, yes with changes, or no.
    pub answer: Answer,
    /// What kubectl prints to the user.
    pub warnings: Vec<String>,
    /// A bounded word for metrics and logs: why it came out so.
    pub category: &'static str,
}

/// Yes, yes with changes, or no.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// As it is.
    Allow,
    /// With these changes.
    Patch(json_patch::Patch),
    /// No.
    Refuse {
        /// As HTTP says it: 400 for a bad object, 403 for a user who may not, 500 for what is not the user's fault.
        code: u16,
        /// Why, and what to do.
        message: String,
    },
}

impl Request {
    /// An answer that lets the object be.
    pub fn allow(&self, category: &'static str) -> Response {
        Response {
            uid: self.uid.clone(),
            answer: Answer::Allow,
            warnings: Vec::new(),
            category,
        }
    }

    /// An answer that changes the object to `after`.
    pub fn change(&self, after: &Value, category: &'static str) -> Response {
        let patch = json_patch::diff(&self.object, after);
        let answer = if patch.is_empty() {
            Answer::Allow
        } else {
            Answer::Patch(patch)
        };
        Response {
            uid: self.uid.clone(),
            answer,
            warnings: Vec::new(),
            category,
        }
    }

    /// An answer that refuses the object.
    pub fn refuse(&self, code: u16, message: impl Into<String>, category: &'static str) -> Response {
        let answer = Answer::Refuse {
            code,
            message: message.into(),
        };
        Response {
            uid: self.uid.clone(),
            answer,
            warnings: Vec::new(),
            category,
        }
    }

    /// Whether the object is on its way out: whatever is wrong with it, its finalizers must be able to go.
    pub(crate) fn is_being_deleted(&self) -> bool {
        self.operation == Operation::Delete
            || self
                .object
                .pointer("/metadata/deletionTimestamp")
                .is_some_and(|at| !at.is_null())
    }

    /// Whether only metadata or status change: what was accepted once is not judged again by newer rules.
    pub(crate) fn leaves_spec(&self) -> bool {
        self.operation == Operation::Update && self.object.get("spec") == self.old_object.get("spec")
    }
}

impl Response {
    /// With things that the user should know.
    #[must_use]
    pub fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Whether the object may be.
    pub fn is_allowed(&self) -> bool {
        !matches!(self.answer, Answer::Refuse { .. })
    }

    /// The AdmissionReview that goes back.
    pub fn to_json(&self) -> Value {
        let mut response = json!({"uid": self.uid, "allowed": self.is_allowed()});
        if let Some(fields) = response.as_object_mut() {
            match &self.answer {
                Answer::Allow => {}
                Answer::Patch(patch) => {
                    let text = serde_json::to_vec(patch).unwrap_or_default();
                    fields.insert("patchType".to_owned(), json!("JSONPatch"));
                    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
                    fields.insert("patch".to_owned(), json!(encoded));
                }
                Answer::Refuse { code, message } => {
                    fields.insert("status".to_owned(), json!({"code": code, "message": message}));
                }
            }
            if !self.warnings.is_empty() {
                fields.insert("warnings".to_owned(), json!(self.warnings));
            }
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}
