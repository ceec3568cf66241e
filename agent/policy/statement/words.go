package statement

import (
	"fmt"
	"strings"
)

func upper(s string) string { return strings.ToUpper(s) }

// cut gives what follows the first of the prefixes that s starts with.
func cut(s string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return s[len(p):], true
		}
	}
	return s, false
}

// knownVerb lists the first words that may be named in answers and in the record.
func knownVerb(v string) bool {
	switch v {
	case "select", "with", "values", "table", "show", "explain", "describe", "desc", "pragma",
		"insert", "update", "delete", "merge", "replace", "truncate", "create", "alter", "drop", "rename", "comment",
		"upsert", "copy", "unload", "call", "do", "exec", "execute", "prepare", "deallocate", "set", "reset", "lock",
		"unlock", "listen", "notify", "unlisten", "begin", "commit", "rollback", "savepoint", "release", "end", "abort",
		"start", "grant", "revoke", "deny", "vacuum", "analyze", "analyse", "reindex", "cluster", "refresh", "attach",
		"detach", "handler", "load", "kill", "use", "waitfor", "bulk", "backup", "restore", "dbcc", "declare", "fetch",
		"close", "open", "move", "discard", "checkpoint", "security", "import", "export", "optimize", "repair", "flush",
		"purge", "install", "uninstall", "shutdown", "restart", "change", "stop", "clone", "cache", "binlog", "signal",
		"resignal", "get", "xa", "help", "reassign", "if", "while", "print", "raiserror", "throw", "goto", "return",
		"revert", "save", "reconfigure", "disable", "enable", "send", "receive", "add", "readtext", "writetext",
		"updatetext", "audit", "noaudit", "flashback", "associate", "disassociate", "administer", "check", "checksum",
		"cancel", "append":
		return true
	}
	return false
}

// writeVerb lists the verbs that a read-write profile may run.
func writeVerb(d Dialect, v string) bool {
	switch v {
	case "insert", "update", "delete", "create", "alter", "drop":
		return true
	case "merge":
		return d != MySQL && d != SQLite
	case "truncate":
		return d != SQLite
	case "replace":
		return d == MySQL || d == SQLite
	case "rename":
		return d == MySQL
	case "comment":
		return d.isPG() || d == Oracle
	}
	return false
}

func refusedVerb(v string) string {
	switch v {
	case "begin", "commit", "rollback", "savepoint", "release", "end", "abort", "start", "xa", "save":
		return fmt.Sprintf("%s controls the transaction, which the agent does by itself; send a transaction instead", upper(v))
	case "set", "reset", "use", "discard":
		return fmt.Sprintf("%s changes the session, which the agent sets up by itself; it is not allowed in any mode", upper(v))
	case "copy", "unload", "load", "bulk", "backup", "restore", "import", "export":
		return fmt.Sprintf("%s reaches files or programs of the server and is not allowed in any mode; use SELECT or INSERT",
			upper(v))
	case "call", "do", "exec", "execute", "prepare", "deallocate", "declare":
		return fmt.Sprintf("%s runs code that cannot be judged and is not allowed in any mode; use plain statements", upper(v))
	case "show", "describe", "desc":
		return fmt.Sprintf("%s does not exist in this dialect; query the catalog tables with SELECT", upper(v))
	case "pragma":
		return "this PRAGMA is not on the list of those that only read the schema"
	case "values", "table", "merge", "truncate", "replace", "rename", "comment":
		return fmt.Sprintf("%s does not start a statement in this dialect", upper(v))
	}
	return fmt.Sprintf("%s is not allowed in any mode; a database administrator runs it outside", upper(v))
}

// readWord judges a bare word in a statement that reads.
func (c *checker) readWord(i int) string {
	w := c.toks[i].low
	called := c.is(i+1, "(")
	switch w {
	case "insert", "truncate":
		if called && c.d == MySQL { // functions there
			return ""
		}
	case "replace":
		if called {
			return ""
		}
	case "set":
		if c.word(i-1, "character") {
			return ""
		}
	case "into":
		return "INTO stores the answer in a table, file or variable; leave it out to get the rows"
	case "for":
		if c.word(i+1, "update", "share", "no", "key") && (c.d != MySQL || !c.word(i+1, "key")) {
			return "FOR UPDATE and FOR SHARE lock rows; leave them out of a read-only statement"
		}
		return ""
	case "lock":
		if c.word(i+1, "in", "table", "tables") || c.d == SQLServer {
			return "LOCK takes locks; leave it out of a read-only statement"
		}
		return ""
	case "next", "previous":
		if c.word(i+1, "value") && c.word(i+2, "for") {
			return "NEXT VALUE FOR changes a sequence; use a profile whose mode is read_write"
		}
		return ""
	case "external":
		if c.d == Oracle && called {
			return "EXTERNAL tables read files of the server and are not allowed"
		}
		return ""
	case "procedure":
		if c.d == MySQL {
			return "PROCEDURE is not allowed in a read-only statement"
		}
	}
	switch w {
	case "insert", "update", "delete", "merge", "truncate", "create", "alter", "drop", "replace":
		return fmt.Sprintf("%s changes data; quote it if it is a name, or use a profile whose mode is read_write", upper(w))
	case "grant", "revoke", "set", "do", "copy", "call", "exec", "execute", "prepare", "deallocate", "declare", "commit",
		"rollback", "savepoint", "vacuum", "attach", "detach", "reindex", "pragma", "handler", "outfile", "dumpfile",
		"infile", "waitfor", "openrowset", "opendatasource", "openquery", "openxml", "listen", "unlisten":
		return notAllowedWord(w)
	}
	if c.d == SQLServer {
		return c.tsqlWord(i)
	}
	return ""
}

func notAllowedWord(w string) string {
	return fmt.Sprintf("%s is not allowed in this statement; quote it if it is a name", upper(w))
}

// tsqlWord refuses the words that start a statement in T-SQL, where no semicolon need stand between two statements.
func (c *checker) tsqlWord(i int) string {
	switch w := c.toks[i].low; w {
	case "fetch":
		if c.word(i-1, "row", "rows") {
			return ""
		}
	case "use":
		if c.word(i+1, "hint", "plan") {
			return ""
		}
	case "if", "while", "begin", "else", "declare", "print", "raiserror", "throw", "goto", "return", "break", "continue",
		"revert", "save", "tran", "transaction", "shutdown", "reconfigure", "checkpoint", "dbcc", "backup", "restore",
		"bulk", "deny", "kill", "open", "close", "dump", "load", "setuser", "trigger", "conversation", "signature",
		"receive", "readtext", "writetext", "updatetext", "lineno", "disk", "add", "try", "catch", "send":
		if w == "else" && c.elses[i] {
			return ""
		}
	default:
		return ""
	}
	return notAllowedWord(c.toks[i].low)
}
