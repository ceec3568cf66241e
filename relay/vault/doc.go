// Package vault seals and opens what the relay keeps. It is the only package that imports internal/envelope: it holds the KEK,
// the installation's key and the workspaces' keys, and gives none of them away.
//
// What is sealed is bound to its place (workspace, table, row, column, version). Names are looked up by keyed digests, so that
// the database tells nothing about them; API tokens, which are only ever verified, are kept as a keyed digest to find them by
// and a slow hash (PBKDF2-HMAC-SHA512) to verify them by.
package vault
