//! Join tokens as text: `fleet1.` and the base64url of what a joiner must know. What the group remembers of a token, and
//! whether it can still be used, is in the group's log.
//!
//! Invariants: a token is shown once and its secret never printed by `Debug`; a mistyped token is told from a wrong one
//! by its check bytes.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleet_core::{Digest, Error, ErrorKind, GroupId};
use fleet_store::record::TokenId;
use zeroize::Zeroizing;

/// Prefix of every token, and the version of its format.
const PREFIX: &str = "fleet1.";
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
const BYTES: usize = 32 + 16 + 8 + SECRET_BYTES + CHECK_BYTES;

/// What a joiner needs.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the fleet's root certificate.
    pub root: Digest,
    /// The group that issued the token and redeems it.
    pub group: GroupId,
    /// The token's id there.
    pub id: TokenId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl JoinToken {
    /// A new token of `group` in the fleet whose root has the digest `root`.
    pub fn generate(root: Digest, group: GroupId) -> Result<Self, Error> {
        let failed = |source: aws_lc_rs::error::Unspecified| {
            Error::new(ErrorKind::Internal, "draw the secret of a token").with_source(source)
        };
        let mut id = [0; 8];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        aws_lc_rs::rand::fill(&mut id).map_err(failed)?;
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(failed)?;
        Ok(Self { root, group, id: TokenId(u64::from_be_bytes(id)), secret })
    }

    /// SHA-256 of the secret: all that the group keeps of it.
    pub fn secret_digest(&self) -> Digest {
        Digest::of(self.secret.as_slice())
    }

    /// The token as text, with its secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(self.group.as_bytes());
        bytes.extend_from_slice(&self.id.0.to_be_bytes());
        bytes.extend_from_slice(self.secret.as_slice());
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("root", &self.root)
            .field("group", &self.group)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(match text.split_once('.') {
                Some((version, _)) if version.starts_with("fleet") => {
                    Error::new(ErrorKind::Unsupported, format!("token format `{version}` is not known to this version"))
                        .with_next_step("Use the same version of fleetd as the fleet.")
                }
                _ => malformed("it does not begin with `fleet1.`"),
            });
        };
        if let Some(position) = encoded.bytes().position(|byte| !is_base64url(byte)) {
            return Err(malformed(&format!("character {} is not of its alphabet", PREFIX.len() + position + 1)));
        }
        let length = encoded.len();
        let expected = (BYTES * 8).div_ceil(6);
        if length != expected {
            let verdict = if length < expected { "cut off" } else { "too long" };
            return Err(malformed(&format!("it is {verdict}: {length} characters after the prefix, not {expected}")));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|source| malformed("it is mistyped").with_source(source))?;
        read(&bytes)
    }
}

fn read(bytes: &[u8]) -> Result<JoinToken, Error> {
    let wrong_length = || malformed("it has the wrong length");
    let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or_else(wrong_length)?;
    if check_of(content) != *check {
        return Err(malformed("its check bytes do not fit: a character is mistyped"));
    }
    let (root, rest) = content.split_first_chunk::<32>().ok_or_else(wrong_length)?;
    let (group, rest) = rest.split_first_chunk::<16>().ok_or_else(wrong_length)?;
    let (id, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong_length)?;
    let secret = <[u8; SECRET_BYTES]>::try_from(rest).map_err(|_| wrong_length())?;
    Ok(JoinToken {
        root: Digest(*root),
        group: GroupId::from_bytes(*group),
        id: TokenId(u64::from_be_bytes(*id)),
        secret: Zeroizing::new(secret),
    })
}

fn check_of(content: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = Digest::of(content).0;
    [a, b, c, d]
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the join token cannot be read: {what}"))
        .with_next_step("Copy it again, or make another with `fleetctl token create`.")
}
