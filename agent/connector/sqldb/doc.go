// Package sqldb speaks to databases: PostgreSQL and Redshift (pgx), MySQL and MariaDB, SQLite, SQL Server and Oracle.
//
// It promises, and the tests try to refute:
//
//   - A read-only profile changes nothing, given a database role that passes the check at connect; a role that fails it is
//     refused. Five layers: the statement's class, a role that can do no more than it should, session settings, a READ ONLY
//     transaction whose mode can no longer be changed when the caller's statement runs, and a look at the transaction
//     afterwards. A query runs so in every mode.
//   - Rows stream from the driver to the answer; memory does not grow with the result.
//   - Values arrive exact (docs/databases.md, "types on the wire").
//   - Masked columns leave as "[masked]", under any alias where the database tells a column's origin; where it does not,
//     more is masked rather than less.
//   - The end of the caller's context ends the statement at the server too.
//   - After an error or a cancelled call the connection is closed, never reused; else it is reset or closed.
//
// It never takes a connection string from outside, never reads the environment (PGHOST, service files, …), never sends a
// caller's text over PostgreSQL's simple protocol, never splices a parameter into a statement, never falls back to
// plaintext, and never shows a database's own error text to a caller, for it may hold values of rows.
package sqldb
