//! The key that signs changes (TSIG, RFC 8945): its name, its algorithm, and by reference its secret.

use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use schemars::JsonSchema;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::record::name;
use crate::engine::step::StepError;
use crate::hook::message::printable;
use crate::playbook::model::Template;
use crate::playbook::reference::{Piece, Resolver};

/// How far the clocks of both ends may differ, in seconds: what RFC 8945 recommends.
const FUDGE: u16 = 300;

/// How changes are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC-SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC-SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC-SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

/// The key of the one who may change the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyArguments {
    /// Its name, as the name server knows it.
    pub name: String,
    /// Its algorithm. Default `hmac-sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Its secret in base64, by reference only.
    pub secret: Template,
}

impl KeyArguments {
    /// What can be seen without the secret.
    ///
    /// # Errors
    /// Names the argument, never the secret.
    pub(super) fn check(&self, prefix: &str) -> Result<(), StepError> {
        if name(&self.name).is_none() {
            return Err(StepError::definite(format!("`{prefix}key.name`: `{}` can't be the name of a key", printable(&self.name)))
                .hint("it is written as host names are"));
        }
        let pieces = self.secret.parse().map_err(|error| StepError::definite(format!("`{prefix}key.secret`: {}", error.message)))?;
        match &pieces[..] {
            [Piece::Reference(_)] => Ok(()),
            _ => Err(StepError::definite(format!("`{prefix}key.secret` is written down; secrets are given by reference only"))
                .hint("write `${env:NAME}`, `${file:PATH}` or `${exec:COMMAND}`; treat the one written down as known to others")),
        }
    }

    /// What signs, with the secret as it is now.
    ///
    /// # Errors
    /// If the reference leads nowhere, or to what is no base64.
    pub(super) async fn signer(&self, resolver: &Resolver) -> Result<TSigner, StepError> {
        self.check("")?;
        let secret: SecretString = self
            .secret
            .resolve_secret(resolver)
            .await
            .map_err(|error| StepError::definite(format!("`key.secret`: {error}; nothing was changed")))?;
        let broken = |what: &str| {
            StepError::definite(format!("what `key.secret` refers to {what}; nothing was changed"))
                .hint("it is what stands behind `secret` in the name server's configuration, without quotes")
        };
        let bytes = data_encoding::BASE64.decode(secret.expose_secret().trim().as_bytes()).map_err(|_| broken("is no base64"))?;
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() {
            return Err(broken("is empty"));
        }
        let algorithm = match self.algorithm.unwrap_or_default() {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        // Checked above.
        let name = name(&self.name).ok_or_else(|| StepError::definite("`key.name` can't be the name of a key"))?;
        TSigner::new(bytes.to_vec(), algorithm, name, FUDGE)
            .map_err(|error| StepError::definite(format!("the key can't be used: {error}; nothing was changed")))
    }
}
