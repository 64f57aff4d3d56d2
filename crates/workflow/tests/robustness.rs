//! Whatever the bytes, the answer is a workflow or problems with places: no panic, no overflow, no unbounded work.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use fleet_workflow::parse;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::{collection, prop_assert, sample};

/// No document within the size limit may take longer, even in a debug build on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Parses and checks what must hold of every answer.
fn judge(bytes: &[u8]) -> Result<(), String> {
    let lines = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    match parse(bytes) {
        Ok(parsed) => {
            let again = parse(parsed.workflow.source.to_string().as_bytes());
            match again {
                Ok(again) if again.workflow.source == parsed.workflow.source => Ok(()),
                other => Err(format!("accepted, but not its JSON: {other:?}")),
            }
        }
        Err(problems) if problems.is_empty() => Err("refused without a problem".to_owned()),
        Err(problems) => {
            let lost = problems.iter().find(|problem| {
                let line = usize::try_from(problem.line).unwrap_or(usize::MAX);
                line == 0 || line > lines + 1 || problem.column == 0 || problem.message.is_empty()
            });
            lost.map_or(Ok(()), |problem| Err(format!("a problem without a place: {problem:?}")))
        }
    }
}

fn documents() -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["tests/documents", "../../docs/examples"] {
        paths.extend(fs::read_dir(here.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("a readable document")).collect()
}

/// Pieces that both readers find interesting.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "'",
        "\n",
        "\t",
        "  ",
        "- ",
        "? ",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "|\n",
        ">-\n",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\\u",
        "\\ud800",
        "<<",
        "null",
        "true",
        "1e9",
        "-0",
        "0x1f",
        ".inf",
        "do",
        "document",
        "set",
        "for",
        "try",
        "catch",
        "${",
        "}",
        "then",
        "\u{feff}",
        "\u{0}",
        "é",
        "\u{2028}",
        "\r",
    ]);
    prop_oneof![
        4 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => collection::vec(any::<u8>(), 0..4),
        1 => Just(b"key: value\n".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in collection::vec(any::<u8>(), 0..200)) {
        let verdict = judge(&bytes);
        prop_assert!(verdict.is_ok(), "{:?}", verdict);
    }

    #[test]
    fn random_pieces_never_panic(pieces in collection::vec(piece(), 0..60)) {
        let verdict = judge(&pieces.concat());
        prop_assert!(verdict.is_ok(), "{:?}", verdict);
    }

    #[test]
    fn mutated_documents_never_panic(
        document in sample::select(documents()),
        edits in collection::vec((any::<sample::Index>(), 0_usize..12, piece()), 1..6),
    ) {
        let mut bytes = document;
        for (place, removed, inserted) in edits {
            let start = place.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted);
        }
        let verdict = judge(&bytes);
        prop_assert!(verdict.is_ok(), "{:?}", verdict);
    }
}

fn many_targets() -> String {
    let head = "document: {dsl: 1.0.3, namespace: n, name: w, version: 1.0.0}\ndo:\n";
    (0..20_000).fold(head.to_owned(), |text, number| text + &format!("- t{number}: {{wait: PT1S, then: u{number}}}\n"))
}

#[test]
fn hostile_documents_are_refused_in_bounded_time() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let below = format!("*a{}", level - 1);
        writeln!(bomb, "a{level}: &a{level} [{}]", [below.as_str(); 9].join(", ")).expect("written to a string");
    }
    let mut long_texts = format!("a: &a \"{}\"\nb:\n", "x".repeat(500_000));
    long_texts.push_str(&"- *a\n".repeat(1000));
    let mut nested_anchors = String::from("a: ");
    (0..90).for_each(|level| write!(nested_anchors, "&b{level} [").expect("written to a string"));
    nested_anchors.push_str(&"x, ".repeat(50_000));
    nested_anchors.push_str(&"]".repeat(90));
    let many_keys: String = (0..60_000).map(|number| format!("k{number}: 1\n")).collect();
    let cases = [
        ("an alias bomb", bomb, "more than 200000 values"),
        ("long texts by alias", long_texts, "more than 4194304 bytes"),
        ("anchors in anchors", nested_anchors, "more than 200000 values"),
        ("deep JSON", "[".repeat(500_000) + &"]".repeat(500_000), "nested deeper than 100"),
        ("deep JSON, not ended", "[".repeat(1_000_000), "EOF while parsing a list"),
        ("deep JSON objects", "{\"a\":".repeat(120_000) + "1" + &"}".repeat(120_000), "nested deeper than 100"),
        ("JSON too deep for the lenient reader", "[".repeat(500) + &"]".repeat(500), "nested deeper than 100"),
        ("JSON just too deep", "[".repeat(101) + &"]".repeat(101), "nested deeper than 100"),
        ("deep YAML in flow style", format!("a: {}", "[".repeat(500_000)), "recursion limit"),
        ("deep YAML in flow style, objects", format!("a: {}", "{a: ".repeat(200_000)), ""),
        ("deep YAML in block style", "- ".repeat(400_000), "nested deeper than 100"),
        ("deep YAML keys", "? ".repeat(400_000), ""),
        ("many keys", many_keys, "unknown key `k0`"),
        ("many quotes", "\"".repeat(1_000_000), ""),
        ("many colons", "a: ".repeat(300_000), ""),
        ("a long line", format!("a: {}", "x".repeat(1_000_000)), "unknown key `a`"),
        ("many expressions", format!("x: [{}]", "\"${ .a + 1 }\", ".repeat(40_000)), "unknown key `x`"),
        ("many tasks with bad targets", many_targets(), "more problems are not listed"),
        ("many documents", "---\n".repeat(200_000), "here begins another"),
        ("many tags", "!a ".repeat(300_000), ""),
        ("many anchors", (0..60_000).map(|number| format!("- &a{number} x\n")).collect(), "not an array"),
        ("too long", "x".repeat((1 << 20) + 1), "more than the limit of 1048576"),
    ];
    for (what, document, expected) in cases {
        let (send, receive) = sync_channel(1);
        let reader =
            thread::Builder::new().stack_size(1 << 20).spawn(move || send.send(parse(document.as_bytes()).map(drop)));
        let verdict = receive.recv_timeout(TIME_LIMIT).unwrap_or_else(|error| panic!("{what}: {error}"));
        reader.expect("a thread").join().expect("no overflow").expect("received");
        let problems = verdict.expect_err(what);
        let fits = |message: &str| message.contains(expected);
        assert!(problems.iter().any(|problem| fits(&problem.message)), "{what}: {:?}", problems.first());
        assert!(problems.len() <= 1001, "{what}: {} problems", problems.len());
    }
}

#[test]
fn the_deepest_document_allowed_is_read_on_a_small_stack() {
    let head = "{\"document\":{\"dsl\":\"1.0.3\",\"namespace\":\"n\",\"name\":\"w\",\"version\":\"1.0.0\"},\"do\":";
    let levels = 32; // three levels of the tree each
    let document = format!("{head}{}[]{}}}", "[{\"a\":{\"do\":".repeat(levels), "}}]".repeat(levels));
    let reader = thread::Builder::new().stack_size(1 << 20).spawn(move || parse(document.as_bytes()).map(drop));
    let verdict = reader.expect("a thread").join().expect("no overflow");
    assert_eq!(verdict, Ok(()));
}
