//! Expressions that would not end, or would take the process with them: each ends, with the same error every time.

use fleet_workflow::expr::{Program, Val, begin_event};
use serde_json::json;

fn run(text: &str) -> Result<serde_json::Value, String> {
    begin_event();
    let program = Program::compile(text, &["input"])?;
    program.evaluate(&Val::from(json!({"a": [1, 2, 3]})), &|_| Val::Null, 0).map(|value| value.to_json())
}

fn comma(count: usize) -> String {
    vec!["(.,.)"; count].join(" | ")
}

#[test]
fn what_does_not_end_ends_with_the_same_error() {
    let nested = |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    let table: Vec<(String, &str)> = vec![
        ("def f: f; f".into(), "calls itself"),
        ("def f: 1 + f; f".into(), "calls itself"),
        ("[repeat(.)]".into(), "steps"),
        ("last(repeat(.))".into(), "steps"),
        ("repeat(empty)".into(), "steps"),
        ("first(repeat(.) | empty)".into(), "steps"),
        ("try first(repeat(.) | empty) catch 1".into(), "steps"),
        ("(first(repeat(.) | empty))? // 2".into(), "steps"),
        ("[range(1e9)]".into(), "steps"),
        ("last(range(1e18))".into(), "steps"),
        ("[range(0; 1; 0)]".into(), "steps"),
        ("reduce range(infinite) as $x (0; . + 1)".into(), "steps"),
        ("until(false; .)".into(), "steps"),
        ("[while(true; .)]".into(), "steps"),
        ("[recurse(.)]".into(), "steps"),
        ("any(repeat(1); . == 2)".into(), "steps"),
        ("isempty(repeat(empty))".into(), "steps"),
        ("[limit(1e12; repeat(1))]".into(), "steps"),
        ("nth(1e12; repeat(1))".into(), "steps"),
        ("label $f | foreach repeat(1) as $x (0; . + $x; empty)".into(), "steps"),
        ("\"x\" * 1e9".into(), "larger than"),
        ("reduce range(60) as $i (\"x\"; . + .)".into(), "than"),
        ("reduce range(60) as $i ([1]; . + .)".into(), "than"),
        ("reduce range(60) as $i (1; [., .])".into(), "larger than"),
        ("reduce range(90) as $i (1; {a: ., b: .})".into(), "larger than"),
        ("reduce range(1000) as $i (1; [.])".into(), "nested deeper"),
        ("reduce range(1000000) as $i (null; {a: .})".into(), "nested deeper"),
        ("last(range(100000) as $i | [range(1000)])".into(), "steps"),
        (".a[1e15] = 1".into(), "than"),
        ("null | .[1e15] = 1".into(), "than"),
        (format!("[{}]", comma(60)), "steps"),
        (format!("[{} | empty]", comma(60)), "steps"),
        (format!("[{} | .[]?]", comma(60)), "steps"),
        (format!("[{} | .x.y.z?]", comma(60)), "steps"),
        (format!("isempty({} | select(false))", comma(60)), "steps"),
        (format!("({} | 1 == 2) // 1", comma(60)), "steps"),
        (format!("[null | .{}]", "[(0,0)]?".repeat(60)), "steps"),
        (format!("last({})", vec!["((1,2) == (1,2))"; 40].join(" and ")), "steps"),
        (format!("[{}]", vec!["(1,2)"; 60].join(" + ")), "steps"),
        (format!("[{{{}}}]", (0..60).map(|i| format!("k{i}: (1,2)")).collect::<Vec<_>>().join(", ")), "steps"),
        (format!("\"{}\" | empty", "\\((1,2))".repeat(60)), "steps"),
        (format!("{} |= .", comma(60)), ""),
        ("path(repeat(.a))".into(), ""),
        ("[path(recurse(.x))]".into(), "path is longer"),
        ("getpath([range(100000) | \"a\"])".into(), ""),
        ("null | path(getpath([range(100000) | \"a\"]))".into(), "path is longer"),
        ("recurse(.) |= .".into(), "updates are nested"),
        ("repeat(.) |= .".into(), "updates are nested"),
        ("(.a | while(true; .)) = 1".into(), "updates are nested"),
        ("until(false; .) |= 1".into(), "updates are nested"),
        (
            "[..] | [.[] | ..] | [.[] | ..] | [.[] | ..] | [.[] | ..] | reduce range(20) as $i (.; [.[] | ..])".into(),
            "",
        ),
        (nested("(", ")", 4000), "nested deeper"),
        (nested("[", "]", 4000), "nested deeper"),
        (nested("-", "", 8000), "nested deeper"),
        (nested("try ", "", 3000), "nested deeper"),
        (vec!["."; 7000].join("|"), "nested deeper"),
        (vec!["."; 5000].join("//"), "nested deeper"),
        (vec!["1"; 5000].join("+"), "nested deeper"),
        (vec!["1"; 5000].join(","), "nested deeper"),
        (".a".repeat(8000), ""),
        ("x".repeat(20_000), "longer than"),
        ("\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" | test(\"(a+)+$b\")".into(), ""),
        ("(\"a\" * 1000000) | test(\"(a*)*b\")".into(), ""),
        ("\"a\" | test(\"((a{1000}){1000}){1000}\")".into(), "invalid regular expression"),
        ("(\"[\" * 100000) | fromjson".into(), "cannot parse"),
        ("reduce range(300000) as $i ({}; .[$i | tostring] = $i)".into(), "steps"),
        ("[combinations(100)]".into(), ""),
        ("[1, 2] | combinations(60)".into(), ""),
        ("[[1, 2] | combinations(60)]".into(), ""),
        ("reduce range(30) as $i (1; [., .]) | tojson".into(), "larger than"),
        ("reduce range(20) as $i (1; [., .]) | . == (reduce range(20) as $i (1; [., .]))".into(), ""),
        ("[range(100000)] | [.[] as $x | .[] as $y | 1]".into(), "steps"),
        ("[range(100000)] | map(tostring) | join(\",\") | length".into(), ""),
        ("def a: 1 + 1; def b: a + a; def c: b + b; def d: c + c; def e: d + d; e".into(), ""),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let shown: String = text.chars().take(60).collect();
        let first = run(&text);
        let second = run(&text);
        assert_eq!(first, second, "{shown}: not the same twice");
        if !expected.is_empty() {
            match first {
                Err(error) if error.contains(expected) => {}
                other => wrong.push(format!("{shown}: {}", format!("{other:?}").chars().take(200).collect::<String>())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
