// Package httpapi forwards HTTP requests to one service on the site's network.
//
// The outgoing request is built here: scheme, host and port come from the profile's base URL and from nowhere else, the
// path is the base path and the checked target, the headers are the caller's without those that speak for a hop, a proxy, a
// client address, another URL or another method. TLS is verified, with the host name. Redirects are answers unless the
// profile follows them, and then each hop is decided again, without credentials once the origin changes. No proxy of the
// environment is used, nothing is decompressed, and both bodies stream.
package httpapi
