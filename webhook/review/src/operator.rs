//! The review of the operator's kinds: control planes, member rolls, members.
//!
//! The rules of an object on its own are `mizzen-desired`'s, which the controllers call too. Here are those that need the
//! cluster: what else there is, and what the user may do. Whether a user may do something only the API server knows; so a
//! review that needs to know ends in [`Step::Ask`], and is called again with the answers.

mod mutate;

use std::collections::{BTreeMap, BTreeSet};

use mizzen_crds::maistra::{ControlPlaneMode, ServiceMeshControlPlane, ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_desired::{
    Members, Problem, Settings, SpecError, SpecErrors, ValidatedMember, ValidatedMesh, ValidatedRoll, read_member,
    read_roll,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admission::{Operation, Request, Response};

pub use mutate::{mutate_mesh, mutate_roll};

const GROUP: &str = "maistra.io";

/// What there is in the cluster.
#[derive(Debug, Clone)]
pub struct OperatorContext {
    /// What the operator's installation decides.
    pub settings: Settings,
    /// The operator's own user, which is not asked what it may do: `system:serviceaccount:<namespace>:<name>`.
    pub operator_user: String,
    /// Every control plane.
    pub meshes: Vec<ServiceMeshControlPlane>,
    /// Every member roll.
    pub rolls: Vec<ServiceMeshMemberRoll>,
}

/// May the user who sent the request do this? The fields are those of a SubjectAccessReview.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// `create`, `update`, `use`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource, in plural.
    pub resource: &'static str,
    /// In this namespace; nothing: in the whole cluster.
    pub namespace: Option<String>,
    /// To this object; nothing: to any.
    pub name: Option<String>,
}

/// What is known about the user.
pub type Answers = BTreeMap<Question, bool>;

/// How far a review has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It is done.
    Done(Response),
    /// These must be answered first.
    Ask(Vec<Question>),
}

/// A user who may not, in a sentence.
struct Forbidden(String);

enum Halt {
    Invalid(SpecErrors),
    Invalids(Vec<SpecError>),
    Shape(String),
    Forbidden(Forbidden),
    Ask(Vec<Question>),
}

impl From<SpecErrors> for Halt {
    fn from(errors: SpecErrors) -> Self {
        Self::Invalid(errors)
    }
}

/// Reviews a ServiceMeshControlPlane.
pub fn review_mesh(request: &Request, context: &OperatorContext, answers: &Answers) -> Step {
    review(request, |_| {
        let validated = ValidatedMesh::check_raw(&request.object, &context.settings)?;
        let mesh: ServiceMeshControlPlane = read(&request.object)?;
        let conflicts = mizzen_desired::conflicts(&mesh, &context.meshes);
        if !conflicts.is_empty() {
            return Err(Halt::Invalids(conflicts));
        }
        let was_wide = read::<ServiceMeshControlPlane>(&request.old_object)
            .is_ok_and(|old| old.spec.mode == Some(ControlPlaneMode::ClusterWide));
        if validated.cluster_wide() && !was_wide && !is_operator(request, context) {
            let question = Question {
                verb: "create",
                group: GROUP,
                resource: "servicemeshcontrolplanes",
                namespace: None,
                name: None,
            };
            require(request, answers, vec![question], |_| {
                "a mesh of mode ClusterWide reaches every namespace: it needs the right to create \
                 ServiceMeshControlPlanes in the whole cluster"
                    .to_owned()
            })?;
        }
        let warning = |field: &String| format!("{field} is accepted and not acted on by this version");
        Ok(validated.not_acted_on().iter().map(warning).collect())
    })
}

/// Reviews a ServiceMeshMemberRoll.
pub fn review_roll(request: &Request, context: &OperatorContext, answers: &Answers) -> Step {
    review(request, |_| {
        let roll = read_roll(&request.object)?;
        let validated = ValidatedRoll::check(&roll, &context.settings.operator_namespace)?;
        let overlaps = overlaps(request, &validated, context);
        if !overlaps.is_empty() {
            return Err(Halt::Invalids(overlaps));
        }
        if !is_operator(request, context) {
            let questions = roll_questions(request, &validated, &context.settings.operator_namespace);
            require(request, answers, questions, |question| match &question.namespace {
                Some(namespace) => format!(
                    "adding {namespace} to the mesh puts sidecars into its pods: it needs the right to update pods in \
                     {namespace}"
                ),
                None => {
                    "members by `*` or by selectors may be any namespace: it needs the right to update pods in the \
                         whole cluster"
                        .to_owned()
                }
            })?;
        }
        Ok(Vec::new())
    })
}

