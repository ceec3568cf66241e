package store

import "database/sql"

// Gateway is a TCP port at the relay that leads to a connection's target.
type Gateway struct {
	ID, Workspace, Connection string
	Version                   int64
	AddressDigest             []byte
	Sealed                    []byte
}

const gatewayColumns = "id, workspace, connection, version, address_digest, sealed"

func scanGateway(r *sql.Rows, v *Gateway) error {
	return r.Scan(&v.ID, &v.Workspace, &v.Connection, &v.Version, &v.AddressDigest, &v.Sealed)
}

// Gateway reads the gateway of a connection.
func (t *Tx) Gateway(workspace, connection string) (Gateway, error) {
	return one(list(t, scanGateway, "SELECT "+gatewayColumns+" FROM gateways WHERE workspace = ? AND connection = ?", workspace, connection))
}

// PutGateway writes the gateway of a connection, or the next version of it. ErrExists: another has its address.
// ErrReferenced: there is no such connection in the workspace.
func (t *Tx) PutGateway(v Gateway) error {
	return t.exec(`INSERT INTO gateways (id, workspace, connection, version, address_digest, sealed) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (connection) DO UPDATE SET version = excluded.version, address_digest = excluded.address_digest,
		sealed = excluded.sealed WHERE gateways.id = excluded.id AND gateways.workspace = excluded.workspace
		AND gateways.version = excluded.version - 1`,
		v.ID, v.Workspace, v.Connection, v.Version, v.AddressDigest, v.Sealed)
}

// DeleteGateway removes the gateway of a connection.
func (t *Tx) DeleteGateway(workspace, connection string) error {
	return t.exec("DELETE FROM gateways WHERE workspace = ? AND connection = ?", workspace, connection)
}
