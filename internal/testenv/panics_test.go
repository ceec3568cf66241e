package testenv

import "testing"

// A panic is seen in whatever way it is told; an id in which the word happens to stand is none.
func TestAPanicIsToldFromAnID(t *testing.T) {
	for _, line := range []string{`level=ERROR msg="request panicked" request_id=req_a panic=runtime.errorString stack="goroutine 7 [running]"`, `level=ERROR msg="operation panicked" request_id=req_a panic=string`,
		"panic: runtime error: index out of range", "goroutine 1 [running]:", `error="panic: x"`} {
		if got := Panicked("first\n" + line + "\nlast"); got != line {
			t.Errorf("%q is told as %q", line, got)
		}
	}
	for _, line := range []string{"", "msg=request request_id=req_43acpanicjt64e7wx25xcc2e3de status=200", "request_id=req_43acgejggt64e7wx25xccpanic took=5µs"} {
		if got := Panicked("first\n" + line + "\nlast"); got != "" {
			t.Errorf("%q is taken for a panic", got)
		}
	}
}
