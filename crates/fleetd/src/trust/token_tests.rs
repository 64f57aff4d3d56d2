//! Tests of tokens as text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleet_core::{Digest, ErrorKind, GroupId};

use crate::trust::token::JoinToken;

fn token() -> JoinToken {
    JoinToken::generate(Digest::of(b"root"), GroupId::generate()).unwrap()
}

#[test]
fn a_token_reads_back_as_it_was_written() {
    let token = token();
    let text = token.to_text();
    assert!(text.starts_with("fleet1."));
    let read: JoinToken = text.parse().unwrap();
    assert_eq!(read, token);
    assert_eq!(read.secret_digest(), token.secret_digest());
    assert_eq!(format!("  {}\n", text.as_str()).parse::<JoinToken>().unwrap(), token);
}

#[test]
fn tokens_differ_and_do_not_show_their_secret() {
    let (one, other) = (token(), token());
    assert_ne!(one.id, other.id);
    assert_ne!(one.secret_digest(), other.secret_digest());
    assert!(!format!("{one:?}").contains(&one.to_text()["fleet1.".len() + 75..]));
}

#[test]
fn malformed_tokens_say_what_is_wrong() {
    let good = token().to_text().to_string();
    let body = &good["fleet1.".len()..];
    let other_end = if body.ends_with('A') { "B" } else { "A" };
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "it is empty"),
        ("   \n\t".to_owned(), "it is empty"),
        ("hello".to_owned(), "does not begin with"),
        (body.to_owned(), "does not begin with"),
        (format!("Fleet1.{body}"), "does not begin with"),
        (format!("FLEET1.{body}"), "does not begin with"),
        (format!("token {good}"), "does not begin with"),
        (format!("\"{good}\""), "does not begin with"),
        (format!("fleet1{body}"), "does not begin with"),
        (format!("fleet1:{body}"), "does not begin with"),
        (format!("fleet2.{body}"), "format `fleet2`"),
        (format!("fleet.{body}"), "format `fleet`"),
        ("fleet1.".to_owned(), "cut off"),
        ("fleet1.A".to_owned(), "cut off"),
        (good[..good.len() - 1].to_owned(), "cut off"),
        (good[..good.len() / 2].to_owned(), "cut off"),
        (format!("{good}A"), "too long"),
        (format!("{good}{body}"), "too long"),
        (format!("{good}="), "character 131 is not of its alphabet"),
        (good.replacen("fleet1.", "fleet1. ", 1), "character 8 is not"),
        (format!("fleet1.{}+{}", &body[..10], &body[11..]), "character 18 is not"),
        (format!("fleet1.{}/{}", &body[..10], &body[11..]), "character 18 is not"),
        (format!("fleet1.{}\u{e9}{}", &body[..10], &body[12..]), "character 18 is not"),
        (format!("fleet1.{}\0{}", &body[..10], &body[11..]), "character 18 is not"),
        (swapped(&good, 20), "mistyped"),
        (format!("fleet1.{}{other_end}", &body[..body.len() - 1]), "mistyped"),
        (format!("fleet1.{}", URL_SAFE_NO_PAD.encode([0; 92])), "check bytes"),
        (format!("fleet1.{}", body.to_lowercase()), "mistyped"),
    ];
    assert!(cases.len() >= 20);
    for (text, expected) in cases {
        let refusal = text.parse::<JoinToken>().expect_err(&text);
        assert!(refusal.to_string().contains(expected), "{text:?}: {refusal}");
        assert!(matches!(refusal.kind, ErrorKind::InvalidInput | ErrorKind::Unsupported), "{text:?}");
        assert!(refusal.next_step.is_some(), "{text:?}");
    }
}

/// `text` with the first two different neighbours from `from` on exchanged.
fn swapped(text: &str, from: usize) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = (from..characters.len() - 1).find(|at| characters[*at] != characters[at + 1]).unwrap();
    characters.swap(at, at + 1);
    characters.into_iter().collect()
}
