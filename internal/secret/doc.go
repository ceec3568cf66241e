// Package secret holds bytes that must not be seen: passwords, tokens, keys.
//
// A Bytes prints as "[redacted]" through every way Go has to print it (fmt verbs, slog, JSON, text encoding). The value
// comes out by Expose alone, so that a search for Expose finds every place where a secret is used. Bytes never stands
// in a wire or storage struct: there it would arrive as the word "[redacted]".
package secret
