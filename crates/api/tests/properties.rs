//! Properties over arbitrary input: nothing is lost on the wire, and nothing that comes from outside panics.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use fleet_api::status::{error_of, status_of};
use fleet_api::{CertificateFacts, CertificateName, Credential};
use fleet_core::{Error, ErrorKind};
use proptest::option;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use rustls_pki_types::CertificateDer;
use tonic::Status;

fn kinds() -> impl Strategy<Value = ErrorKind> {
    prop::sample::select(ErrorKind::ALL.to_vec())
}

/// A certificate of a node, made anew for each use.
fn certificate() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = "fleet://01890000-0000-7000-8000-000000000000/node/01890000-0000-7000-8000-000000000001";
    params.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().unwrap())];
    params.self_signed(&key).unwrap().der().to_vec()
}

proptest! {
    #[test]
    fn errors_come_back_from_the_wire_as_they_went(
        kind in kinds(),
        message in ".{1,400}",
        next_step in option::of(".{0,200}"),
        delay_ms in option::of(any::<u64>()),
        leader in option::of("[a-z0-9.:-]{1,60}"),
    ) {
        let mut error = Error::new(kind, message.clone());
        error.next_step = next_step.clone();
        error.retry_after = delay_ms.map(Duration::from_millis);
        error.leader_hint = leader.clone();
        let headers = status_of(&error).into_http::<()>().into_parts().0.headers;
        let back = error_of(&Status::from_header_map(&headers).unwrap());
        prop_assert_eq!(back.kind, kind);
        prop_assert_eq!(back.message, message);
        prop_assert_eq!(back.next_step, next_step);
        prop_assert_eq!(back.retry_after, delay_ms.map(Duration::from_millis));
        prop_assert_eq!(back.leader_hint, leader);
    }

    #[test]
    fn foreign_statuses_become_errors(code in any::<i32>(), message in ".{0,100}", word in ".{0,40}") {
        let mut status = Status::new(tonic::Code::from_i32(code), message);
        if let Ok(value) = word.parse() {
            status.metadata_mut().insert("fleet-kind", value);
        }
        prop_assert!(!error_of(&status).message.is_empty());
    }

    #[test]
    fn arbitrary_bytes_are_no_certificate(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(CertificateFacts::read(&CertificateDer::from(bytes)).is_err());
    }

    #[test]
    fn a_damaged_certificate_is_read_or_refused(position in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = certificate();
        prop_assert!(CertificateFacts::read(&CertificateDer::from(bytes.clone())).is_ok());
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        // Reading is not verifying: what counts is that it ends without a panic.
        let _ = CertificateFacts::read(&CertificateDer::from(bytes));
    }

    #[test]
    fn arbitrary_text_is_no_name_and_no_credential(text in ".{0,200}") {
        prop_assert!(text.parse::<CertificateName>().is_err());
        prop_assert!(Credential::parse(&text).is_err());
    }
}
