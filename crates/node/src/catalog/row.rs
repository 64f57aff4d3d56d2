//! One row of the catalog on its own: its digests, what makes it acceptable, and workflow files deflated and back.

use fleet_core::limits::{CATALOG_ENTRY_BYTES_MAX, WORKFLOW_FILE_BYTES_MAX};
use fleet_core::{Digest, Error, ErrorKind, SiteName};
use fleet_store::codec::encode;
use fleet_store::record::{CatalogContent, CatalogEntry, CatalogKey, Payload, SignedBy};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// A key and its entry.
pub(super) type Row = (CatalogKey, CatalogEntry);

/// How hard to deflate: beyond this it takes much longer and saves little.
const DEFLATE_LEVEL: u8 = 6;
/// Most bytes of files, inflated, in the rows of one message.
pub(super) const FILES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest part of a key that is text, bytes.
const KEY_TEXT_BYTES_MAX: usize = 255;
/// Most nodes of which it is known how much they wrote, and which an acknowledgement may name.
pub(super) const NODES_MAX: usize = 10_000;

/// Proves who vouches for an entry.
pub trait Signatures: Send + Sync + 'static {
    /// Whether `signed_by` is a signature over `bytes` of somebody who may speak for `site`.
    fn is_valid(&self, signed_by: &SignedBy, site: &SiteName, bytes: &[u8]) -> bool;
}

/// Believes no signature: a copy with it takes only what needs none.
#[derive(Clone, Copy, Debug)]
pub struct NoSignatures;

impl Signatures for NoSignatures {
    fn is_valid(&self, _: &SignedBy, _: &SiteName, _: &[u8]) -> bool {
        false
    }
}

/// What a signature of an entry under `key` covers. Not its stamp: what is vouched for holds whoever passes it on, and when.
pub fn signed_bytes(key: &CatalogKey) -> Vec<u8> {
    let mut bytes = b"fleet catalog 1\0".to_vec();
    bytes.extend(key.to_bytes());
    bytes
}

/// Where `key` falls among all keys. Two keys of a catalog do not meet there by accident.
pub(super) fn hash_of(key: &CatalogKey) -> u64 {
    let digest = Digest::of(&key.to_bytes());
    digest.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What `entry` under `key` adds to a sum, and how many bytes the two take as they travel.
pub(super) fn measure(key: &CatalogKey, entry: &CatalogEntry) -> Result<(u128, usize), Error> {
    let mut bytes = key.to_bytes();
    let encoded = encode(entry)
        .map_err(|source| Error::new(ErrorKind::Internal, "encode an entry of the catalog").with_source(source))?;
    bytes.extend(encoded);
    let digest = Digest::of(&bytes);
    Ok((digest.0.first_chunk().map_or(0, |first| u128::from_be_bytes(*first)), bytes.len()))
}

/// Whether `row`, which came from elsewhere, says what its kind may say.
pub(super) fn is_acceptable((key, entry): &Row, signatures: &dyn Signatures) -> bool {
    match (key, &entry.content) {
        (CatalogKey::Workflow(name), CatalogContent::Workflow { .. } | CatalogContent::Deleted { .. }) => {
            let texts = [&name.namespace, &name.name, &name.version];
            entry.number > 0
                && texts.iter().all(|text| (1..=KEY_TEXT_BYTES_MAX).contains(&text.len()))
                && is_whole(entry)
        }
        (CatalogKey::RevokedNode(site, _) | CatalogKey::RevokedSerial(site, _), CatalogContent::Revocation) => {
            let is_short = !matches!(key, CatalogKey::RevokedSerial(_, serial) if serial.len() > KEY_TEXT_BYTES_MAX);
            // Its number is not signed, so nothing is asked of it.
            is_short && signatures.is_valid(&entry.signed_by, site, &signed_bytes(key))
        }
        (CatalogKey::Acknowledgement(node), CatalogContent::Acknowledgement(seen)) => {
            entry.number == 0 && entry.stamp.node == *node && seen.len() <= NODES_MAX
        }
        _ => false,
    }
}

/// Whether the content of a workflow is what its digest says.
fn is_whole(entry: &CatalogEntry) -> bool {
    match &entry.content {
        CatalogContent::Workflow { digest, file_bytes, deflated } => {
            let file_bytes = *file_bytes as usize;
            // No more is inflated than it says, which is what was counted before, and one byte to see that it is more.
            deflated.as_slice().len() <= CATALOG_ENTRY_BYTES_MAX
                && file_bytes <= WORKFLOW_FILE_BYTES_MAX
                && decompress_to_vec_with_limit(deflated.as_slice(), file_bytes + 1)
                    .is_ok_and(|file| file.len() == file_bytes && Digest::of(&file) == *digest)
        }
        _ => true,
    }
}

/// Bytes of the files that `rows` say they are.
pub(super) fn file_bytes(rows: &[Row]) -> u64 {
    let of_row = |(_, entry): &Row| match &entry.content {
        CatalogContent::Workflow { file_bytes, .. } => u64::from(*file_bytes),
        _ => 0,
    };
    rows.iter().map(of_row).sum()
}

/// The content of an entry for the workflow file `file`.
pub(super) fn workflow(file: &[u8]) -> Result<CatalogContent, Error> {
    let too_large = || {
        let message = format!("a workflow file of the catalog has at most {WORKFLOW_FILE_BYTES_MAX} bytes");
        Error::new(ErrorKind::InvalidInput, message)
    };
    let file_bytes = u32::try_from(file.len()).map_err(|_| too_large())?;
    if file.len() > WORKFLOW_FILE_BYTES_MAX {
        return Err(too_large());
    }
    let deflated = Payload::from(compress_to_vec(file, DEFLATE_LEVEL));
    Ok(CatalogContent::Workflow { digest: Digest::of(file), file_bytes, deflated })
}

/// The workflow file that was deflated.
pub(super) fn inflate(deflated: &Payload) -> Result<Vec<u8>, Error> {
    decompress_to_vec_with_limit(deflated.as_slice(), WORKFLOW_FILE_BYTES_MAX).map_err(|source| {
        Error::new(ErrorKind::Internal, "inflate a workflow of the catalog").with_source(source.to_string())
    })
}
