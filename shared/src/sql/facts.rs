//! What we ask the catalog before a step is planned: see [`crate::plan::TableFacts`].

/// The facts of one table as one JSON text; NULL when there is no such relation. Parameters: the quoted name as it stands
/// in the step (text), the name without quotes and the schema or NULL (text), to find a near miss; names of functions
/// (text[]), of which the volatile ones are given. Beside it a near miss (text), the server's version (int4), those
/// functions (text[]) and the schema in which a table without one is created (text).
///
/// Rows of a table that was never analysed are estimated as PostgreSQL's planner does it: from its size and the width of
/// its columns, 32 bytes where that varies, with 28 for the row's header and its pointer.
pub const TABLE: &str = r"
SELECT CASE WHEN c.oid IS NULL THEN NULL ELSE pg_catalog.json_build_object(
  'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
  'parts', (
      SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
          'oid', p.oid::pg_catalog.int8, 'schema', s.nspname, 'name', p.relname, 'foreign', p.relkind = 'f',
          'estimated_rows', CASE WHEN p.relkind <> 'r' OR p.relpages > 0 OR p.reltuples > 0
               THEN GREATEST(p.reltuples, 0)
               ELSE pg_catalog.pg_relation_size(p.oid) / (28 + (SELECT coalesce(pg_catalog.sum(
                        CASE WHEN w.attlen > 0 THEN w.attlen ELSE 32 END), 0) FROM pg_catalog.pg_attribute w
                  WHERE w.attrelid = p.oid AND w.attnum > 0 AND NOT w.attisdropped)) END::pg_catalog.int8,
          'blocks', CASE WHEN p.relkind = 'r' THEN pg_catalog.pg_relation_size(p.oid) ELSE 0 END
                    / pg_catalog.current_setting('block_size')::pg_catalog.int8,
          'unvalidated_checks', (SELECT coalesce(pg_catalog.json_agg(o.conname), '[]') FROM pg_catalog.pg_constraint o
             WHERE o.conrelid = p.oid AND o.contype = 'c' AND NOT o.convalidated),
          'foreign_keys', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                'name', o.conname, 'validated', o.convalidated)), '[]') FROM pg_catalog.pg_constraint o
             WHERE o.conrelid = p.oid AND o.contype = 'f' AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint h WHERE h.oid = o.conparentid AND h.conrelid = o.conrelid)),
          'row_security', pg_catalog.row_security_active(p.oid) OR pg_catalog.row_security_active(c.oid),
          'keys', (SELECT coalesce(pg_catalog.json_agg(k.columns ORDER BY NOT k.indisprimary, k.indnkeyatts, k.indexrelid), '[]')
             FROM (SELECT i.indisprimary, i.indnkeyatts, i.indexrelid, x.columns FROM pg_catalog.pg_index i, LATERAL (
                     SELECT pg_catalog.json_agg(pg_catalog.json_build_object('column', a.attname,
                                'descending', i.indoption[u.place - 1] & 1 = 1, 'nulls_first', i.indoption[u.place - 1] & 2 = 2)
                                ORDER BY u.place) AS columns,
                            pg_catalog.bool_and(a.attnotnull AND o.opcdefault AND NOT EXISTS (
                                    SELECT FROM pg_catalog.pg_constraint w WHERE w.conrelid = p.oid AND w.contype = 'n'
                                       AND NOT w.convalidated AND w.conkey = ARRAY[a.attnum])
                                AND i.indcollation[u.place - 1] = a.attcollation) AS usable
                       FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY u(attnum, place)
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum = u.attnum
                       JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[u.place - 1]
                      WHERE u.place <= i.indnkeyatts) x
                    WHERE i.indrelid = p.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                      AND x.usable) k))
          ORDER BY s.nspname, p.relname), '[]')
        FROM pg_catalog.pg_class p
        JOIN pg_catalog.pg_namespace s ON s.oid = p.relnamespace
       WHERE p.oid = ANY (tree.oids) AND p.relkind IN ('r', 'f')),
  'partition_columns', (
      SELECT coalesce(pg_catalog.json_agg(DISTINCT a.attname), '[]')
        FROM pg_catalog.pg_partitioned_table t, pg_catalog.unnest(t.partattrs::pg_catalog.int2[]) k(attnum),
             pg_catalog.pg_attribute a
       WHERE t.partrelid = ANY (tree.oids) AND a.attrelid = t.partrelid AND a.attnum = k.attnum),
  'partition_expressions', (
      SELECT coalesce(pg_catalog.json_agg(pg_catalog.pg_get_expr(t.partexprs, t.partrelid)), '[]')
        FROM pg_catalog.pg_partitioned_table t WHERE t.partrelid = ANY (tree.oids) AND t.partexprs IS NOT NULL),
  'syncs', (
      SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                'relation', (SELECT pg_catalog.format('%I.%I', e.nspname, r.relname) FROM pg_catalog.pg_class r
                    JOIN pg_catalog.pg_namespace e ON e.oid = r.relnamespace WHERE r.oid = g.tgrelid),
                'name', g.tgname, 'function', f.proname,
                'arguments', pg_catalog.convert_from(pg_catalog.substring(g.tgargs, 1, pg_catalog.length(g.tgargs) - 1),
                                                   pg_catalog.getdatabaseencoding())::pg_catalog.json)), '[]')
        FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
        JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace AND s.nspname = 'confiture'
       WHERE g.tgrelid = ANY (tree.oids) AND g.tgparentid = 0),
  'bytes', pg_catalog.pg_table_size(c.oid),
  'columns', (SELECT coalesce(pg_catalog.json_agg(x ORDER BY x.attnum), '[]') FROM (
      SELECT a.attnum, a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS data_type,
             a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint w
                 WHERE w.conrelid = c.oid AND w.contype = 'n' AND NOT w.convalidated AND w.conkey = ARRAY[a.attnum]) AS not_null,
             CASE WHEN a.attcollation <> y.typcollation THEN (SELECT pg_catalog.format('%I.%I', e.nspname, l.collname)
                 FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace e ON e.oid = l.collnamespace
                WHERE l.oid = a.attcollation) END AS collation,
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
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
        LATERAL (WITH RECURSIVE u AS (
             SELECT t.oid, t.typtype, t.typbasetype, t.typcategory FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
             UNION ALL
             SELECT t.oid, t.typtype, t.typbasetype, t.typcategory FROM pg_catalog.pg_type t JOIN u ON t.oid = u.typbasetype
              WHERE u.typtype = 'd')
           SELECT u.oid AS base, u.typcategory AS category FROM u WHERE u.typtype <> 'd') b
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) x),
  'checks', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', o.conname,
                'definition', pg_catalog.pg_get_constraintdef(o.oid), 'validated', o.convalidated)), '[]')
        FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c'),
  'foreign_keys', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', o.conname,
                'validated', o.convalidated)), '[]')
        FROM pg_catalog.pg_constraint o
       WHERE o.conrelid = c.oid AND o.contype = 'f' AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint h WHERE h.oid = o.conparentid AND h.conrelid = o.conrelid)),
  'unique_keys', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('columns', k.columns,
                'primary', k.indisprimary) ORDER BY NOT k.indisprimary, k.indexrelid), '[]')
        FROM (SELECT i.indisprimary, i.indexrelid, (
                SELECT pg_catalog.json_agg(a.attname ORDER BY u.place)
                  FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY u(attnum, place)
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum
                 WHERE u.place <= i.indnkeyatts) AS columns
                FROM pg_catalog.pg_index i
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                 AND i.indpred IS NULL AND i.indexprs IS NULL) k),
  'dependents', (SELECT coalesce(pg_catalog.json_agg(DISTINCT x), '[]')
      FROM (SELECT CASE c.relkind WHEN 'p' THEN tree.oids ELSE ARRAY[c.oid] END AS oids) own, LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
         WHERE d.deptype = 'n' AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY (own.oids)
        UNION SELECT d.classid, d.objid FROM pg_catalog.pg_class w JOIN pg_catalog.pg_depend d
            ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid = w.reltype AND d.deptype = 'n'
         WHERE w.oid = ANY (own.oids)) d, LATERAL (
        SELECT CASE r.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END AS kind,
               e.nspname AS schema, r.relname AS name, NULL::pg_catalog.name AS constraint
          FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace e ON e.oid = r.relnamespace
         WHERE r.oid <> ALL (own.oids) AND r.relkind IN ('r', 'p', 'f', 'v', 'm') AND (
               (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND r.oid = d.objid)
            OR (d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                AND r.oid = (SELECT w.ev_class FROM pg_catalog.pg_rewrite w WHERE w.oid = d.objid)))
        UNION ALL
        SELECT 'foreign key', e.nspname, r.relname, o.conname
          FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class r ON r.oid = o.conrelid
          JOIN pg_catalog.pg_namespace e ON e.oid = r.relnamespace
         WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND o.oid = d.objid AND o.contype = 'f'
           AND o.conparentid = 0 AND o.conrelid <> ALL (own.oids)
        UNION ALL
        SELECT 'function', e.nspname, f.proname, NULL
          FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace e ON e.oid = f.pronamespace
         WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.oid = d.objid) x))::pg_catalog.text END,
  (SELECT pg_catalog.format('%I.%I', s.nspname, m.relname) FROM pg_catalog.pg_class m
     JOIN pg_catalog.pg_namespace s ON s.oid = m.relnamespace
    WHERE pg_catalog.lower(m.relname) = pg_catalog.lower($2) AND m.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND ($3 IS NULL OR pg_catalog.lower(s.nspname) = pg_catalog.lower($3))
      AND s.nspname !~ '^pg_' ORDER BY pg_catalog.pg_table_is_visible(m.oid) DESC, 1 LIMIT 1),
  pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
  ARRAY(SELECT DISTINCT v.proname::pg_catalog.text FROM pg_catalog.pg_proc v WHERE v.provolatile = 'v' AND v.proname = ANY ($4)),
  pg_catalog.current_schema()::pg_catalog.text
  FROM (SELECT pg_catalog.to_regclass($1)::pg_catalog.oid AS oid) q
  LEFT JOIN pg_catalog.pg_class c ON c.oid = q.oid
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
  LATERAL (
    WITH RECURSIVE t(oid) AS (
      SELECT c.oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN t ON i.inhparent = t.oid)
    SELECT pg_catalog.array_agg(t.oid) AS oids FROM t) tree";