/// Reviews a ServiceMeshMember.
pub fn review_member(request: &Request, context: &OperatorContext, answers: &Answers) -> Step {
    review(request, |_| {
        let member = read_member(&request.object)?;
        let operator = &context.settings.operator_namespace;
        if request.operation == Operation::Update {
            let old: ServiceMeshMember = read(&request.old_object)?;
            ValidatedMember::check_update(&old, &member, operator)?;
            return Ok(Vec::new());
        }
        let validated = ValidatedMember::check(&member, operator)?;
        if is_operator(request, context) {
            return Ok(Vec::new());
        }
        let mesh = validated.control_plane();
        let question = Question {
            verb: "use",
            group: GROUP,
            resource: "servicemeshcontrolplanes",
            namespace: Some(mesh.namespace.clone()),
            name: Some(mesh.name.clone()),
        };
        let place = format!("{}/{}", mesh.namespace, mesh.name);
        require(request, answers, vec![question], |_| {
            format!(
                "joining the mesh {place} needs the right to use that ServiceMeshControlPlane: ask its owner for the role \
                 mesh-user in {}",
                mesh.namespace
            )
        })?;
        Ok(Vec::new())
    })
}

/// What is common: objects that go or whose spec stays are not judged; warnings on success, one message on failure.
fn review(request: &Request, judge: impl FnOnce(&Request) -> Result<Vec<String>, Halt>) -> Step {
    if request.is_being_deleted() {
        return Step::Done(request.allow("deleted"));
    }
    if request.leaves_spec() {
        return Step::Done(request.allow("spec_unchanged"));
    }
    Step::Done(match judge(request) {
        Ok(warnings) => request.allow("valid").warn(warnings),
        Err(Halt::Invalid(errors)) => request.refuse(400, errors.to_string(), "invalid"),
        Err(Halt::Invalids(errors)) => {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            request.refuse(400, lines.join("\n"), "invalid")
        }
        Err(Halt::Shape(message)) => request.refuse(400, message, "invalid"),
        Err(Halt::Forbidden(Forbidden(message))) => request.refuse(403, message, "forbidden"),
        Err(Halt::Ask(questions)) => return Step::Ask(questions),
    })
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Halt> {
    serde_json::from_value(object.clone()).map_err(|error| Halt::Shape(format!("the object cannot be read: {error}")))
}

fn is_operator(request: &Request, context: &OperatorContext) -> bool {
    request.user_info.username.as_ref() == Some(&context.operator_user)
}

fn require(
    request: &Request,
    answers: &Answers,
    questions: Vec<Question>,
    sentence: impl Fn(&Question) -> String,
) -> Result<(), Halt> {
    let open: Vec<_> = questions
        .iter()
        .filter(|question| !answers.contains_key(*question))
        .cloned()
        .collect();
    if !open.is_empty() {
        return Err(Halt::Ask(open));
    }
    let user = request.user_info.username.as_deref().unwrap_or("the user");
    let denied: Vec<_> = questions
        .iter()
        .filter(|question| answers.get(*question) != Some(&true))
        .map(|question| format!("{user} may not: {}", sentence(question)))
        .collect();
    if denied.is_empty() {
        Ok(())
    } else {
        Err(Halt::Forbidden(Forbidden(denied.join("\n"))))
    }
}

/// What the user must be allowed: everything new.
fn roll_questions(request: &Request, roll: &ValidatedRoll, operator_namespace: &str) -> Vec<Question> {
    let update_pods = |namespace| Question {
        verb: "update",
        group: "",
        resource: "pods",
        namespace,
        name: None,
    };
    let old = read::<ServiceMeshMemberRoll>(&request.old_object)
        .ok()
        .and_then(|old| ValidatedRoll::check(&old, operator_namespace).ok());
    match roll.members() {
        Members::Named(names) => {
            let known = match old.as_ref().map(ValidatedRoll::members) {
                Some(Members::Named(known)) => known.clone(),
                // Whoever could write `*` was asked about every namespace.
                Some(Members::All) => return Vec::new(),
                _ => BTreeSet::new(),
            };
            names
                .difference(&known)
                .map(|name| update_pods(Some(name.clone())))
                .collect()
        }
        Members::All => match old.as_ref().map(ValidatedRoll::members) {
            Some(Members::All) => Vec::new(),
            _ => vec![update_pods(None)],
        },
        Members::Selected(_) => vec![update_pods(None)],
    }
}

/// Names that another roll has.
fn overlaps(request: &Request, roll: &ValidatedRoll, context: &OperatorContext) -> Vec<SpecError> {
    let Members::Named(names) = roll.members() else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    for other in &context.rolls {
        let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
        if namespace == request.namespace {
            continue;
        }
        for name in other.spec.members.iter().flatten().filter(|name| names.contains(*name)) {
            errors.push(SpecError {
                object: format!("ServiceMeshMemberRoll {}/default", request.namespace),
                field: format!("spec.members ({name})"),
                problem: Problem::Conflict {
                    other: format!("ServiceMeshMemberRoll {namespace}/default"),
                    why: "a namespace is a member of one mesh at most",
                },
            });
        }
    }
    errors
}

#[cfg(test)]
mod tests;
