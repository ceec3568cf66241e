// Package enroll turns a join token into the agent's identity, keeps that identity on disk, and renews it.
//
// The private key is made here and never leaves. The join token carries the relay's addresses, the pin of its CA and a
// single-use secret; the relay is believed only if its chain ends in the pinned CA. What is kept in the data folder:
//
//	identity.pem   certificate chain and private key, one file so that they change together; 0600
//	identity.json  which agent, workspace, group, installation; relay addresses
//	ca.pem         the only CA the agent trusts for the tunnel
//	audit.key      the key that signs checkpoints of the agent's audit log; 0600
package enroll
