//! Identifiers: one newtype per kind of thing, so that one can never be taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh time-ordered id (UUIDv7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The sixteen bytes of the id, big-endian.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id made of these sixteen bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The id in `bytes`, or `None` if there are not exactly sixteen.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype!(
    /// One `fleetd` with one data directory, minted when the directory is founded. Also the voter id in its site's group.
    NodeId
);
uuid_newtype!(
    /// All nodes that share one trust root.
    FleetId
);
uuid_newtype!(
    /// One execution of a workflow. Minted by the client before its first try (UUIDv7), or hashed from an idempotency key.
    JobId
);
uuid_newtype!(
    /// The voters that agree on one site's log. Minted by the node that founds the site.
    GroupId
);

impl JobId {
    /// The id every entry path derives for `idempotency_key` in (`site`, `namespace`): the first sixteen bytes of a
    /// SHA-256, marked as a UUIDv8 (RFC 9562 §5.8).
    pub fn from_idempotency_key(site: &SiteName, namespace: &str, idempotency_key: &str) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in [site.as_str(), namespace, idempotency_key] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// A SHA-256 of some content: the name of a blob or a definition.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content).as_ref());
        Self(bytes)
    }

    /// The digest in `bytes`, or `None` if there are not exactly thirty-two.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The name of a site: a DNS label (RFC 1123), 1 to 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteName(String);

impl SiteName {
    /// The site a node belongs to when nobody said otherwise.
    pub const DEFAULT: &'static str = "default";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SiteName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SiteName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for SiteName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_dns_label(&text) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not a site name: use 1 to 63 of a-z, 0-9 and -, not starting or ending with -"))
        }
    }
}

impl From<SiteName> for String {
    fn from(name: SiteName) -> Self {
        name.0
    }
}

/// Whether `text` is a DNS label: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last character a `-` (RFC 1123 §2.1).
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_idempotency_key_gives_the_same_job_id() {
        let site = SiteName::default();
        let one = JobId::from_idempotency_key(&site, "orders", "42");
        assert_eq!(one, JobId::from_idempotency_key(&site, "orders", "42"));
        assert_ne!(one, JobId::from_idempotency_key(&site, "order", "s42"), "parts must not run into each other");
        assert_eq!(one.0.get_version_num(), 8);
    }

    #[test]
    fn site_names_are_dns_labels() {
        for good in ["a", "plant-7", "0"] {
            assert_eq!(good.parse::<SiteName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "Plant", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad:?} must be refused");
        }
    }
}
