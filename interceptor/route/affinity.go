// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// chooseFor takes the endpoint that is a client's own by the hash of its address or session: the one with the highest weight for
// it, and while that is suspect the next. Every interceptor weighs alike without knowing of the others, and a pod that comes
// or goes takes or leaves its own clients and moves no others (rendezvous hashing). Retry is as for choose.
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
		// One whose suspicion is over goes to the first request that finds that out. The second looks again, and finds it
		// suspect once more or recovered.
		if best == nil || suspicion == 0 || best.suspect.CompareAndSwap(suspicion, now+int64(probeFor)) {
			return best, retry
		}
	}
}

// The hashes have no seed, since all interceptors have to agree, those of the next version too: another hash would move
// every client during an upgrade.

func hashAddr(a netip.Addr) uint64 {
	b := a.As16() // the same for an IPv4 address and the IPv6 address that maps it, and without a zone
	return mix(mix(binary.BigEndian.Uint64(b[:8])) + binary.BigEndian.Uint64(b[8:]))
}

func hashText(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

// mix makes every bit of x change about half of all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
