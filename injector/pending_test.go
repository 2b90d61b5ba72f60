// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// limitedService is a world whose Service limits what a pod gets.
func limitedService(w *world) { annotated(Prefix+"max-pending-per-pod", "1")(w.service) }

func TestMaxPendingPerPodSetting(t *testing.T) {
	for value, want := range map[string]int32{"1": 1, "100000": 100_000} {
		s, err := ParseSettings(map[string]string{Prefix + "max-pending-per-pod": value})
		if err != nil || s.MaxPendingPerPod != want {
			t.Errorf("%q is %d, %v", value, s.MaxPendingPerPod, err)
		}
	}
	for _, value := range []string{"0", "-1", "many", "", "100001", "1.5"} {
		_, err := ParseSettings(map[string]string{Prefix + "max-pending-per-pod": value})
		want := fmt.Sprintf("annotation scale-to-zero/max-pending-per-pod: %q is not allowed: allowed is a whole number from 1 to 100000", value)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", value, err)
		}
	}
	s := DefaultSettings()
	s.MaxPendingPerPod = 7
	if got := NewRoutes(service(), s, workload("Deployment", "web", nil), nil); got.MaxPendingPerPod != 7 {
		t.Errorf("the routes say %d", got.MaxPendingPerPod)
	}
}

// Each workload has one first interceptor, whatever the order in which they are listed. The workloads spread, and a new interceptor
// moves only those that it takes.
func TestRanked(t *testing.T) {
	var all []Interceptor
	for i := range 4 {
		all = append(all, Interceptor{
			Address: fmt.Sprintf("10.0.0.%d", i+1), PodRef: &corev1.ObjectReference{Name: fmt.Sprintf("interceptor-%d", i)},
		})
	}
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	carries := map[string]int{}
	for i := range 400 {
		w := api.Workload{Kind: "Deployment", Name: fmt.Sprintf("app-%d", i)}
		first := ranked(all, "shop", w)
		if other := ranked(reversed, "shop", w); !slices.Equal(first, other) {
			t.Fatalf("%v and %v", first, other)
		}
		carries[first[0].name()]++
		if less := ranked(all[:3], "shop", w)[0]; less != first[0] && first[0] != all[3] {
			t.Errorf("%s moves from %s to %s", w, less.name(), first[0].name())
		}
	}
	for _, i := range all {
		if n := carries[i.name()]; n < 60 || n > 140 {
			t.Errorf("%s carries %d of 400", i.name(), n)
		}
	}
}

// A pod is taken with its addresses of both families, and one that lacks a family only if all do.
func TestOnly(t *testing.T) {
	both := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	at := func(name string, addresses ...string) (out []Interceptor) {
		for _, a := range addresses {
			out = append(out, Interceptor{Address: a, PodRef: &corev1.ObjectReference{Name: name}})
		}
		return out
	}
	for name, tc := range map[string]struct {
		ranking  []Interceptor
		families []corev1.IPFamily
		want     string
	}{
		"none":               {nil, both, ""},
		"one family":         {append(at("a", "10.0.0.1"), at("b", "10.0.0.2")...), both[:1], "10.0.0.1"},
		"both families":      {append(at("a", "10.0.0.1"), at("b", "10.0.0.2", "fd00::2")...), both, "10.0.0.2 fd00::2"},
		"all lack a family":  {append(at("a", "10.0.0.1"), at("b", "10.0.0.2")...), both, "10.0.0.1"},
		"listed by families": {append(append(at("a", "10.0.0.1"), at("b", "10.0.0.2")...), at("a", "fd00::1")...), both, "10.0.0.1 fd00::1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, i := range only(tc.ranking, tc.families) {
				got = append(got, i.Address)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
		})
	}
}

// carrier is the interceptor that the Service's route slices list.
func (w *world) carrier() string {
	w.t.Helper()
	var hosts []string
	for _, s := range w.slices {
		for _, e := range s.Endpoints {
			hosts = append(hosts, e.Addresses...)
		}
	}
	return strings.Join(hosts, ",")
}

// A Service whose pods have a limit is published at one interceptor, and at the next while that one does not answer. Nobody dials the
// others while it does, and nobody looks for them.
func TestOneInterceptorCarriesALimitedService(t *testing.T) {
	w := newWorld(t, limitedService, soonRedirected)
	first := w.carrier()
	if !slices.Contains(w.addresses, first) {
		t.Fatalf("published at %q", first)
	}
	other := w.addresses[1-slices.Index(w.addresses, first)]
	p, asked := w.questions()
	if _, dials := asked[AskServing]; dials || p.After == slowRetry || p.Soon || len(p.Apply) > 0 {
		t.Errorf("a settled Service: dials %v: %s", asked[AskServing].Addresses, describe(p))
	}

	addresses := w.addresses
	w.addresses = []string{other}
	w.reconcile()
	if got := w.carrier(); got != other {
		t.Errorf("without %s, it is published at %q", first, got)
	}
	w.addresses, w.deaf[first] = addresses, true
	w.reconcile()
	if got := w.carrier(); got != other {
		t.Errorf("while %s does not listen, it is published at %q", first, got)
	}
	if p, _ := w.questions(); p.After != slowRetry {
		t.Errorf("nobody finds out when %s listens: %s", first, describe(p))
	}
	w.deaf[first] = false
	w.reconcile()
	if got := w.carrier(); got != first {
		t.Errorf("when %s is back, it is published at %q", first, got)
	}

	delete(w.service.Annotations, Prefix+"max-pending-per-pod")
	w.reconcile()
	if got := w.carrier(); got != strings.Join(addresses, ",") {
		t.Errorf("without a limit, it is published at %q", got)
	}
}
