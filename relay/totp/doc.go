// Package totp makes and checks the time-based codes of RFC 6238 that authenticator apps show: SHA-1, six digits, steps of 30
// seconds. It is pure: the time comes in, and which step was accepted last is the caller's to keep, so that a code counts once.
package totp
