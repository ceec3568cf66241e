package statement

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Dialect names the SQL that a target speaks.
type Dialect string

// The dialects. MySQL covers MariaDB.
const (
	PostgreSQL Dialect = "postgresql"
	Redshift   Dialect = "redshift"
	MySQL      Dialect = "mysql"
	SQLite     Dialect = "sqlite"
	SQLServer  Dialect = "sqlserver"
	Oracle     Dialect = "oracle"
)

// Class says who may run a statement.
type Class string

const (
	// ClassRead may run in every mode.
	ClassRead Class = "read"
	// ClassWrite may run where writing is allowed, and nowhere else.
	ClassWrite Class = "write"
	// ClassRefused may never run.
	ClassRefused Class = "refused"
)

// Limits on what is looked at; text past them is refused.
const (
	MaxBytes       = 1 << 20 // bytes of one statement
	MaxTokens      = 100_000 // tokens of one statement
	MaxDepth       = 100     // parentheses within parentheses
	MaxFingerprint = 4096    // bytes of a fingerprint
)

// Analysis is what is known of one statement.
type Analysis struct {
	Class Class
	// Reason says why the statement is not ClassRead, and what to do instead. Safe to show and to record: it holds no
	// literal and no quoted text of the statement, only keywords and bare function names. Empty for ClassRead.
	Reason string
	// Fingerprint is the statement for the record: one line, comments gone, each literal replaced by ?, lists of
	// literals folded into one, at most MaxFingerprint bytes. Text that could not be split into tokens gives
	// "[unparsed sha256:… n bytes]".
	Fingerprint string
	// Verb is the lower-case word that says what the statement does ("select", "insert", "create table"), the one after
	// the WITH clause if there is one. Empty when unknown.
	Verb string
	// Tables are the names after FROM, JOIN, INTO, UPDATE and TABLE, as written but unquoted, parts joined by a dot, each
	// once, without the names of common table expressions. Best effort, for masks and the record: no decision may rest on
	// a name being absent.
	Tables []string
}

// Known tells whether Analyze understands d. Statements in any other dialect are refused.
func (d Dialect) Known() bool {
	switch d {
	case PostgreSQL, Redshift, MySQL, SQLite, SQLServer, Oracle:
		return true
	}
	return false
}

func (d Dialect) isPG() bool { return d == PostgreSQL || d == Redshift }

// Analyze judges sql, which must hold exactly one statement of dialect d. It never fails: what it does not understand is
// ClassRefused.
func Analyze(d Dialect, sql string) Analysis {
	if !d.Known() {
		return Analysis{Class: ClassRefused, Reason: "this SQL dialect is not known", Fingerprint: unparsed(sql)}
	}
	toks, reason := tokenize(d, sql)
	if reason != "" {
		return Analysis{Class: ClassRefused, Reason: reason, Fingerprint: unparsed(sql)}
	}
	a := Analysis{Class: ClassRefused, Fingerprint: fingerprint(d, sql, toks)}
	if a.Reason = oneStatement(toks); a.Reason != "" {
		return a
	}
	if toks[len(toks)-1].is(";") {
		toks = toks[:len(toks)-1]
	}
	match, reason := pair(toks)
	if reason != "" {
		a.Reason = reason
		return a
	}
	c := newChecker(d, toks, match)
	a.Verb, a.Tables = c.verb(), tables(d, sql, toks, match)
	if a.Reason = c.read(); a.Reason == "" {
		a.Class = ClassRead
		return a
	}
	c.write = true
	if why := c.writes(); why == "" {
		a.Class = ClassWrite
	} else if writeVerb(d, firstWord(a.Verb)) || a.Verb == "select" {
		// The stronger reason is the one that holds in every mode.
		a.Reason = why
	}
	return a
}

func firstWord(s string) string {
	s, _, _ = strings.Cut(s, " ")
	return s
}

func unparsed(sql string) string {
	sum := sha256.Sum256([]byte(sql))
	return fmt.Sprintf("[unparsed sha256:%s %d bytes]", hex.EncodeToString(sum[:]), len(sql))
}

func oneStatement(toks []token) string {
	if len(toks) == 0 || toks[0].is(";") {
		return "the statement is empty; send exactly one statement"
	}
	for i := range toks {
		if toks[i].is(";") && i != len(toks)-1 {
			return "more than one statement: something stands after a semicolon; send each statement by itself"
		}
	}
	return ""
}

// pair gives, for each opening parenthesis, the index of the one that closes it, and the reverse.
func pair(toks []token) ([]int, string) {
	match := make([]int, len(toks))
	var open []int
	for i := range toks {
		switch {
		case toks[i].is("("):
			if len(open) == MaxDepth {
				return nil, fmt.Sprintf("parentheses stand more than %d deep", MaxDepth)
			}
			open = append(open, i)
		case toks[i].is(")"):
			if len(open) == 0 {
				return nil, "a closing parenthesis has no opening one"
			}
			o := open[len(open)-1]
			open = open[:len(open)-1]
			match[o], match[i] = i, o
		}
	}
	if len(open) != 0 {
		return nil, "an opening parenthesis is never closed"
	}
	return match, ""
}
