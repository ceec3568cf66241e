// Package envelope is the arithmetic of data at rest: which key opens what. It knows no database and no request.
//
//	KEK (file, environment)     wraps   one Key per workspace, and one for the installation
//	Key                         wraps   one fresh key per sealed value
//	that fresh key              seals   the value
//
// Every layer is AES-256-GCM with a random nonce. Since each value has a key of its own, a nonce that comes twice (a virtual
// machine set back to a snapshot) never meets the same key. Every layer also authenticates its Context: the workspace, table,
// row, column and version that the value belongs to, so that a sealed value that was moved, swapped or taken from a backup of
// another place does not open.
//
// A sealed value is:
//
//	1 byte    format (1)
//	16 bytes  id of the Key that wraps (a commitment to that key: a value opens under one key only)
//	60 bytes  the value's key, wrapped: nonce 12 | key 32 | tag 16
//	n+28      the value: nonce 12 | ciphertext n | tag 16
//
// It never logs, never keeps a plaintext, and never falls back: what does not open is ErrOpen.
package envelope
