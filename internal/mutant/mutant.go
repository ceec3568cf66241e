package mutant

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// Mutant is one change of one file.
type Mutant struct {
	File string // as it was given to Find
	Line int
	Func string // name of the function or method, "" outside of any
	What string // what was done, in words
	Text string // the line that it begins in, without blanks around it
	Nth  int    // of those with the same File, Func, What and Text, from 1

	from, to int // offsets
	with     string
}

// Key names a mutant for as long as its line and its function stay, wherever they move within the file.
func (m Mutant) Key() string {
	return fmt.Sprintf("%s | %s | %s | %s | %d", m.File, m.Func, m.What, m.Text, m.Nth)
}

// Apply gives the changed source.
func (m Mutant) Apply(src []byte) []byte {
	return slices.Concat(src[:m.from], []byte(m.with), src[m.to:])
}

var comparisons = map[token.Token][]token.Token{
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
}

// Find gives the mutants of a Go file: every condition always true and never, every comparison another, every "and" an "or" and the
// reverse, every "not" left out, every true and false that is returned the other, every call for its effect and every assignment to
// what a function has no other hold of left out, "continue" a "break".
func Find(file string, src []byte) ([]Mutant, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	w := finder{file: file, src: src, set: set, seen: map[string]int{}}
	for _, d := range f.Decls {
		w.fn = ""
		if fn, ok := d.(*ast.FuncDecl); ok {
			w.fn = fn.Name.Name
			if fn.Recv != nil && len(fn.Recv.List) == 1 {
				w.fn = strings.TrimPrefix(w.text(fn.Recv.List[0].Type), "*") + "." + w.fn
			}
		}
		ast.Inspect(d, w.node)
	}
	return w.found, nil
}

type finder struct {
	file, fn string
	src      []byte
	set      *token.FileSet
	seen     map[string]int
	found    []Mutant
}

func (w *finder) at(p token.Pos) int { return w.set.Position(p).Offset }

func (w *finder) text(n ast.Node) string { return string(w.src[w.at(n.Pos()):w.at(n.End())]) }

func (w *finder) add(what string, from, to token.Pos, with string) {
	m := Mutant{File: w.file, Line: w.set.Position(from).Line, Func: w.fn, What: what, from: w.at(from), to: w.at(to), with: with}
	begin := strings.LastIndexByte(string(w.src[:m.from]), '\n') + 1
	line, _, _ := strings.Cut(string(w.src[begin:]), "\n")
	m.Text = strings.TrimSpace(line)
	w.seen[m.Key()]++ // with Nth 0
	m.Nth = w.seen[m.Key()]
	w.found = append(w.found, m)
}

// condition makes it always true, and never. It is still worked out, so that what it declares is used.
func (w *finder) condition(e ast.Expr) {
	w.add("condition always true", e.Pos(), e.End(), "(("+w.text(e)+") || true)")
	w.add("condition never true", e.Pos(), e.End(), "(("+w.text(e)+") && false)")
}

func (w *finder) node(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		w.condition(n.Cond)
	case *ast.SwitchStmt:
		if n.Tag != nil {
			break
		}
		for _, c := range n.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				w.condition(e)
			}
		}
	case *ast.BinaryExpr:
		for _, op := range comparisons[n.Op] {
			w.add(n.Op.String()+" made "+op.String(), n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), op.String())
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			w.add("! left out", n.OpPos, n.OpPos+1, "")
		}
	case *ast.ReturnStmt:
		for _, r := range n.Results {
			switch w.text(r) {
			case "true":
				w.add("true made false", r.Pos(), r.End(), "false")
			case "false":
				w.add("false made true", r.Pos(), r.End(), "true")
			}
		}
	case *ast.BranchStmt:
		if n.Tok == token.CONTINUE && n.Label == nil {
			w.add("continue made break", n.Pos(), n.End(), "break")
		}
	case *ast.ExprStmt:
		if _, ok := n.X.(*ast.CallExpr); ok {
			w.add("call left out", n.Pos(), n.End(), "")
		}
	case *ast.AssignStmt:
		if n.Tok == token.ASSIGN && len(n.Lhs) == 1 {
			switch n.Lhs[0].(type) {
			case *ast.SelectorExpr, *ast.IndexExpr, *ast.StarExpr:
				w.add("assignment left out", n.Pos(), n.End(), "_ = "+w.text(n.Rhs[0]))
			}
		}
	}
	return true
}
