// Package tcp opens connections to targets on the site's network: the Dialer for every connector, and raw bytes for the
// operation dial.
//
// The Dialer promises that a name is resolved once, that every address it gave is decided by the policy, that exactly the
// decided address is dialled, and that this is asserted again on the socket just before it connects. Nothing between the
// check and the connect looks a name up, so an answer of DNS that changes in between (rebinding) changes nothing. No proxy
// of the environment is ever used.
package tcp
