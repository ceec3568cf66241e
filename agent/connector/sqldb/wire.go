package sqldb

// kind is how a value travels; its name is Column.Type.
type kind uint8

const (
	kText kind = iota
	kInt
	kDecimal
	kFloat
	kBool
	kBytes
	kTimestampTZ
	kTimestamp
	kDate
	kTime
	kInterval
	kJSON
	kUUID
	kAny // SQLite: a column without a declared type, each value as it is stored
)

var kindNames = [...]string{"text", "int", "decimal", "float", "bool", "bytes", "timestamptz", "timestamp", "date", "time", "interval",
	"json", "uuid", "any"}

func (k kind) String() string { return kindNames[k] }

// appendText appends a value that the database has printed as text.
func appendText(dst []byte, k kind, v []byte) []byte {
	switch k {
	case kInt:
		return appendInt(dst, v)
	case kFloat:
		return appendNumber(dst, v)
	case kBool:
		if len(v) == 1 && v[0] == 't' {
			return append(dst, "true"...)
		} else if len(v) == 1 && v[0] == 'f' {
			return append(dst, "false"...)
		}
		return appendString(dst, v)
	case kTimestampTZ, kTimestamp:
		return appendStamp(dst, v)
	case kJSON:
		return appendJSON(dst, v)
	}
	return appendString(dst, v)
}
