// Package hub holds the live tunnels by agent: it finds the one that shall carry a request and cuts those that were
// revoked.
//
// A tunnel is live from Add, after the relay has read the agent's Hello, until it ends or is kicked. Hub opens one
// stream a request and speaks HTTP/1.1 on it. It knows nothing of rights: who may ask is decided before, what the site
// does is decided by the agent. It never queues for an absent agent: without a live tunnel the answer is "unavailable"
// at once.
package hub
