// Package authn tells who asks: it turns an Authorization header into a principal of the snapshot.
//
// A token is found by its keyed digest and then verified by its slow hash (PBKDF2), at most a few at a time. What was verified is
// remembered for minutes by the keyed digest, so that the hot path costs one HMAC; whether the token is revoked or expired, or its
// principal disabled, is asked of the snapshot every time. All refusals look the same from outside, and none of them costs the
// slow hash: that is paid only for a text whose keyed digest is in the database.
//
// People sign in with user name, password and, where they have one, a code of the second factor (People). Whoever is unknown costs
// the same slow hash as who is known, and gets the same answer. Guessing is slowed down for each account and network together, so
// that nobody can lock somebody else out. What they get is a session, which is found like a token and needs no slow hash.
package authn
