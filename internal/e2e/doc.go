// Package e2e holds the scenarios of the whole: a caller at the relay, a real agent, real targets. Test files only.
package e2e
