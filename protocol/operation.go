package protocol

// Kind is the kind of a profile: the section of agent.yaml that it stands in.
type Kind string

const (
	KindDatabase Kind = "database"
	KindFiles    Kind = "files"
	KindHTTP     Kind = "http"
	KindTCP      Kind = "tcp"
)

// Operation is what is asked of a connection.
type Operation string

const (
	OpQuery       Operation = "query"       // database: rows of one statement
	OpExec        Operation = "exec"        // database: one statement that changes data; answers the count
	OpTransaction Operation = "transaction" // database: several statements, all or nothing
	OpSchema      Operation = "schema"      // database: tables, columns, keys
	OpList        Operation = "list"        // files: names in a folder, paged
	OpStat        Operation = "stat"        // files: one file's facts
	OpRead        Operation = "read"        // files: content, with ranges
	OpWrite       Operation = "write"       // files: content, atomic
	OpDelete      Operation = "delete"      // files: a file or an empty folder
	OpMove        Operation = "move"        // files: rename inside the profile
	OpMkdir       Operation = "mkdir"       // files: a folder
	OpRequest     Operation = "request"     // http: one request to the target
	OpDial        Operation = "dial"        // tcp, and database profiles that say so: raw bytes
)

// A wireForm says how an operation looks on a stream.
type wireForm struct {
	kinds  []Kind
	method string
}

var forms = map[Operation]wireForm{
	OpQuery:       {[]Kind{KindDatabase}, "POST"},
	OpExec:        {[]Kind{KindDatabase}, "POST"},
	OpTransaction: {[]Kind{KindDatabase}, "POST"},
	OpSchema:      {[]Kind{KindDatabase}, "GET"},
	OpList:        {[]Kind{KindFiles}, "GET"},
	OpStat:        {[]Kind{KindFiles}, "GET"},
	OpRead:        {[]Kind{KindFiles}, "GET"},
	OpWrite:       {[]Kind{KindFiles}, "PUT"},
	OpDelete:      {[]Kind{KindFiles}, "DELETE"},
	OpMove:        {[]Kind{KindFiles}, "POST"},
	OpMkdir:       {[]Kind{KindFiles}, "POST"},
	OpRequest:     {[]Kind{KindHTTP}, "POST"},
	OpDial:        {[]Kind{KindTCP, KindDatabase}, "POST"},
}

// Operations lists every operation of a kind in a fixed order.
func Operations(k Kind) []Operation {
	all := []Operation{OpQuery, OpExec, OpTransaction, OpSchema, OpList, OpStat, OpRead, OpWrite, OpDelete, OpMove, OpMkdir, OpRequest, OpDial}
	var ops []Operation
	for _, op := range all {
		if op.validFor(k) {
			ops = append(ops, op)
		}
	}
	return ops
}

func (o Operation) validFor(k Kind) bool {
	for _, have := range forms[o].kinds {
		if have == k {
			return true
		}
	}
	return false
}
