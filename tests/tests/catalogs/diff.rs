//! Lines that are in one text and not in the other.

use std::fmt::Write as _;

/// The fewest lines to take away (`-`) and to add (`+`) that make one text of the other; `nothing` where they are equal.
pub(crate) fn between(old: &[String], new: &[String]) -> String {
    let common = longest_common(old, new);
    let (mut at, mut to, mut text) = (0, 0, String::new());
    while at < old.len() || to < new.len() {
        if at < old.len() && to < new.len() && old[at] == new[to] {
            (at, to) = (at + 1, to + 1);
        } else if to == new.len() || at < old.len() && common[at + 1][to] >= common[at][to + 1] {
            line(&mut text, '-', &old[at]);
            at += 1;
        } else {
            line(&mut text, '+', &new[to]);
            to += 1;
        }
    }
    if text.is_empty() {
        text.push_str("  nothing\n");
    }
    text
}

fn line(text: &mut String, sign: char, line: &str) {
    writeln!(text, "{sign} {line}").expect("a String takes all that is written");
}

/// How many lines both have in common from each pair of lines on, in order.
fn longest_common(old: &[String], new: &[String]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for at in (0..old.len()).rev() {
        for to in (0..new.len()).rev() {
            common[at][to] = if old[at] == new[to] {
                common[at + 1][to + 1] + 1
            } else {
                common[at + 1][to].max(common[at][to + 1])
            };
        }
    }
    common
}

#[test]
fn a_line_that_changed_goes_and_comes() {
    let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
    assert_eq!(between(&lines("abcd"), &lines("axcde")), "- b\n+ x\n+ e\n");
    assert_eq!(between(&lines("ab"), &lines("ab")), "  nothing\n");
}
