// Package plainjson reads and writes, without encoding/json, the spelling of JSON that this project's programs give their records:
// what encoding/json leaves as it is, in printable ASCII.
//
// It decides nothing by itself. What it does not know for sure to be in that spelling, it leaves to encoding/json, to which its
// callers turn then: so a value is taken or refused as encoding/json would have it, only faster where it is one of ours.
package plainjson
