package testenv

import "regexp"

// panicked is what our programs, and the runtime, say of a panic. The bare word may stand in a random id.
var panicked = regexp.MustCompile(`(?m)^.*(?:panicked|panic[=:]|goroutine \d+ \[).*$`)

// Panicked gives the first line of a log that tells of a panic; "" for none.
func Panicked(log string) string { return panicked.FindString(log) }
