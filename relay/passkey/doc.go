// Package passkey runs the ceremonies of WebAuthn (Level 3): it makes the options that a browser hands to an authenticator, and
// verifies the answers. It knows no people and keeps no credentials; what it keeps is the challenges that are open, in memory,
// each for one answer. User verification is always demanded, so a passkey stands for a password and a second factor.
package passkey
