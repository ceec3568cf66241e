// Package authn tells who asks: it turns an Authorization header into a principal of the snapshot.
//
// A token is found by its keyed digest and then verified by its slow hash (PBKDF2), at most a few at a time. What was verified is
// remembered for minutes by the keyed digest, so that the hot path costs one HMAC; whether the token is revoked or expired, or its
// principal disabled, is asked of the snapshot every time. All refusals look the same from outside, and none of them costs the
// slow hash: that is paid only for a text whose keyed digest is in the database.
package authn
