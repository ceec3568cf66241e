// Package statement judges one SQL statement before any database sees it: may a read-only profile run it, may a
// read-write profile run it, or may nobody.
//
// It reads text and nothing else: it holds no connection, knows no schema and keeps no state, so the same text always
// gets the same answer and [Analyze] may be called from any number of goroutines.
//
// # How it decides
//
// A lexer per dialect splits the text into tokens. Text whose meaning hangs on a server setting that the agent cannot
// see (backslash escapes, ANSI_QUOTES) is lexed under every setting and refused when the borders of the tokens differ.
// A classifier then allows what it understands and refuses the rest: the verb must be on a list, common table
// expressions must be queries themselves, the words that start or change a statement must not stand outside quotes, and
// functions that reach past the database, keep state or run text as SQL must not be called.
//
// # What it promises
//
//   - ClassRead means: exactly one statement, of a kind that reads.
//   - The fingerprint never holds a literal of the statement, nor a comment.
//   - Reasons name keywords and bare function names, never literals.
//   - It never panics, and its work is bounded by [MaxBytes], [MaxTokens] and [MaxDepth].
//
// # What it never does
//
// It does not replace the grants of the database role. A function that the customer wrote may write whatever its author
// gave it the right to; the read-only transaction and the role stop that, not this package. It parses no grammar in full,
// so a statement that a server would refuse as faulty may well pass here.
package statement
