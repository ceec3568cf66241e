package api

import (
	"encoding/csv"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// J11: what stands in a row or in the name of a column is no formula to the spreadsheet that opens the answer; numbers stay numbers.
func TestNoCellOfAnAnswerIsAFormula(t *testing.T) {
	for name, c := range map[string]struct{ kind, cell, want string }{
		"J11 equals":                         {"text", `"=cmd|' /C calc'!A0"`, `'=cmd|' /C calc'!A0`},
		"J11 plus":                           {"text", `"+49 30 123"`, `'+49 30 123`},
		"J11 minus":                          {"text", `"-2+3+cmd"`, `'-2+3+cmd`},
		"J11 at":                             {"text", `"@SUM(A1)"`, `'@SUM(A1)`},
		"J11 tab":                            {"text", `"\t=1"`, "'\t=1"},
		"J11 carriage return":                {"text", `"\r=1"`, "'\r=1"},
		"J11 what calls itself a number":     {"decimal", `"=1+1"`, `'=1+1`},
		"J11 a number in a column of text":   {"text", `"-1"`, `'-1`},
		"J11 a cell that no column is of":    {"", `"=1"`, `'=1`},
		"a negative number":                  {"int", `-1`, `-1`},
		"a negative number beyond a float's": {"decimal", `"-12345678901234567890.10"`, `-12345678901234567890.10`},
		"text":                               {"text", `"a=b"`, `a=b`},
		"nothing":                            {"text", `null`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			out := newCSVWriter(w)
			out.WriteHeader(http.StatusOK)
			head := `{"columns":[{"name":"=a","type":"text"}`
			if c.kind != "" {
				head += `,{"name":"b","type":"` + c.kind + `"}`
			}
			for _, line := range []string{head + "]}\n", `["x",` + c.cell + "]\n", `{"end":{"rows":1}}` + "\n"} {
				if _, err := out.Write([]byte(line)); err != nil {
					t.Fatal(err)
				}
			}
			if err := out.finish(); err != nil {
				t.Fatal(err)
			}
			r := csv.NewReader(w.Body)
			r.FieldsPerRecord = -1
			table, err := r.ReadAll()
			if err != nil || len(table) != 2 || table[0][0] != "'=a" || !slices.Equal(table[1], []string{"x", c.want}) {
				t.Errorf("%q, %v", table, err)
			}
		})
	}
}
