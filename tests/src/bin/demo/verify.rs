//! What came of it, row by row, asked in plain SQL and not from Confiture.

use crate::services::Service;
use tests::fleet::Member;

/// One database's rows, counted.
pub(crate) struct Check {
    rows: i64,
    missed: i64,
    twice: i64,
    wrong: i64,
    nullable: i64,
}

impl Check {
    /// Whether all is as the set says.
    pub(crate) fn is_right(&self) -> bool {
        self.rows == Service::ROWS && self.missed + self.twice + self.wrong + self.nullable == 0
    }
}

/// Looks at every row of one database.
pub(crate) async fn database(member: &Member) -> anyhow::Result<Check> {
    let query = "SELECT count(*), count(*) FILTER (WHERE changes = 0), count(*) FILTER (WHERE changes > 1),
                        count(*) FILTER (WHERE gross_cents IS DISTINCT FROM (id % 9973) * 6 / 5),
                        (SELECT count(*) FROM pg_attribute
                         WHERE attrelid = 'events'::regclass AND attname = 'gross_cents' AND NOT attnotnull)
                 FROM events";
    let row = member.database.connect().await?.query_one(query, &[]).await?;
    Ok(Check {
        rows: row.get(0),
        missed: row.get(1),
        twice: row.get(2),
        wrong: row.get(3),
        nullable: row.get(4),
    })
}

/// Prints the sums.
pub(crate) fn report(checks: &[Check], seconds: f64) {
    let sum = |part: fn(&Check) -> i64| checks.iter().map(part).sum::<i64>();
    let done = checks.iter().filter(|check| check.is_right()).count();
    println!();
    println!("  databases migrated   {done} of {}", checks.len());
    println!("  rows                 {}", sum(|check| check.rows));
    println!("  seconds              {seconds:.1}");
    println!("  rows changed twice   {}", sum(|check| check.twice));
    println!("  rows missed          {}", sum(|check| check.missed));
    println!("  rows wrong           {}", sum(|check| check.wrong));
}
