package client

import (
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// Numeric reports whether a column's values are numbers, whatever JSON type carries them.
func Numeric(c protocol.Column) bool {
	switch c.Type {
	case "int", "decimal", "float":
		return true
	}
	return false
}

// NoFormula puts ' before text that a spreadsheet would take for a formula. A number of a numeric column stays a number, also a decimal,
// which travels as text.
func NoFormula(c protocol.Column, text string) string {
	if text == "" || !strings.ContainsRune("=+-@\t\r", rune(text[0])) || Numeric(c) && strings.Trim(text, "+-.0123456789eE") == "" {
		return text
	}
	return "'" + text
}
