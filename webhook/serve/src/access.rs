//! May this user do that? Asked of the API server.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use mizzen_review::{Answers, Question};

/// All questions of a review together: the API server gives the webhook 5 s, and a reason is better than a broken connection.
const LIMIT: Duration = Duration::from_secs(3);

/// Answers questions about `user`.
pub(crate) async fn ask(client: &Client, user: &UserInfo, questions: Vec<Question>) -> Result<Answers, String> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let count = questions.len();
    let asked = questions.into_iter().map(|question| {
        let api = api.clone();
        async move {
            let review = review(user, &question);
            let answer = api
                .create(&PostParams::default(), &review)
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((question, answer.status.is_some_and(|status| status.allowed)))
        }
    });
    match tokio::time::timeout(LIMIT, try_join_all(asked)).await {
        Ok(Ok(answers)) => Ok(answers.into_iter().collect()),
        Ok(Err(error)) => Err(format!("the API server cannot be asked what the user may do: {error}")),
        Err(_) => Err(format!(
            "the API server did not say within 3 s what the user may do ({count} questions): add fewer namespaces at a time"
        )),
    }
}

fn review(user: &UserInfo, question: &Question) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username.clone(),
            groups: user.groups.clone(),
            uid: user.uid.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(question.verb.to_owned()),
                group: Some(question.group.to_owned()),
                resource: Some(question.resource.to_owned()),
                namespace: question.namespace.clone(),
                name: question.name.clone(),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
