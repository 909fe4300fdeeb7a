//! What every store refuses, checked before anything is sent, so that all of them refuse the same.

use super::{Condition, Error, Transaction, Write};
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The largest value, in bytes; larger things are stored in pieces. etcd takes 1.5 MiB in a whole request.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The most conditions and writes of one transaction. etcd's default limit is 128 of either.
pub const MAX_OPERATIONS: usize = 100;

/// The most bytes of all values of one transaction together. etcd takes 1.5 MiB in a whole request.
pub const MAX_TRANSACTION_BYTES: usize = 1024 * 1024;

/// The longest life of a lease: longer ones are mistakes, and etcd counts in seconds within 64 bits.
const MAX_TTL: Duration = Duration::from_hours(365 * 24);

/// Checks a transaction against the limits.
pub(super) fn check(transaction: &Transaction) -> Result<(), Error> {
    let operations = transaction.conditions.len() + transaction.writes.len();
    if operations > MAX_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "{operations} conditions and writes, at most {MAX_OPERATIONS}"
        )));
    }
    for condition in &transaction.conditions {
        check_key(match condition {
            Condition::Absent(key) | Condition::Created(key, _) | Condition::Modified(key, _) => key,
        })?;
    }
    let mut written = BTreeSet::new();
    let mut bytes = 0;
    for write in &transaction.writes {
        let key = match write {
            Write::Put { key, value, .. } => {
                if value.len() > MAX_VALUE_BYTES {
                    let size = value.len();
                    return Err(Error::TooLarge(format!(
                        "`{key}` of {size} bytes, at most {MAX_VALUE_BYTES}"
                    )));
                }
                bytes += key.len() + value.len();
                key
            }
            Write::Delete(key) => key,
        };
        check_key(key)?;
        if !written.insert(key) {
            return Err(Error::Invalid(format!(
                "`{key}` is written twice in one transaction"
            )));
        }
    }
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(Error::TooLarge(format!(
            "{bytes} bytes in one transaction, at most {MAX_TRANSACTION_BYTES}"
        )));
    }
    Ok(())
}

/// Checks one key.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the key `{key}` is empty or starts with a slash"
        )));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::TooLarge(format!(
            "a key of {} bytes, at most {MAX_KEY_BYTES}",
            key.len()
        )));
    }
    Ok(())
}

/// Checks the life of a lease.
pub(super) fn check_ttl(ttl: Duration) -> Result<(), Error> {
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(Error::Invalid(format!(
            "a lease of {} seconds",
            ttl.as_secs_f64()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Write {
        Write::Put {
            key: key.to_owned(),
            value: vec![0; bytes],
            lease: None,
        }
    }

    fn of(writes: Vec<Write>) -> Transaction {
        Transaction {
            conditions: Vec::new(),
            writes,
        }
    }

    #[test]
    fn what_is_at_the_limit_passes_and_one_more_is_too_large() {
        let many = |n: usize| of((0..n).map(|i| put(&format!("k{i}"), 1)).collect());
        assert!(check(&many(MAX_OPERATIONS)).is_ok());
        assert!(matches!(
            check(&many(MAX_OPERATIONS + 1)),
            Err(Error::TooLarge(_))
        ));

        assert!(check(&of(vec![put("k", MAX_VALUE_BYTES)])).is_ok());
        assert!(matches!(
            check(&of(vec![put("k", MAX_VALUE_BYTES + 1)])),
            Err(Error::TooLarge(_))
        ));

        let heavy = of((0..17).map(|i| put(&format!("k{i}"), MAX_VALUE_BYTES)).collect());
        assert!(matches!(check(&heavy), Err(Error::TooLarge(_))));
        assert!(matches!(
            check_key(&"k".repeat(MAX_KEY_BYTES + 1)),
            Err(Error::TooLarge(_))
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            of(vec![put("", 1)]),
            of(vec![put("/k", 1)]),
            of(vec![put("k", 1), Write::Delete("k".to_owned())]),
        ] {
            assert!(matches!(check(&bad), Err(Error::Invalid(_))), "{bad:?}");
        }
        assert!(matches!(check_ttl(Duration::ZERO), Err(Error::Invalid(_))));
        assert!(matches!(check_ttl(Duration::MAX), Err(Error::Invalid(_))));
    }
}
