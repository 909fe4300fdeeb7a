//! What a server has room for, as far as any role may see it.

/// No parameters. Gives `max_connections`, those of it that are not for this role, those in use by everybody, and the
/// limits of the role and of the database, NULL where there are none (all int8). Limits do not bind superusers.
pub const ROOM: &str = "
SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int8,
       CASE WHEN r.rolsuper THEN 0
            ELSE pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int8
               + coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int8 END,
       (SELECT coalesce(pg_catalog.sum(numbackends), 0)::pg_catalog.int8 FROM pg_catalog.pg_stat_database),
       CASE WHEN NOT r.rolsuper AND r.rolconnlimit >= 0 THEN r.rolconnlimit::pg_catalog.int8 END,
       CASE WHEN NOT r.rolsuper AND d.datconnlimit >= 0 THEN d.datconnlimit::pg_catalog.int8 END
  FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
 WHERE r.rolname = session_user AND d.datname = pg_catalog.current_database()";
