use super::*;

fn columns(text: &str) -> Vec<String> {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{error}"));
    expression
        .columns()
        .map(|name| name.as_str().to_owned())
        .collect()
}
#[test]
fn x() {
    assert_eq!(columns("a + t.b"), ["a", "b"]);
}
