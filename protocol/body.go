package protocol

import "encoding/json"

// ContentNDJSON is the media type of results: one JSON value a line.
const ContentNDJSON = "application/x-ndjson"

// Statement is one SQL statement, or the name of a statement that the agent's own file declares. Args are bound as
// parameters, never spliced. An argument is a JSON scalar, or {"type": "bytes", "value": "base64…"} where the type
// matters (see docs: types on the wire).
type Statement struct {
	SQL  string            `json:"sql,omitempty"`
	Name string            `json:"statement,omitempty"`
	Args []json.RawMessage `json:"args,omitempty"`
}

// QueryBody is the body of OpQuery and OpExec.
type QueryBody struct {
	Statement
}

// Verdict answers a request that wants to be explained (RequireExplain): what the agent would decide now. What only shows when it is
// done is not in it: the address that a name leads to, what the database's account may, whether a file is there. Which line of its
// file decided the agent tells nobody: that would tell a profile that is not there from one that does not allow.
type Verdict struct {
	Allow     bool   `json:"allow"`
	Rule      string `json:"rule,omitempty"`
	Reason    string `json:"reason"`
	Hint      string `json:"hint,omitempty"`
	Code      Code   `json:"code,omitempty"`      // of a denial
	Statement string `json:"statement,omitempty"` // without literals, as the audit log shows it
	MaxRows   int64  `json:"max_rows,omitempty"`  // caps that hold when it is allowed; 0: none
	MaxBytes  int64  `json:"max_bytes,omitempty"`
	TimeoutMs int64  `json:"timeout_ms,omitempty"`
}

// MaxVerdictBytes bounds the JSON of a Verdict.
const MaxVerdictBytes = 64 << 10

// TransactionBody is the body of OpTransaction: all statements take effect, or none.
type TransactionBody struct {
	Statements []Statement `json:"statements"`
}

// Column describes one column of a result.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`          // the wire type: see docs, "types on the wire"
	Database string `json:"database_type"` // the database's own name
	Nullable *bool  `json:"nullable,omitempty"`
	Masked   bool   `json:"masked,omitempty"`
}

// A query's answer is NDJSON: one ResultHead, then one JSON array a row, then one ResultEnd. A stream that ends
// without a ResultEnd was cut and must be treated as failed.
type (
	// ResultHead is the first line.
	ResultHead struct {
		Columns []Column `json:"columns"`
	}
	// ResultEnd is the last line: either End or Error is set.
	ResultEnd struct {
		End   *End   `json:"end,omitempty"`
		Error *Error `json:"error,omitempty"`
	}
	// End sums up a complete answer.
	End struct {
		Rows      int64  `json:"rows"`
		Truncated string `json:"truncated,omitempty"` // the cap that cut the answer: max_rows, max_bytes; "" when whole
		ElapsedMs int64  `json:"elapsed_ms"`
	}
)

// ExecResult answers OpExec; a transaction answers one for each statement.
type ExecResult struct {
	RowsAffected int64  `json:"rows_affected"`
	LastInsertID *int64 `json:"last_insert_id,omitempty"` // MySQL and SQLite only
}

// TransactionResult answers OpTransaction.
type TransactionResult struct {
	Results []ExecResult `json:"results"`
}

// Schema answers OpSchema.
type Schema struct {
	Tables []Table `json:"tables"`
	// Truncated says that more tables exist than the agent lists (10,000).
	Truncated bool `json:"truncated,omitempty"`
}

// Table is a table or view.
type Table struct {
	Schema      string        `json:"schema,omitempty"`
	Name        string        `json:"name"`
	Type        string        `json:"type"` // table or view
	Columns     []TableColumn `json:"columns"`
	PrimaryKey  []string      `json:"primary_key,omitempty"`
	ForeignKeys []ForeignKey  `json:"foreign_keys,omitempty"`
}

// TableColumn is a column of a table.
type TableColumn struct {
	Name     string `json:"name"`
	Type     string `json:"type"` // the database's own name
	Nullable bool   `json:"nullable"`
	Masked   bool   `json:"masked,omitempty"`
}

// ForeignKey says which columns point where.
type ForeignKey struct {
	Columns    []string `json:"columns"`
	References string   `json:"references"` // schema.table
	To         []string `json:"to"`
}

// FileInfo is what is told of one file or folder.
type FileInfo struct {
	Path    string `json:"path"` // slash-separated, relative to the profile's base
	Folder  bool   `json:"folder,omitempty"`
	Size    int64  `json:"size"`
	ModTime string `json:"mod_time"`       // RFC 3339, UTC
	ETag    string `json:"etag,omitempty"` // files only, strong, quoted as in RFC 9110
	// Uploaded is set by a stat with an upload id: bytes that the partial upload holds so far.
	Uploaded *int64 `json:"uploaded,omitempty"`
}

// FileList is one page of a folder.
type FileList struct {
	Files  []FileInfo `json:"files"`
	Cursor string     `json:"cursor,omitempty"` // pass it to get the next page; "" on the last
}

// Outcome is how an operation ended, as the agent saw it. It travels as a trailer after a streamed body.
type Outcome struct {
	Code      Code   `json:"code,omitempty"` // "" means it went well
	Rule      string `json:"rule,omitempty"`
	Rows      int64  `json:"rows,omitempty"`
	Bytes     int64  `json:"bytes,omitempty"`     // answer bytes (or, dial: to the caller)
	BytesIn   int64  `json:"bytes_in,omitempty"`  // request body bytes taken (dial: from the caller)
	Truncated string `json:"truncated,omitempty"` // the cap that cut the answer
	Status    int    `json:"status,omitempty"`    // http: the target's status
}
