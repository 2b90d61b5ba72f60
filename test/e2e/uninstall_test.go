// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestUninstall removes scale-to-zero while an app sleeps: the app is restored first. It is not parallel to the other
// tests, which continue only when the chart is installed again.
func TestUninstall(t *testing.T) {
	a := newAirflow(t, "HELM", "--set", "webserver.replicas=2")
	a.optIn()
	a.asleep()
	t.Cleanup(func() {
		if t.Failed() { // the other tests need it
			if err := install(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	must(t, os.Getenv("HELM"), "uninstall", release, "-n", release, "--wait", "--timeout", "3m")
	if err := a.remains(); err != nil {
		t.Error(err)
	}
	if pods, endpoints := a.podIPs(), a.endpoints(webserver); len(pods) == 0 || !slices.Equal(pods, endpoints) ||
		*a.deployment().Spec.Replicas != 2 {
		t.Errorf("pods %v, endpoints %v, replicas %d", pods, endpoints, *a.deployment().Spec.Replicas)
	}
	if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
		t.Errorf("status %d: %s", got.Status, got.Body)
	}
	// Interceptors take their time to drain, after Helm has ended.
	nothingLeft(t, "all,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,pdb")
	if err := install(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The label is still there: the app is injected again.
	a.asleep()
}

// nothingLeft waits until our release and its other objects of these kinds are gone.
func nothingLeft(t *testing.T, kinds string) {
	t.Helper()
	eventually(t, "nothing is left in our namespace", func() error {
		for name := range strings.FieldsSeq(kubectl(t, "get", kinds, "-n", release, "-o", "name")) {
			if strings.Contains(name, release) {
				return errors.New(name)
			}
		}
		return nil
	})
	if left := kubectl(t, "get", "mutatingwebhookconfigurations,clusterroles,clusterrolebindings", "-o",
		"name"); strings.Contains(left, release) {
		t.Errorf("left in the cluster: %s", left)
	}
}
