// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"
)

// https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, section 2.2

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

	proxyLocal = 0x20 // version 2, LOCAL: our own connection, without a client
	proxyProxy = 0x21 // version 2, PROXY

	proxyUnspecified = 0x00
	proxyTCP4        = 0x11
	proxyTCP6        = 0x21
)

// AppendProxyHeader appends a PROXY protocol header, version 2, for a connection from source to destination. If these are not two
// addresses of one IP family, the header says that the connection is our own, and the pod uses the address that it sees.
func AppendProxyHeader(dst []byte, source, destination netip.AddrPort) []byte {
	dst = append(dst, proxySignature...)
	from, to := source.Addr().Unmap().WithZone(""), destination.Addr().Unmap().WithZone("")
	switch {
	case from.Is4() && to.Is4():
		dst = append(dst, proxyProxy, proxyTCP4, 0, 12)
	case from.Is6() && to.Is6():
		dst = append(dst, proxyProxy, proxyTCP6, 0, 36)
	default:
		return append(dst, proxyLocal, proxyUnspecified, 0, 0)
	}
	dst = append(append(dst, from.AsSlice()...), to.AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, source.Port()), destination.Port())
}
