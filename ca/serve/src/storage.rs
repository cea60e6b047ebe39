//! Where the CA lives between restarts: a Secret in the mesh namespace.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mizzen_issue::{CaPem, Issuer, IssuerError};

use crate::ca::CaSettings;

const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const CERT_CHAIN: &str = "cert-chain.pem";
const ROOT_CERT: &str = "root-cert.pem";

/// The type that Istio gives to the secret of a self-signed CA.
const SECRET_TYPE: &str = "istio.io/ca-root";

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The API server refused or did not answer.
    #[error("secret {namespace}/{name} cannot be {action}")]
    Api {
        /// Of the secret.
        namespace: String,
        /// Of the secret.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// A key of the secret is missing.
    #[error("secret {namespace}/{name} has no key {key}: write it, or delete the secret to have a new CA made")]
    KeyMissing {
        /// Of the secret.
        namespace: String,
        /// Of the secret.
        name: String,
        /// The key in the secret.
        key: &'static str,
    },
    /// A key of the secret is not text.
    #[error("secret {namespace}/{name} holds something else than text under {key}")]
    NotText {
        /// Of the secret.
        namespace: String,
        /// Of the secret.
        name: String,
        /// The key in the secret.
        key: &'static str,
    },
    /// What the secret holds is no usable CA. It is not replaced: certificates signed by it may be in use.
    #[error("secret {namespace}/{name} does not hold a usable CA")]
    Unusable {
        /// Of the secret.
        namespace: String,
        /// Of the secret.
        name: String,
        /// Why.
        #[source]
        source: IssuerError,
    },
    /// A new root could not be made.
    #[error("a self-signed root cannot be made")]
    SelfSign(#[source] IssuerError),
    /// No private key could be made.
    #[error("no private key can be made")]
    Key(#[source] rcgen::Error),
}

/// Takes the CA that somebody plugged in, else the one made before, else makes one. Of several replicas that start at once,
/// one creates the secret and the others read it.
pub(crate) async fn load_or_create(
    client: Client,
    namespace: &str,
    settings: &CaSettings,
) -> Result<Issuer, StorageError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    if let Some(plugged_in) = &settings.plugged_in_secret
        && let Some(secret) = read(&secrets, namespace, plugged_in).await?
    {
        tracing::info!(ns = namespace, name = plugged_in, "the CA is the one plugged in");
        return issuer_of(&secret, namespace, plugged_in);
    }
    let name = &settings.secret;
    if let Some(secret) = read(&secrets, namespace, name).await? {
        return issuer_of(&secret, namespace, name);
    }
    let issuer = crate::ca::new_root(settings)?;
    match secrets
        .create(&PostParams::default(), &secret_of(issuer.to_pem(), name))
        .await
    {
        Ok(_) => {
            tracing::info!(ns = namespace, name, "a self-signed root was made");
            Ok(issuer)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let secret = secrets
                .get(name)
                .await
                .map_err(|source| api_error(namespace, name, "read", source))?;
            issuer_of(&secret, namespace, name)
        }
        Err(source) => Err(api_error(namespace, name, "created", source)),
    }
}

async fn read(secrets: &Api<Secret>, namespace: &str, name: &str) -> Result<Option<Secret>, StorageError> {
    secrets
        .get_opt(name)
        .await
        .map_err(|source| api_error(namespace, name, "read", source))
}

fn api_error(namespace: &str, name: &str, action: &'static str, source: kube::Error) -> StorageError {
    StorageError::Api {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        action,
        source: Box::new(source),
    }
}

fn secret_of(pem: &CaPem, name: &str) -> Secret {
    let data = [
        (CA_CERT, &pem.ca_cert),
        (CA_KEY, &pem.ca_key),
        (CERT_CHAIN, &pem.cert_chain),
        (ROOT_CERT, &pem.root_cert),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(
            data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
                .into(),
        ),
        ..Secret::default()
    }
}

fn issuer_of(secret: &Secret, namespace: &str, name: &str) -> Result<Issuer, StorageError> {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let optional = |key: &'static str| match data.get(key) {
        None => Ok(None),
        Some(ByteString(bytes)) => match String::from_utf8(bytes.clone()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StorageError::NotText {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                key,
            }),
        },
    };
    let required = |key: &'static str| {
        optional(key)?.ok_or_else(|| StorageError::KeyMissing {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key,
        })
    };
    let pem = CaPem {
        ca_cert: required(CA_CERT)?,
        ca_key: required(CA_KEY)?,
        cert_chain: optional(CERT_CHAIN)?.unwrap_or_default(),
        root_cert: optional(ROOT_CERT)?.unwrap_or_default(),
    };
    Issuer::from_pem(pem).map_err(|source| StorageError::Unusable {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // E2
    #[test]
    fn a_stored_ca_comes_back_the_same() {
        let issuer = crate::ca::new_root(&CaSettings::default()).unwrap();
        let secret = secret_of(issuer.to_pem(), "some-ca");
        let back = issuer_of(&secret, "mesh", "some-ca").unwrap();
        assert_eq!(back.root_pem(), issuer.root_pem());
        assert_eq!(secret.type_.as_deref(), Some("istio.io/ca-root"));
    }

    // E2
    #[test]
    fn a_damaged_secret_says_where() {
        let issuer = crate::ca::new_root(&CaSettings::default()).unwrap();
        let mut secret = secret_of(issuer.to_pem(), "some-ca");
        let data = secret.data.as_mut().unwrap();
        data.insert(CA_KEY.to_owned(), ByteString(b"no key".to_vec()));
        let error = issuer_of(&secret, "mesh", "some-ca").err().unwrap();
        assert_eq!(error.to_string(), "secret mesh/some-ca does not hold a usable CA");
        secret.data.as_mut().unwrap().remove(CA_KEY);
        let error = issuer_of(&secret, "mesh", "some-ca").err().unwrap();
        assert_eq!(
            error.to_string(),
            "secret mesh/some-ca has no key ca-key.pem: write it, or delete the secret to have a new CA made"
        );
    }
}
