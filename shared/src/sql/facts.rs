//! What we ask the catalog before a step is planned: see [`crate::plan::TableFacts`].

/// The facts of one table as one JSON text; NULL when there is no such relation. Parameters: the quoted name as it stands
/// in the step (text), the name without quotes and the schema or NULL (text), to find a near miss.
pub const TABLE: &str = r"
SELECT CASE WHEN c.oid IS NULL THEN NULL ELSE pg_catalog.json_build_object(
  'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
  'estimated_rows', GREATEST(CASE WHEN c.relkind = 'p' THEN
       (SELECT coalesce(pg_catalog.sum(GREATEST(p.reltuples, 0)), 0) FROM pg_catalog.pg_partition_tree(c.oid) t
          JOIN pg_catalog.pg_class p ON p.oid = t.relid WHERE t.isleaf)
     ELSE c.reltuples END, 0)::pg_catalog.int8,
  'bytes', pg_catalog.pg_table_size(c.oid),
  'columns', (SELECT coalesce(pg_catalog.json_agg(x ORDER BY x.attnum), '[]') FROM (
      SELECT a.attnum, a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS data_type, a.attnotnull AS not_null,
             a.attgenerated <> '' AS generated,
             a.attidentity <> '' OR coalesce(
                 pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false) AS growing,
             EXISTS (SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
                      WHERE o.opcdefault AND (o.opcintype = b.base
                         OR (b.category = 'A' AND o.opcintype = 'pg_catalog.anyarray'::pg_catalog.regtype)
                         OR (b.category = 'E' AND o.opcintype = 'pg_catalog.anyenum'::pg_catalog.regtype)
                         OR (b.category = 'R' AND o.opcintype = 'pg_catalog.anyrange'::pg_catalog.regtype)
                         OR EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.castsource = b.base AND k.casttarget = o.opcintype
                                       AND k.castmethod = 'b' AND k.castcontext = 'i'))) AS ordered,
             b.base IN ('pg_catalog.float4'::pg_catalog.regtype, 'pg_catalog.float8'::pg_catalog.regtype) AS floating,
             NOT coalesce((SELECT l.collisdeterministic FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation), true) AS loose
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
        LATERAL (WITH RECURSIVE u AS (
             SELECT t.oid, t.typtype, t.typbasetype, t.typcategory FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
             UNION ALL
             SELECT t.oid, t.typtype, t.typbasetype, t.typcategory FROM pg_catalog.pg_type t JOIN u ON t.oid = u.typbasetype
              WHERE u.typtype = 'd')
           SELECT u.oid AS base, u.typcategory AS category FROM u WHERE u.typtype <> 'd') b
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) x),
  'primary_key', (SELECT coalesce(pg_catalog.json_agg(a.attname ORDER BY k.place), '[]')
        FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum
       WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND a.attrelid = c.oid AND k.place <= i.indnkeyatts),
  'checks', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', o.conname,
                'definition', pg_catalog.pg_get_constraintdef(o.oid), 'validated', o.convalidated)), '[]')
        FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c'))::pg_catalog.text END,
  (SELECT pg_catalog.format('%I.%I', s.nspname, m.relname) FROM pg_catalog.pg_class m
     JOIN pg_catalog.pg_namespace s ON s.oid = m.relnamespace
    WHERE pg_catalog.lower(m.relname) = pg_catalog.lower($2) AND m.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND ($3 IS NULL OR pg_catalog.lower(s.nspname) = pg_catalog.lower($3))
      AND s.nspname !~ '^pg_' ORDER BY pg_catalog.pg_table_is_visible(m.oid) DESC, 1 LIMIT 1)
  FROM (SELECT pg_catalog.to_regclass($1)::pg_catalog.oid AS oid) q
  LEFT JOIN pg_catalog.pg_class c ON c.oid = q.oid
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
