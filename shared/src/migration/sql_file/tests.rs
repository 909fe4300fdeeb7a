use super::*;
#[test]
fn x() {
    parse("f", "select 1").unwrap();
}
