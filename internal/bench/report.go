package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Sample is what one system gave for one cell in one repetition.
type Sample struct {
	Rep      int                `json:"rep"`
	Cell     string             `json:"cell"`
	System   string             `json:"system"`
	Seconds  float64            `json:"seconds"`
	Stranger float64            `json:"stranger_cores"` // CPU that others took meanwhile; -1 when it cannot be told
	Values   map[string]float64 `json:"values,omitempty"`
	Error    string             `json:"error,omitempty"`   // why the cell was not measured
	Notes    map[string]string  `json:"notes,omitempty"`   // figure to why it alone was not measured
	Failed   int                `json:"failed,omitempty"`  // acts that failed and are in no figure
	Failure  string             `json:"failure,omitempty"` // the first of them

	unaccounted string // why CPU time is not known
}

// SystemInfo tells of one system of the run.
type SystemInfo struct {
	Name    string `json:"name"`
	What    string `json:"what"`
	Missing string `json:"missing,omitempty"` // why it was not measured
}

// FigureInfo tells what a figure in Sample.Values is.
type FigureInfo struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	What string `json:"what"`
}

// Report is everything that a run found.
type Report struct {
	Time    time.Time         `json:"time"`
	Took    string            `json:"took"`
	Options map[string]any    `json:"options"`
	Machine map[string]string `json:"machine"`
	Systems []SystemInfo      `json:"systems"`
	Figures []FigureInfo      `json:"figures"`
	Samples []Sample          `json:"samples"`
}

// Save writes the report as JSON; the folder is made.
func (r *Report) Save(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// values are the figures of one system over the repetitions, and the first reason why one is missing.
func (r *Report) values(figure, system string) (v []float64, why string, tried bool) {
	for _, s := range r.Samples {
		if s.System != system {
			continue
		}
		x, ok := s.Values[figure]
		switch {
		case ok:
			v = append(v, x)
		case s.Notes[figure] != "":
			tried = true
			why = cmpOr(why, s.Notes[figure])
		case s.Error != "" && slices.Contains(cellFigures(s.Cell), figure):
			tried = true
			why = cmpOr(why, s.Error)
		}
	}
	return v, why, tried || len(v) > 0
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// median is the middle value, or the mean of the two in the middle.
func median(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// Print writes the table and what must be known to read it.
func (r *Report) Print(w io.Writer) error {
	peers := slices.ContainsFunc(r.Systems, func(s SystemInfo) bool { return s.Name == "frp" })
	head, bases := []string{"figure", "unit", "system", "median", "[min–max]", "n"}, []string{sysDirect, sysTLS}
	if peers {
		bases = append(bases, "frp")
	}
	for _, base := range bases {
		head = append(head, "× "+base)
	}
	rows := [][]string{append(head, "target")}
	mid := func(figure, system string) (float64, bool) {
		v, _, _ := r.values(figure, system)
		if len(v) == 0 {
			return 0, false
		}
		return median(v), true
	}
	for _, f := range append(slices.Clone(figures), wanFigures...) {
		shown := f.name
		for _, s := range r.Systems {
			v, why, tried := r.values(f.name, s.Name)
			if !tried {
				continue
			}
			row := []string{shown, f.unit, s.Name}
			shown = ""
			if len(v) == 0 {
				row = append(row, "not measured: "+clip(why, 140))
				for len(row) < len(rows[0]) {
					row = append(row, "")
				}
				rows = append(rows, row)
				continue
			}
			have := median(v)
			row = append(row, number(have), fmt.Sprintf("[%s–%s]", number(slices.Min(v)), number(slices.Max(v))), fmt.Sprint(len(v)))
			for _, base := range bases {
				ratio := ""
				if other, ok := mid(f.name, base); ok && other != 0 && base != s.Name && f.name != "query_added" {
					ratio = number(have / other)
				}
				row = append(row, ratio)
			}
			rows = append(rows, append(row, r.judge(f, s.Name, have, mid)))
		}
	}
	if err := grid(w, rows); err != nil {
		return err
	}
	return r.remarks(w)
}

// judge says how our own systems stand to the targets.
func (r *Report) judge(f figure, system string, have float64, mid func(string, string) (float64, bool)) string {
	if system != sysConnect && system != sysGateway && system != sysAPI {
		return ""
	}
	var said []string
	for _, t := range targets() {
		if t.figure != f.name || t.congestion != "" && t.congestion != r.Options["congestion"] {
			continue
		}
		of, other := t.other, 0.0
		if of == "" {
			of = t.figure
		}
		known := false
		if t.vs == sysRaw {
			if other, known = mid(of, sysGateway); !known {
				other, known = mid(of, sysConnect)
			}
		} else {
			other, known = mid(of, t.vs)
		}
		said = append(said, t.verdict(f.more, have, other, known))
	}
	return strings.Join(said, "; ")
}

// remarks tells what was not there, what failed, and how quiet the machine was.
func (r *Report) remarks(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\n")
	for _, s := range r.Systems {
		if s.Missing != "" {
			fmt.Fprintf(&b, "- %s: not measured: %s\n", s.Name, s.Missing)
		}
	}
	var strangers []float64
	for _, s := range r.Samples {
		if s.Failed > 0 {
			fmt.Fprintf(&b, "- %s of %s, repetition %d: %d failed and are in no figure; the first: %s\n", s.Cell, s.System, s.Rep, s.Failed, clip(s.Failure, 120))
		}
		if s.Stranger >= 0 {
			strangers = append(strangers, s.Stranger)
		}
	}
	if len(strangers) > 0 {
		fmt.Fprintf(&b, "- CPU taken by others meanwhile, in cores: median %.2f, most %.2f\n", median(strangers), slices.Max(strangers))
	} else {
		b.WriteString("- how much CPU others took meanwhile is not known\n")
	}
	var facts []string
	for k, v := range r.Machine {
		facts = append(facts, k+": "+v)
	}
	slices.Sort(facts)
	fmt.Fprintf(&b, "- %s\n- %s, took %s; ratios are of medians\n", strings.Join(facts, "; "), r.Time.UTC().Format("2006-01-02 15:04 UTC"), r.Took)
	_, err := io.WriteString(w, b.String())
	return err
}

// grid prints rows as a table that is also Markdown. The first row is the head.
func grid(w io.Writer, rows [][]string) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			// A reason may run over the columns behind it: it does not widen its own.
			if !strings.HasPrefix(c, "not measured") {
				width[i] = max(width[i], utf8.RuneCountInString(c))
			}
		}
	}
	var b strings.Builder
	for i, row := range rows {
		for k, c := range row {
			b.WriteString("| " + c + strings.Repeat(" ", max(0, width[k]-utf8.RuneCountInString(c))) + " ")
		}
		b.WriteString("|\n")
		if i == 0 {
			for _, n := range width {
				b.WriteString("|" + strings.Repeat("-", n+2))
			}
			b.WriteString("|\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// clip makes one line of an error and shortens it.
func clip(s string, most int) string {
	s = strings.Join(strings.Fields(strings.ReplaceAll(s, "|", "/")), " ")
	if utf8.RuneCountInString(s) > most {
		return string([]rune(s)[:most]) + "…"
	}
	return s
}
