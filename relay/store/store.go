package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// File is the name of the database in its folder.
const File = "fairlead.db"

// Config says where the state is kept and within which limits.
type Config struct {
	Dir         string        // folder of the database; made with mode 0700 when missing
	BusyTimeout time.Duration // how long a write waits for another process; at least a millisecond
	Readers     int           // connections for reading
}

// DefaultConfig gives the limits for a folder: 5 s, 4 readers.
func DefaultConfig(dir string) Config {
	return Config{Dir: dir, BusyTimeout: 5 * time.Second, Readers: 4}
}

// Errors that callers tell apart by errors.Is.
var (
	ErrNotFound    = errors.New("no such row")
	ErrExists      = errors.New("exists already")
	ErrReferenced  = errors.New("still used by other rows, or refers to one that is not there")
	ErrUnavailable = errors.New("the database is busy, full or not writable")
)

// Store is the open database. Safe for concurrent use, also with other processes on the same file.
type Store struct {
	path   string
	writer *sql.DB // one connection: writers queue here instead of failing in SQLite
	reader *sql.DB

	referring map[string][]string
}

// Open opens the database, makes it when it is missing, checks it and brings its schema up to date. Close it.
func Open(ctx context.Context, c Config) (_ *Store, err error) {
	if c.Dir == "" || c.BusyTimeout < time.Millisecond || c.Readers < 1 {
		return nil, errors.New("open the state: a folder, a busy time-out and at least one reader must be set")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	if kind := networkFS(dir); kind != "" {
		return nil, fmt.Errorf("open the state: %s is on a network file system (%s), where SQLite loses data; use a local folder", dir, kind)
	}
	path := filepath.Join(dir, File)
	// Made by us first, so that the file and with it SQLite's -wal and -shm are our user's alone.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	s := &Store{path: path}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.writer, err = sql.Open("sqlite", dsn(path, c, true)); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.check(ctx); err != nil {
		return nil, fmt.Errorf("open the state %s: %w", path, err)
	}
	if err := s.migrate(ctx); err != nil {
		return nil, fmt.Errorf("open the state %s: %w", path, err)
	}
	if s.referring, err = referring(ctx, s.writer); err != nil {
		return nil, fmt.Errorf("open the state %s: %w", path, err)
	}
	if s.reader, err = sql.Open("sqlite", dsn(path, c, false)); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	s.reader.SetMaxOpenConns(c.Readers)
	s.reader.SetMaxIdleConns(c.Readers)
	return s, nil
}

func dsn(path string, c Config, write bool) string {
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/…
	}
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", c.BusyTimeout.Milliseconds()),
		"foreign_keys(1)", "journal_mode(WAL)", "synchronous(FULL)", "secure_delete(1)", "trusted_schema(0)",
		"temp_store(MEMORY)", "journal_size_limit(67108864)",
	}}
	if write {
		q.Set("_txlock", "immediate")
	} else {
		q.Add("_pragma", "query_only(1)")
	}
	return (&url.URL{Scheme: "file", Path: p, RawQuery: q.Encode()}).String()
}

// check refuses a damaged file, and a file system on which the journal that we rely on is not to be had.
func (s *Store) check(ctx context.Context) error {
	var mode, verdict string
	var synchronous int
	if err := s.writer.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fmt.Errorf("not a usable database: %w", wrap(err))
	}
	if err := s.writer.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return wrap(err)
	}
	if mode != "wal" || synchronous != 2 {
		return fmt.Errorf("journal mode %s, synchronous %d: need wal and 2", mode, synchronous)
	}
	if err := s.writer.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("check the file: %w", wrap(err))
	}
	if verdict != "ok" {
		return fmt.Errorf("the file is damaged (%s); restore a backup", verdict)
	}
	return nil
}

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.writer, dir, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", wrap(err))
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; have > newest {
		return fmt.Errorf("schema %d was written by a newer release (this one knows %d)", have, newest)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema up to date: %w", wrap(err))
	}
	return nil
}

// Close folds the write-ahead log into the database and closes it.
func (s *Store) Close() error {
	var errs []error
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		_, err := s.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
		if err != nil && errors.Is(wrap(err), ErrUnavailable) {
			err = nil // another process reads or writes: it folds the log in
		}
		errs = append(errs, err, s.writer.Close())
	}
	return errors.Join(errs...)
}

