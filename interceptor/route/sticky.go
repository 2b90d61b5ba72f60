// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net"
	"slices"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Sticky keeps each client at one pod by cookies. It is immutable.
//
// The interceptors' own cookie names a pod. The app's session cookie alone would not do: its value rarely hashes to the pod that has
// just issued it and holds the session, and a new pod would take over sessions of other pods. The hash is for clients that send the
// session cookie without ours.
type Sticky struct {
	// Own is the name of the interceptors' cookie. It depends on the Service, because several Services may share one host.
	Own string
	// Session is the name of the app's session cookie; empty if the app has none.
	Session string

	uid  string
	pods []*Endpoint          // the pods from which the maps were made
	byID map[PodID]*Endpoint  // the ports of one pod share its ID
	ids  map[*Endpoint]string // IDs as text
}

// PodID names a pod in a cookie. Every interceptor computes the same one. It is a hash keyed by the Service's UID, which visitors do
// not know, so that it does not reveal the pod's address. 0 means no pod.
type PodID uint64

// podIDLength is the length of a PodID as text.
const podIDLength = 16

// stickyFor returns how cookies keep the clients of r at their pods; nil if they do not. It returns the object of before if nothing
// has changed.
func stickyFor(r *api.Routes, before *snapshot, pods []*Endpoint) *Sticky {
	if r.AffinityCookie == "" {
		return nil
	}
	session := r.AffinityCookie
	if session == api.AffinityAuto {
		session = ""
	}
	if before != nil && before.sticky != nil && before.sticky.Session == session && before.sticky.uid == r.ServiceUID &&
		slices.Equal(before.sticky.pods, pods) {
		return before.sticky
	}
	s := &Sticky{
		Own: "scale-to-zero-" + hex.EncodeToString(keyed(r.ServiceUID, "cookie")[:4]), Session: session,
		uid: r.ServiceUID, pods: pods, byID: map[PodID]*Endpoint{}, ids: map[*Endpoint]string{},
	}
	onHost := map[string]int{}
	for _, e := range pods {
		onHost[hostOf(e.Addr)]++
	}
	for _, e := range pods {
		name := hostOf(e.Addr)
		if onHost[name] > 1 {
			name = e.Addr // pods in the host network share their node's address
		}
		sum := keyed(r.ServiceUID, "pod "+name)
		s.byID[PodID(binary.BigEndian.Uint64(sum))] = e
		s.ids[e] = hex.EncodeToString(sum[:podIDLength/2])
	}
	return s
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

func keyed(key, text string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum(nil)
}

// ParsePodID parses the value of the interceptors' own cookie. It returns 0 if the value is not valid.
func ParsePodID(value []byte) PodID {
	if len(value) != podIDLength {
		return 0
	}
	var id PodID
	for _, c := range value {
		switch {
		case '0' <= c && c <= '9':
			id = id<<4 | PodID(c-'0')
		case 'a' <= c && c <= 'f':
			id = id<<4 | PodID(c-'a'+10)
		default:
			return 0
		}
	}
	return id
}

// Lists reports whether id names one of the pods.
func (s *Sticky) Lists(id PodID) bool { return s.byID[id] != nil }

// ID returns the pod's ID for a cookie; empty if the pod has left.
func (s *Sticky) ID(e *Endpoint) string { return s.ids[e] }

// HashSession returns the hash of a session cookie's value, for Visit.Session. It is never 0.
func HashSession(value []byte) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, as in hashText
	h := uint64(offset)
	for _, c := range value {
		h = (h ^ uint64(c)) * prime
	}
	return max(mix(h), 1)
}

// choosePinned returns the pod that v's cookie names. While that pod is suspect it returns none. The first visitor after the
// suspicion gets the pod, and finds out whether it is back.
func (s *snapshot) choosePinned(c clock, v *Visit) *Endpoint {
	e := s.sticky.byID[v.Pin]
	if e == nil {
		return nil
	}
	until := e.suspect.Load()
	if until == 0 {
		return e
	}
	if now := c.now(); until <= now && e.suspect.CompareAndSwap(until, now+int64(probeFor)) {
		return e
	}
	return nil
}
