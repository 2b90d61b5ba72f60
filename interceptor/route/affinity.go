// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// chooseFor returns the client's own endpoint: the one with the highest weight for the hash of its address or session. While that one
// is suspect, it returns the endpoint with the next highest weight. All interceptors compute the same weights without talking to each
// other. A pod that joins or leaves moves only its own clients (rendezvous hashing). Retry is as for choose.
func (s *snapshot) chooseFor(c clock, hash uint64) (_ *Endpoint, retry int64) {
	for {
		var best *Endpoint
		var most uint64
		var suspicion int64
		now := c.now()
		for _, e := range s.endpoints {
			until := e.suspect.Load()
			if until > now {
				retry = earlier(retry, until)
				continue
			}
			if w := mix(hash ^ e.hash); best == nil || w > most {
				best, most, suspicion = e, w, until
			}
		}
		// When a suspicion has just expired, only one request probes the endpoint. A request that loses the compare-and-swap looks again,
		// and finds the endpoint suspect again or recovered.
		if best == nil || suspicion == 0 || best.suspect.CompareAndSwap(suspicion, now+int64(probeFor)) {
			return best, retry
		}
	}
}

// The hashes have no seed, because all interceptors have to agree, including those of the next version. Another hash would move every
// client during an upgrade.

func hashAddr(a netip.Addr) uint64 {
	b := a.As16() // an IPv4 address and its IPv4-mapped IPv6 address hash alike, and the zone does not count
	return mix(mix(binary.BigEndian.Uint64(b[:8])) + binary.BigEndian.Uint64(b[8:]))
}

func hashText(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

// mix is the finalizer of SplitMix64: each bit of x flips about half of the bits of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
