// Package pages serves the account pages: signing in, the own account, a first password by a link, and giving the fairlead program a
// session. They are a few static files without a build step, and stand on the public API alone.
//
// It promises: what it serves is the same for everybody, holds nothing, and runs nothing but its own scripts (Content-Security-Policy
// with 'self', Trusted Types with no policy). Only the paths of its own files exist, under /account/.
//
// It never reads a cookie, a query or a body, and never decides anything: that is the API's.
package pages
