// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"bytes"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
)

// An independent parser reads the whole header that we write.
func TestProxyHeader(t *testing.T) {
	for name, tc := range map[string]struct {
		source, destination string
		wantSource, wantTo  string
		local               bool
	}{
		"IPv4":                  {"192.0.2.7:4321", "10.0.0.1:80", "192.0.2.7:4321", "10.0.0.1:80", false},
		"IPv6":                  {"[2001:db8::7]:65535", "[fd00::1]:443", "[2001:db8::7]:65535", "[fd00::1]:443", false},
		"IPv4 mapped into IPv6": {"[::ffff:192.0.2.7]:1", "[::ffff:10.0.0.1]:80", "192.0.2.7:1", "10.0.0.1:80", false},
		"a zone":                {"[fe80::1%eth0]:1", "[fe80::2%eth0]:80", "[fe80::1]:1", "[fe80::2]:80", false},
		"of two families":       {"192.0.2.7:4321", "[fd00::1]:80", "", "", true},
		"none":                  {"", "", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			source, _ := netip.ParseAddrPort(tc.source) // an empty string gives the zero AddrPort
			destination, _ := netip.ParseAddrPort(tc.destination)
			b := AppendProxyHeader(nil, source, destination)
			if cap(make([]byte, 0, 64)) < len(b) {
				t.Errorf("%d bytes", len(b))
			}
			r := bufio.NewReader(bytes.NewReader(append(b, "next"...)))
			h, err := proxyproto.Read(r)
			if err != nil {
				t.Fatalf("%x: %v", b, err)
			}
			if rest, _ := r.Peek(5); string(rest) != "next" {
				t.Errorf("%q is behind the header", rest)
			}
			if h.Version != 2 || h.Command.IsLocal() != tc.local {
				t.Errorf("version %d, command %x", h.Version, h.Command)
			}
			if !tc.local && (h.SourceAddr.String() != tc.wantSource || h.DestinationAddr.String() != tc.wantTo) {
				t.Errorf("from %s to %s", h.SourceAddr, h.DestinationAddr)
			}
		})
	}
}
