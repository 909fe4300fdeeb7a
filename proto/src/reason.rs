//! Why a connection failed, in words for people: transport libraries wrap the cause in layers of their own names.

use std::error::Error;

/// The innermost cause of an error; what the system says, without its numbers.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
        Some(_) | None => innermost.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Layer(#[source] std::io::Error);

    #[test]
    fn layers_and_numbers_are_left_out() {
        let refused = Layer(std::io::Error::from_raw_os_error(111));
        assert_eq!(reason(&refused), "connection refused");
        let unknown = Layer(std::io::Error::other("no such host"));
        assert_eq!(reason(&unknown), "no such host");
    }
}
