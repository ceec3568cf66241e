// Package mutant changes checks in Go source one at a time, to see whether the tests notice: a change that no test notices (a mutant
// that survives) is a check that nobody would miss. It is for the packages that decide who may do what; make mutants runs it.
//
// The tree is not touched: each mutant is given to the go command as an overlay (go help build, -overlay).
package mutant
