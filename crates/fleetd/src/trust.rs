//! Who belongs to the fleet: its root and the certificates under it, join tokens, the joiner's side of joining, the
//! sealing of the root key, and the verification of clients. Sockets are elsewhere (`listener`), and so is what the
//! group remembers of tokens and certificates (its log).
//!
//! Invariants: nothing is issued without proof that the asker holds the key; a certificate begins to be valid when its
//! root did, so that clocks that differ do not matter; secrets are sent only to who proved to belong to the fleet meant.

pub mod authority;
pub mod custody;
pub mod joining;
pub mod keeper;
pub mod node_key;
pub mod renewal;
pub mod revoked;
pub mod rotation;
pub mod sealing;
pub mod site_key;
pub mod token;
pub mod verification;
pub mod vouching;

#[cfg(test)]
mod authority_tests;
#[cfg(test)]
mod site_tests;
#[cfg(test)]
mod token_tests;
