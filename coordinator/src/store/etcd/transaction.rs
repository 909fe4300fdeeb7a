//! Our transactions in etcd's terms.

use crate::store::{Condition, LeaseId, Transaction, Write};
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use std::collections::BTreeSet;

/// The transaction for etcd, or `None` when a condition can never hold.
///
/// etcd compares the revisions of a missing key as 0. So "absent" is "created at 0", and a condition on revision 0 or
/// below, which we say only an existing key could meet, must not be sent.
pub(super) fn to_etcd(transaction: &Transaction, key: impl Fn(&str) -> String) -> Option<Txn> {
    let compares: Option<Vec<Compare>> = transaction
        .conditions
        .iter()
        .map(|condition| match condition {
            Condition::Absent(name) => Some(Compare::create_revision(key(name), CompareOp::Equal, 0)),
            Condition::Created(name, revision) => {
                (*revision > 0).then(|| Compare::create_revision(key(name), CompareOp::Equal, *revision))
            }
            Condition::Modified(name, revision) => {
                (*revision > 0).then(|| Compare::mod_revision(key(name), CompareOp::Equal, *revision))
            }
        })
        .collect();
    let operations: Vec<TxnOp> = transaction
        .writes
        .iter()
        .map(|write| match write {
            Write::Put {
                key: name,
                value,
                lease,
            } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(key(name), value.clone(), options)
            }
            Write::Delete(name) => TxnOp::delete(key(name), None),
        })
        .collect();
    Some(Txn::new().when(compares?).and_then(operations))
}

/// The leases that a transaction names, each once.
pub(super) fn leases(transaction: &Transaction) -> Vec<LeaseId> {
    let named: BTreeSet<LeaseId> = transaction
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::Put { lease, .. } => *lease,
            Write::Delete(_) => None,
        })
        .collect();
    named.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_cannot_hold_is_not_sent() {
        let of = |condition| Transaction {
            conditions: vec![condition],
            writes: Vec::new(),
        };
        let key = |name: &str| format!("p/{name}");
        assert!(to_etcd(&of(Condition::Absent("k".to_owned())), key).is_some());
        assert!(to_etcd(&of(Condition::Created("k".to_owned(), 1)), key).is_some());
        assert!(to_etcd(&of(Condition::Created("k".to_owned(), 0)), key).is_none());
        assert!(to_etcd(&of(Condition::Modified("k".to_owned(), -1)), key).is_none());
    }

    #[test]
    fn each_lease_is_named_once() {
        let put = |key: &str, lease| Write::Put {
            key: key.to_owned(),
            value: Vec::new(),
            lease,
        };
        let one = Some(LeaseId(1));
        let writes = vec![
            put("a", one),
            put("b", None),
            put("c", Some(LeaseId(2))),
            put("d", one),
        ];
        let transaction = Transaction {
            conditions: Vec::new(),
            writes,
        };
        assert_eq!(leases(&transaction), vec![LeaseId(1), LeaseId(2)]);
    }
}
