// Package password judges what people choose for a password, after NIST SP 800-63B-4: long enough, not one of those that
// everybody tries, not in a list of those that leaked, without the user's name in it. What kinds of characters must be in it is
// left free unless a workspace sets it.
//
// It hashes and keeps nothing, and no error of it holds the password or a part of it.
package password
