//! How records become bytes: one version byte, then postcard. Keys are not records; see `key`.
//!
//! A record's shape is frozen once released. A new shape takes a new version and a `migrate` that reads the old ones;
//! postcard is not self-describing, so even an added field is a new version.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A value that can be stored.
pub trait Record: Serialize + DeserializeOwned {
    /// What the record is called in errors.
    const NAME: &'static str;
    /// Version of the shape that is written, from 1.
    const VERSION: u8 = 1;

    /// Reads `body`, written by an older `version` of this record.
    fn migrate(version: u8, body: &[u8]) -> Result<Self, Error> {
        let _ = body;
        Err(Error::corrupt(Self::NAME, format!("version {version} is not known")))
    }
}

/// Index rows carry nothing besides their key.
impl Record for () {
    const NAME: &'static str = "index row";
}

/// `record` as stored bytes.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>, Error> {
    postcard::to_extend(record, vec![R::VERSION]).map_err(|error| Error::corrupt(R::NAME, error.to_string()))
}

/// The record in `bytes`, of any version this program knows.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, Error> {
    let Some((&version, body)) = bytes.split_first() else {
        return Err(Error::corrupt(R::NAME, "no version byte"));
    };
    if version != R::VERSION {
        return R::migrate(version, body);
    }
    match postcard::take_from_bytes(body) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(Error::corrupt(R::NAME, format!("{} bytes too many", rest.len()))),
        Err(error) => Err(Error::corrupt(R::NAME, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Grown {
        name: String,
        count: u32,
    }

    impl Record for Grown {
        const NAME: &'static str = "grown";
        const VERSION: u8 = 2;

        fn migrate(version: u8, body: &[u8]) -> Result<Self, Error> {
            match version {
                1 => postcard::from_bytes(body)
                    .map(|name| Self { name, count: 0 })
                    .map_err(|error| Error::corrupt(Self::NAME, error.to_string())),
                _ => Err(Error::corrupt(Self::NAME, format!("version {version} is not known"))),
            }
        }
    }

    #[test]
    fn records_survive_the_round_trip() {
        let record = Grown { name: "a".to_owned(), count: 7 };
        assert_eq!(decode::<Grown>(&encode(&record).unwrap()).unwrap(), record);
    }

    #[test]
    fn old_versions_are_migrated_and_unknown_ones_refused() {
        let mut old = vec![1];
        old.extend(postcard::to_allocvec("a").unwrap());
        assert_eq!(decode::<Grown>(&old).unwrap(), Grown { name: "a".to_owned(), count: 0 });
        old[0] = 3;
        assert_eq!(decode::<Grown>(&old).unwrap_err().to_string(), "decode grown: version 3 is not known");
    }

    #[test]
    fn damage_is_told_from_content() {
        let mut bytes = encode(&Grown { name: "a".to_owned(), count: 7 }).unwrap();
        bytes.push(0);
        assert!(decode::<Grown>(&bytes).unwrap_err().to_string().contains("1 bytes too many"));
        assert!(decode::<Grown>(&[]).is_err());
    }
}
