package cli

import (
	"bufio"
	"io"
	"strings"
)

// tableSample is how many rows a TableWriter looks at before it fixes the widths.
const tableSample = 200

// A TableWriter prints rows in aligned columns without holding all of them: the widths are those of the header and the
// first 200 rows; a wider cell after that pushes its own line only. Cells pass Clean. Not for concurrent use.
type TableWriter struct {
	w      *bufio.Writer
	header []string
	right  []bool
	rows   [][]string
	widths []int
	fixed  bool
}

// NewTable starts a table. right says which columns stand to the right (numbers); nil means none. Flush ends it.
func NewTable(w io.Writer, header []string, right []bool) *TableWriter {
	t := &TableWriter{w: bufio.NewWriter(w), right: right, widths: make([]int, len(header))}
	t.header = cleanAll(header)
	return t
}

// Row adds a row. Missing cells are empty.
func (t *TableWriter) Row(cells ...string) error {
	row := cleanAll(cells)
	if t.fixed {
		return t.print(row)
	}
	t.rows = append(t.rows, row)
	if len(t.rows) < tableSample {
		return nil
	}
	return t.fix()
}

// Flush prints what is held back.
func (t *TableWriter) Flush() error {
	if !t.fixed {
		if err := t.fix(); err != nil {
			return err
		}
	}
	return t.w.Flush()
}

func (t *TableWriter) fix() error {
	t.fixed = true
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			if i < len(t.widths) {
				t.widths[i] = max(t.widths[i], Width(cell))
			}
		}
	}
	if err := t.print(t.header); err != nil {
		return err
	}
	for _, row := range t.rows {
		if err := t.print(row); err != nil {
			return err
		}
	}
	t.rows = nil
	return t.w.Flush() // a slow query shows its first rows
}

func (t *TableWriter) print(row []string) error {
	var b strings.Builder
	for i := range t.widths {
		cell := ""
		if i < len(row) {
			cell = row[i]
		}
		pad := strings.Repeat(" ", max(0, t.widths[i]-Width(cell)))
		if i > 0 {
			b.WriteString("  ")
		}
		if i < len(t.right) && t.right[i] {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	_, err := t.w.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	return err
}

func cleanAll(cells []string) []string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = Clean(c)
	}
	return out
}

// Table prints a whole table on Out, with its header in capitals.
func (t *Term) Table(header []string, rows [][]string) error {
	upper := make([]string, len(header))
	for i, h := range header {
		upper[i] = strings.ToUpper(h)
	}
	w := NewTable(t.Out, upper, nil)
	for _, row := range rows {
		if err := w.Row(row...); err != nil {
			return err
		}
	}
	return w.Flush()
}
