//! What we ask the catalog about single columns: see [`crate::plan::ColumnUses`].

/// What needs columns of a table, and what belongs to them, as one JSON text: by the columns' quoted names. NULL when there
/// are none of these. Parameters: the quoted name of the table (text), names of columns (text[]).
///
/// Names in it are quoted. What is ours about a column whose type is being changed is left out.
pub const COLUMNS: &str = r#"
SELECT pg_catalog.json_object_agg(pg_catalog.quote_ident(a.attname), pg_catalog.json_build_object(
  'default', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
               WHERE d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''),
  'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by_default' END,
  'sequence', (
      SELECT pg_catalog.json_build_object('name', pg_catalog.format('%I.%I', n.nspname, s.relname),
               'data_type', pg_catalog.format_type(q.seqtypid, NULL),
               'options', pg_catalog.format('INCREMENT BY %s START WITH %s CACHE %s %s', q.seqincrement, q.seqstart, q.seqcache,
                                            CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
                 || CASE WHEN q.seqmin IN (1, -9223372036854775808, -2147483648, -32768) THEN '' ELSE pg_catalog.format(' MINVALUE %s', q.seqmin) END
                 || CASE WHEN q.seqmax IN (-1, 9223372036854775807, 2147483647, 32767) THEN '' ELSE pg_catalog.format(' MAXVALUE %s', q.seqmax) END)
        FROM pg_catalog.pg_depend e JOIN pg_catalog.pg_class s ON s.oid = e.objid AND s.relkind = 'S'
        JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
       WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
         AND e.refobjid = c.oid AND e.refobjsubid = a.attnum AND e.deptype IN ('a', 'i') LIMIT 1),
  'comment', pg_catalog.col_description(c.oid, a.attnum),
  'statistics', (SELECT NULLIF((pg_catalog.to_jsonb(a) ->> 'attstattarget')::pg_catalog.int4, -1)),
  'indexes', (
      SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
               'name', pg_catalog.quote_ident(r.relname), 'unique', i.indisunique,
               'valid', i.indisvalid AND i.indisready AND i.indislive, 'method', pg_catalog.quote_ident(m.amname),
               'elements', (
                   SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'column', pg_catalog.quote_ident(t.attname),
                            'expression', CASE WHEN k.attnum = 0 THEN pg_catalog.pg_get_indexdef(i.indexrelid, k.place::pg_catalog.int4, false) END,
                            'descending', i.indoption[k.place - 1] & 1 = 1, 'nulls_first', i.indoption[k.place - 1] & 2 = 2,
                            'collation', (SELECT pg_catalog.format('%I.%I', e.nspname, l.collname)
                                 FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace e ON e.oid = l.collnamespace
                                WHERE l.oid = i.indcollation[k.place - 1] AND l.oid IS DISTINCT FROM t.attcollation),
                            'opclass', (SELECT pg_catalog.format('%I.%I', e.nspname, o.opcname)
                                 FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_namespace e ON e.oid = o.opcnamespace
                                WHERE o.oid = i.indclass[k.place - 1] AND NOT o.opcdefault)) ORDER BY k.place)
                     FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(attnum, place)
                     LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attnum = k.attnum AND k.attnum <> 0
                    WHERE k.place <= i.indnkeyatts),
               'include', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.quote_ident(t.attname) ORDER BY k.place), '[]')
                     FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(attnum, place)
                     JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attnum = k.attnum WHERE k.place > i.indnkeyatts),
               'with', coalesce(pg_catalog.to_json(r.reloptions), '[]'),
               'tablespace', (SELECT pg_catalog.quote_ident(s.spcname) FROM pg_catalog.pg_tablespace s WHERE s.oid = r.reltablespace),
               'condition', pg_catalog.pg_get_expr(i.indpred, i.indrelid),
               'constraint', (SELECT pg_catalog.json_build_object('kind', CASE o.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END,
                        'deferrable', CASE WHEN NOT o.condeferrable THEN '' WHEN o.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' ELSE ' DEFERRABLE' END)
                     FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid AND o.conrelid = c.oid AND o.contype IN ('p', 'u') LIMIT 1),
               'roles', pg_catalog.array_to_json(pg_catalog.array_remove(ARRAY[CASE WHEN i.indisclustered THEN 'clustered' END,
                        CASE WHEN i.indisreplident AND c.relreplident = 'i' THEN 'replica_identity' END], NULL)),
               'unusual', CASE
                   WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid AND o.contype = 'x') THEN 'is of an exclusion constraint'
                   WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid AND (pg_catalog.to_jsonb(o) ->> 'conperiod')::pg_catalog.bool)
                     THEN 'is of a constraint WITHOUT OVERLAPS'
                   WHEN pg_catalog.pg_get_indexdef(i.indexrelid) LIKE '% NULLS NOT DISTINCT%' THEN 'is NULLS NOT DISTINCT'
                   WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute t WHERE t.attrelid = i.indexrelid AND t.attoptions IS NOT NULL) THEN 'has options of operator classes'
                 END) ORDER BY r.relname), '[]')
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class r ON r.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = r.relam
       WHERE i.indrelid = c.oid AND r.relname !~ '^confiture_[bd]_' AND (a.attnum = ANY (i.indkey::pg_catalog.int2[])
          OR EXISTS (SELECT FROM pg_catalog.pg_depend e
                      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = i.indexrelid
                        AND e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.refobjid = c.oid AND e.refobjsubid = a.attnum))),
  'checks', (
      SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', pg_catalog.quote_ident(o.conname),
               'expression', pg_catalog.pg_get_expr(o.conbin, o.conrelid), 'validated', o.convalidated) ORDER BY o.conname), '[]')
        FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c' AND a.attnum = ANY (o.conkey)),
  'foreign_keys', (
      SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', pg_catalog.quote_ident(o.conname),
               'relation', (SELECT pg_catalog.format('"%s"."%s"', pg_catalog.replace(n.nspname, '"', '""'), pg_catalog.replace(r.relname, '"', '""'))
                    FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = o.conrelid),
               'references', (SELECT pg_catalog.format('"%s"."%s"', pg_catalog.replace(n.nspname, '"', '""'), pg_catalog.replace(r.relname, '"', '""'))
                    FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = o.confrelid),
               'columns', (SELECT pg_catalog.json_agg(pg_catalog.quote_ident(t.attname) ORDER BY k.place)
                    FROM pg_catalog.unnest(o.conkey) WITH ORDINALITY k(attnum, place)
                    JOIN pg_catalog.pg_attribute t ON t.attrelid = o.conrelid AND t.attnum = k.attnum),
               'referenced', (SELECT pg_catalog.json_agg(pg_catalog.quote_ident(t.attname) ORDER BY k.place)
                    FROM pg_catalog.unnest(o.confkey) WITH ORDINALITY k(attnum, place)
                    JOIN pg_catalog.pg_attribute t ON t.attrelid = o.confrelid AND t.attnum = k.attnum),
               'options', CASE o.confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END
                 || CASE o.confupdtype WHEN 'r' THEN ' ON UPDATE RESTRICT' WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'n' THEN ' ON UPDATE SET NULL' WHEN 'd' THEN ' ON UPDATE SET DEFAULT' ELSE '' END
                 || CASE o.confdeltype WHEN 'r' THEN ' ON DELETE RESTRICT' WHEN 'c' THEN ' ON DELETE CASCADE' WHEN 'n' THEN ' ON DELETE SET NULL' WHEN 'd' THEN ' ON DELETE SET DEFAULT' ELSE '' END
                 || CASE WHEN NOT o.condeferrable THEN '' WHEN o.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' ELSE ' DEFERRABLE' END,
               'validated', o.convalidated) ORDER BY o.conrelid <> c.oid, o.conname), '[]')
        FROM pg_catalog.pg_constraint o
       WHERE o.contype = 'f' AND ((o.conrelid = c.oid AND a.attnum = ANY (o.conkey)) OR (o.confrelid = c.oid AND a.attnum = ANY (o.confkey)))),
  'others', (
      SELECT coalesce(pg_catalog.json_agg(DISTINCT x.what ORDER BY x.what), '[]') FROM (
        SELECT 'the privileges of the column' AS what WHERE a.attacl IS NOT NULL
        UNION ALL SELECT 'the same column of a parent table' WHERE a.attinhcount > 0
        UNION ALL
        SELECT pg_catalog.format('foreign key %I of %s, which not only the table itself has', o.conname, o.conrelid::pg_catalog.regclass)
          FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class r ON r.oid = o.conrelid
         WHERE o.contype = 'f' AND (r.relkind = 'p' OR o.conparentid <> 0 OR pg_catalog.to_jsonb(o) ->> 'confdelsetcols' IS NOT NULL)
           AND ((o.conrelid = c.oid AND a.attnum = ANY (o.conkey)) OR (o.confrelid = c.oid AND a.attnum = ANY (o.confkey)))
        UNION ALL
        SELECT CASE WHEN e.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                    THEN (SELECT CASE v.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'a rule of ' END
                                 || pg_catalog.format('%I.%I', n.nspname, v.relname)
                            FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class v ON v.oid = w.ev_class
                            JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace WHERE w.oid = e.objid)
                    ELSE pg_catalog.pg_describe_object(e.classid, e.objid, e.objsubid) END
          FROM pg_catalog.pg_depend e
         WHERE e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.refobjid = c.oid AND e.refobjsubid = a.attnum
           AND NOT (e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    AND EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.oid = e.objid AND r.relkind IN ('i', 'I', 'S')))
           AND NOT (e.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                    AND EXISTS (SELECT FROM pg_catalog.pg_attrdef d WHERE d.oid = e.objid AND d.adrelid = c.oid AND d.adnum = a.attnum))
           AND e.classid <> 'pg_catalog.pg_constraint'::pg_catalog.regclass
           AND NOT (e.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
                    AND EXISTS (SELECT FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
                                  JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace
                                 WHERE g.oid = e.objid AND (s.nspname = 'confiture' OR g.tgisinternal)))) x)))::pg_catalog.text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 WHERE c.oid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($2)"#;

/// A table that has one column of a type, for a transaction that is rolled back.
pub fn of_type(data_type: &str) -> String {
    format!("CREATE TEMPORARY TABLE pg_temp.confiture_type (of_type {data_type})")
}

/// The type of that column as the catalog names it, with its modifier: `character varying(20)`.
pub const NAME_OF_TYPE: &str =
    "SELECT pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
 WHERE attrelid = 'pg_temp.confiture_type'::pg_catalog.regclass AND attname = 'of_type'";
