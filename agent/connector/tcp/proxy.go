package tcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// proxySignature begins each header of the PROXY protocol, version 2.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyHeader is the header that names source and destination of a TCP connection. Families that differ are told as IPv6.
func proxyHeader(p protocol.Proxy) []byte {
	b := append(make([]byte, 0, 52), proxySignature...)
	b = append(b, 0x21) // version 2, PROXY
	src, dst := p.Source.Addr(), p.Destination.Addr()
	if src.Is4() && dst.Is4() {
		b = append(b, 0x11, 0, 12)
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	} else {
		b = append(b, 0x21, 0, 36)
		b = append(append(b, six(src)...), six(dst)...)
	}
	b = binary.BigEndian.AppendUint16(b, p.Source.Port())
	return binary.BigEndian.AppendUint16(b, p.Destination.Port())
}

func six(a netip.Addr) []byte { v := a.As16(); return v[:] }

// tellTime is how long a target may take to let some fifty bytes into its socket.
const tellTime = 10 * time.Second

// tellSource writes the header. The bytes of the caller come after it and never before.
func tellSource(target net.Conn, p protocol.Proxy) error {
	err := target.SetWriteDeadline(time.Now().Add(tellTime))
	if err == nil {
		_, err = target.Write(proxyHeader(p))
	}
	if err == nil {
		err = target.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginTarget, Message: "the target closed the connection at once", Cause: err}
	}
	return nil
}