// Path is the database file.
func (s *Store) Path() string { return s.path }

// Write runs f in a write transaction that counts the generation up, and gives the new generation. An error of f, or a panic,
// undoes everything. f may run while other processes wait: it must not wait for anything itself.
func (s *Store) Write(ctx context.Context, f func(*Tx) error) (generation int64, err error) {
	err = s.write(ctx, func(tx *Tx) error {
		tx.touched = &touched{tables: map[string][]string{}}
		if err := f(tx); err != nil {
			return err
		}
		if err := tx.silent().row("UPDATE generation SET value = value + 1 WHERE one = 1 RETURNING value").Scan(&generation); err != nil {
			return err
		}
		return tx.journal(generation)
	})
	return generation, err
}

// WriteQuiet is Write for what no snapshot shows (times of use, cursors): the generation stays.
func (s *Store) WriteQuiet(ctx context.Context, f func(*Tx) error) error { return s.write(ctx, f) }

func (s *Store) write(ctx context.Context, f func(*Tx) error) error {
	t, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a write: %w", wrap(err))
	}
	defer t.Rollback()
	if err := f(&Tx{ctx: ctx, tx: t, referring: s.referring}); err != nil {
		return wrap(err)
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("commit: %w", wrap(err))
	}
	return nil
}

// Read runs f on one consistent state of the database.
func (s *Store) Read(ctx context.Context, f func(*Tx) error) error {
	t, err := s.reader.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a read: %w", wrap(err))
	}
	defer t.Rollback()
	return wrap(f(&Tx{ctx: ctx, tx: t, referring: s.referring}))
}

// Generation is the number of the last committed Write.
func (s *Store) Generation(ctx context.Context) (n int64, err error) {
	err = s.reader.QueryRowContext(ctx, "SELECT value FROM generation WHERE one = 1").Scan(&n)
	return n, wrap(err)
}

// Tx is a transaction. It is valid within the function that it was given to, and for one goroutine.
type Tx struct {
	ctx context.Context
	tx  *sql.Tx

	touched   *touched // nil: nothing of it is in the journal
	referring map[string][]string
	quiet     bool
}

func (t *Tx) row(q string, args ...any) *sql.Row {
	t.note(q)
	return t.tx.QueryRowContext(t.ctx, q, args...)
}

// Generation is the generation of the state that this transaction sees.
func (t *Tx) Generation() (n int64, err error) {
	err = t.row("SELECT value FROM generation WHERE one = 1").Scan(&n)
	return n, wrap(err)
}

// exec runs a statement that must hit a row, else ErrNotFound.
func (t *Tx) exec(q string, args ...any) error {
	n, err := t.count(q, args...)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

func (t *Tx) count(q string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(t.ctx, q, args...)
	if err != nil {
		return 0, wrap(err)
	}
	n, err := r.RowsAffected()
	if n > 0 || err != nil {
		t.note(q)
	}
	return n, err
}

// list scans every row of a query.
func list[T any](t *Tx, scan func(*sql.Rows, *T) error, q string, args ...any) ([]T, error) {
	rows, err := t.tx.QueryContext(t.ctx, q, args...)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, wrap(rows.Err())
}

// wrap puts the package's own errors in front of SQLite's.
func wrap(err error) error {
	var e *sqlite.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrReferenced), errors.Is(err, ErrUnavailable):
		return err
	case errors.As(err, &e):
		switch code := e.Code(); {
		case code == sqlite3.SQLITE_CONSTRAINT_UNIQUE, code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			return fmt.Errorf("%w: %w", ErrExists, err)
		case code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			return fmt.Errorf("%w: %w", ErrReferenced, err)
		case code&0xff == sqlite3.SQLITE_BUSY, code&0xff == sqlite3.SQLITE_LOCKED, code&0xff == sqlite3.SQLITE_FULL,
			code&0xff == sqlite3.SQLITE_IOERR, code&0xff == sqlite3.SQLITE_READONLY, code&0xff == sqlite3.SQLITE_CANTOPEN:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}
