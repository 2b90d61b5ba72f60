// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// pendingSettings are the settings about how many requests pods get.
func pendingSettings() map[string]setting {
	return map[string]setting{
		"max-pending-per-pod": func(s *Settings, v string) (string, bool) {
			return integer(&s.MaxPendingPerPod, v, 1, api.MaxPendingPerPod)
		},
	}
}

// ranked sorts interceptors by their right to carry a workload's requests alone. Each controller and each Service of the workload gets
// the same order, and an interceptor that comes or goes moves only the workloads that it carries (rendezvous hashing).
func ranked(interceptors []Interceptor, namespace string, w api.Workload) []Interceptor {
	weight := func(i Interceptor) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(namespace + "/" + w.String() + " " + i.name())) // never fails
		x := h.Sum64()                                                        // names differ in their last characters, which FNV does not spread
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	out := slices.Clone(interceptors)
	slices.SortStableFunc(out, func(a, b Interceptor) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.name(), b.name()))
	})
	return out
}

// only returns the addresses of the first interceptor of a ranking that has one of each IP family; if none has, those of the first.
func only(ranking []Interceptor, families []corev1.IPFamily) []Interceptor {
	if len(ranking) == 0 {
		return nil
	}
	of := func(name string) []Interceptor {
		return slices.DeleteFunc(slices.Clone(ranking), func(i Interceptor) bool { return i.name() != name })
	}
	for _, i := range ranking {
		if one := of(i.name()); MissingFamily(one, families) == "" {
			return one
		}
	}
	return of(ranking[0].name())
}

// name is the same for all addresses of an interceptor's pod.
func (i Interceptor) name() string {
	if i.PodRef != nil {
		return i.PodRef.Name
	}
	return i.Address
}
