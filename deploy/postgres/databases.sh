#!/bin/sh
# Run once by the PostgreSQL image when its volume is new: the demo's role and databases.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres --set password="$DEMO_PASSWORD" <<'SQL'
CREATE ROLE confiture LOGIN PASSWORD :'password';
CREATE DATABASE orders OWNER confiture;
CREATE DATABASE billing OWNER confiture;
CREATE DATABASE users OWNER confiture;
CREATE DATABASE catalog OWNER confiture;
SQL