/// Which of the given relations show rows of a table. Parameters: the quoted name as it stands in the step (text), the
/// relations as they stand in its expressions (text[]); the answer are those of them. A view shows the rows of what it
/// reads, a materialized one holds rows of its own.
pub const SAME_ROWS: &str = r"
WITH RECURSIVE shown(written, oid) AS (
  SELECT w, pg_catalog.to_regclass(w)::pg_catalog.oid FROM pg_catalog.unnest($2 || ARRAY[$1]) w
  UNION
  SELECT s.written, x.oid FROM shown s, LATERAL (
    SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = s.oid
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_class v
      JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     WHERE v.oid = s.oid AND v.relkind = 'v') x)
SELECT DISTINCT s.written FROM shown s JOIN shown t ON t.oid = s.oid AND t.written = $1
 WHERE s.written = ANY ($2)";

/// One type, by its quoted name as it stands in the step and, to find a near miss, its name without quotes and the schema
/// or NULL (text): schema and name, whether it is an enum, its values in order (text[]), and a near miss (text). Schema
/// and name are NULL when there is none.
pub const TYPE: &str = r"
SELECT n.nspname::pg_catalog.text, t.typname::pg_catalog.text, coalesce(t.typtype = 'e', false),
  ARRAY(SELECT l.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid ORDER BY l.enumsortorder),
  (SELECT pg_catalog.format('%I.%I', s.nspname, m.typname) FROM pg_catalog.pg_type m
     JOIN pg_catalog.pg_namespace s ON s.oid = m.typnamespace
    WHERE pg_catalog.lower(m.typname) = pg_catalog.lower($2) AND m.typtype = 'e'
      AND ($3 IS NULL OR pg_catalog.lower(s.nspname) = pg_catalog.lower($3))
    ORDER BY pg_catalog.pg_type_is_visible(m.oid) DESC, 1 LIMIT 1)
  FROM (SELECT pg_catalog.to_regtype($1)::pg_catalog.oid AS oid) q
  LEFT JOIN pg_catalog.pg_type t ON t.oid = q.oid
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace";
