//! The webhook's question: may this object be?

use mizzen_model::{Kind, Namespace};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::error::{Invalid, Reason, Rejection};
use crate::object::{Object, OurKind};
use crate::parse;

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object is refused; it is accepted if there is none.
    pub errors: Vec<Diagnostic>,
    /// What its owner should look at again.
    pub warnings: Vec<Diagnostic>,
}

impl Verdict {
    /// Whether the object is accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.errors.is_empty()
    }
}

/// What `cluster.local` is for the judgement of an object on its own: the suffix decides no rule, so any will do.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Judges one object of `networking.istio.io` or `security.istio.io`, by itself: shape and unknown fields first, then the
/// conversion that the index does.
///
/// An object of another kind is refused: whoever sends it here expects it to be judged.
#[must_use]
pub fn validate(object: &Value) -> Verdict {
    let Some(kind) = OurKind::of(object) else {
        let text = |field| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let kind = format!("{} {}", text("apiVersion"), text("kind"));
        let invalid = Invalid {
            field: String::new(),
            reason: Reason::Kind { kind },
        };
        return Verdict {
            errors: vec![invalid.diagnostic()],
            warnings: Vec::new(),
        };
    };
    let (wrong, unknown) = kind.findings(object);
    let mut errors: Vec<Diagnostic> = unknown.iter().chain(&wrong).map(Invalid::diagnostic).collect();
    if !wrong.is_empty() {
        return Verdict {
            errors,
            warnings: Vec::new(),
        };
    }
    let object = match kind.read(object) {
        Ok(object) => object,
        Err(error) => {
            let invalid = Invalid {
                field: String::new(),
                reason: Reason::Shape(error.to_string()),
            };
            errors.push(invalid.diagnostic());
            return Verdict {
                errors,
                warnings: Vec::new(),
            };
        }
    };
    match judge(&object) {
        Ok(warnings) => Verdict { errors, warnings },
        Err(rejection) => {
            errors.extend(rejection.diagnostics());
            Verdict {
                errors,
                warnings: Vec::new(),
            }
        }
    }
}

fn judge(object: &Object) -> Result<Vec<Diagnostic>, Rejection> {
    match object {
        Object::Gateway(raw) => parse::gateway(raw, CLUSTER_DOMAIN).map(|accepted| accepted.warnings),
        Object::VirtualService(raw) => parse::virtual_service(raw, CLUSTER_DOMAIN).map(|accepted| accepted.warnings),
        Object::DestinationRule(raw) => parse::destination_rule(raw, CLUSTER_DOMAIN).map(|accepted| accepted.warnings),
        Object::PeerAuthentication(raw) => {
            parse::peer_authentication(raw, CLUSTER_DOMAIN).map(|accepted| accepted.warnings)
        }
        _ => Ok(Vec::new()),
    }
}

/// The kinds that [`validate`] judges.
pub const VALIDATED: [Kind; 4] = [
    Kind::Gateway,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::PeerAuthentication,
];

/// A namespace from text that Kubernetes has checked already; none where it is empty or no name after all.
pub(crate) fn namespace(text: &str) -> Option<Namespace> {
    Namespace::new(text).ok()
}
