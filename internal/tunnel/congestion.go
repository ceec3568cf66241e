package tunnel

import (
	"errors"
	"net"
)

// Settings of Config.Congestion beside names.
const (
	CongestionAuto   = "auto"   // BBR where the kernel allows it to everybody, else the system's
	CongestionSystem = "system" // the system's
)

// congestionWished keeps a lossy line full and its queues short: a lost packet is not taken for a jam.
const congestionWished = "bbr"

// ValidCongestion judges the form of a setting of Config.Congestion. Whether this host's kernel has it is another matter:
// see CheckCongestion.
func ValidCongestion(setting string) error {
	if len(setting) > 15 { // TCP_CA_NAME_MAX less its end
		return errors.New("is longer than any name of a congestion control")
	}
	for _, c := range []byte(setting) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return errors.New("is not a name of a congestion control")
		}
	}
	return nil
}

// CheckCongestion says why a setting cannot be had on this host. Tunnels work all the same, with the system's.
func CheckCongestion(setting string) error {
	_, err := resolveCongestion(setting)
	return err
}

// socket finds the TCP connection below TLS and its like.
func socket(c net.Conn) (*net.TCPConn, bool) {
	for {
		switch t := c.(type) {
		case *net.TCPConn:
			return t, true
		case *batchConn:
			c = t.Conn
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return nil, false
		}
	}
}
