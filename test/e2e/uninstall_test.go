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

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// TestUninstall removes scale-to-zero while apps sleep, two of them beside an autoscaler of their own: they are restored first. It is not
// parallel to the other tests, which continue only when the chart is installed again.
func TestUninstall(t *testing.T) {
	a := newAirflow(t, "HELM", "--set", "webserver.replicas=2")
	a.optIn()
	hpa, theirs := newAutoscaled(t, "HELM", hpaValues()), newAutoscaled(t, "HELM3", scaledObjectValues())
	hpaBefore, theirsBefore := hpa.autoscaler("hpa"), theirs.autoscaler("scaledobject")
	hpa.besideAutoscaler()
	theirs.besideAutoscaler()
	for _, one := range []*airflow{a, hpa, theirs} {
		one.asleep()
	}
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
	if hpaAfter, theirsAfter := hpa.autoscaler("hpa"), theirs.autoscaler("scaledobject"); hpaAfter != hpaBefore ||
		theirsAfter != theirsBefore {
		t.Errorf("the HPA was %s\nand is %s\nthe ScaledObject was %s\nand is %s", hpaBefore, hpaAfter, theirsBefore, theirsAfter)
	}
	for _, one := range []*airflow{a, hpa, theirs} {
		if one != theirs { // KEDA puts that one to sleep by its own triggers again
			one.answers()
		}
		left := one.deployment().Annotations
		if left[injector.ReplicasAnnotation]+left[injector.AutoscalerAnnotation] != "" {
			t.Errorf("left on a Deployment: %v", left)
		}
	}
	hpa.has(2)
	// Interceptors take their time to drain, after Helm has ended.
	nothingLeft(t, "all,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,pdb")
	if err := install(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The labels are still there: the apps are injected again.
	for _, one := range []*airflow{a, hpa, theirs} {
		one.asleep()
	}
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
