// Package mask replaces values that must not leave the site: named columns of an answer, and payment card numbers and
// e-mail addresses found in text.
//
// It is pure: no I/O, no clock, no globals that change. A *Set is immutable and safe for concurrent use; a nil *Set masks
// nothing.
//
// Promises:
//   - Union only adds: what a masks or b masks, Union(a, b) masks. Whoever adds a set (the relay) can narrow what leaves the
//     site and never widen it.
//   - Text is idempotent, Text(Text(x)) == Text(x), and takes time linear in the length of its input.
//   - When in doubt it masks: a pattern "hr.salary" masks a column "salary" whose table is not known.
//
// Detectors find what is written in the usual ways. They are a net under the column patterns, not a replacement: a card number
// that is spelt in words, in another alphabet's digits or in base64 is not found.
package mask
