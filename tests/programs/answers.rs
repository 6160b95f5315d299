//! What a program makes of the answers to `/job/1` to `/job/COUNT`: it prints a
//! line with status and number for each, and writes the body into a file named
//! by the number.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every request was answered 200, each with the answer to itself.
pub(crate) fn check(printed: &str, workplace: &Path, requests: usize) {
    let answers: BTreeSet<String> = printed.lines().map(str::to_owned).collect();
    let expected: BTreeSet<String> = (1..=requests)
        .map(|number| format!("200 {number}"))
        .collect();
    let missing: Vec<_> = expected.difference(&answers).collect();
    let others: Vec<_> = answers.difference(&expected).collect();
    assert!(
        missing.is_empty() && others.is_empty(),
        "without an answer: {missing:?}, with another: {others:?}"
    );
    for number in 1..=requests {
        let body = fs::read_to_string(workplace.join(number.to_string())).unwrap();
        assert_eq!(
            body,
            format!("/job/{number}"),
            "an answer to another request"
        );
    }
}
