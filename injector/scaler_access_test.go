// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// withTLS is how KEDA reaches interceptors that want a certificate.
func withTLS() Scaler {
	return Scaler{Address: "interceptors:9443", Authentication: "scale-to-zero", Credentials: "c1"}
}

// TestTriggersName: our triggers, in ScaledObjects of ours and of others, name what KEDA authenticates itself with, and change when
// that changes. Otherwise KEDA would keep an expired certificate.
func TestTriggersNameTheirCredentials(t *testing.T) {
	w, scaling := workload("Deployment", "web", nil), Scaling{MaxReplicas: 1, TargetPendingRequests: 100}
	ref := &keda.AuthenticationRef{Name: "scale-to-zero", Kind: "ClusterTriggerAuthentication"}
	ours := ScaledObject(w, scaling, 1, withTLS()).Spec.Triggers[0]
	if diff := cmp.Diff(ref, ours.AuthenticationRef); diff != "" || ours.Metadata[api.MetadataCredentials] != "c1" ||
		ours.Metadata["scalerAddress"] != "interceptors:9443" {
		t.Errorf("ours is %+v", ours)
	}
	plain := ScaledObject(w, scaling, 1, Scaler{Address: "interceptors:9090"}).Spec.Triggers[0]
	if _, has := plain.Metadata[api.MetadataCredentials]; has || plain.AuthenticationRef != nil {
		t.Errorf("in plain text it is %+v", plain)
	}
	asked := triggerRequest{Metadata: triggerMetadata(w, scaling, 1, withTLS()), AuthenticationRef: withTLS().authenticationRef()}
	so := theirs("mine")
	so.Annotations = map[string]string{TriggerAnnotation: asked.encode()}
	AdmitScaledObject(&so, nil, true)
	added := so.Spec.Triggers[len(so.Spec.Triggers)-1]
	if diff := cmp.Diff(ref, added.AuthenticationRef); diff != "" || !IsOurTrigger(added) {
		t.Errorf("in another's it is %+v", added)
	}
	without := so.DeepCopy()
	without.Spec.Triggers[len(so.Spec.Triggers)-1].AuthenticationRef = nil
	if SameTriggers(so.Spec.Triggers, without.Spec.Triggers) {
		t.Error("a trigger that has lost its credentials is taken for the same")
	}
}

// TestInstalledButUnused: if KEDA cannot ask the interceptors, ScaledObjects of ours go, requests decide, and a workload with one of
// its owner's is left alone and told why.
func TestInstalledButUnused(t *testing.T) {
	const why = "KEDA cannot authenticate itself to the interceptors: x"
	w := newScaledWorld(t)
	w.reconcile()
	if w.so == nil {
		t.Fatal("there is no ScaledObject")
	}
	w.keda, w.noKEDA = false, why
	if p := w.plan(); p.Delete == nil || p.ScaledObject != nil {
		t.Errorf("ours is kept: %+v", p)
	}
	w.so, w.count = nil, CountAnswer{Known: true, Active: true, Pending: 250}
	if p := w.plan(); w.asked[AskCount] != 1 || p.ScaledObject != nil {
		t.Errorf("requests do not decide: %+v", p)
	}
	w.foreign = []keda.ScaledObject{theirs("mine")}
	if p := w.plan(); p.Trigger != nil || p.Scale != nil {
		t.Errorf("it is scaled beside another's ScaledObject: %+v", p)
	}
	auto, skip := FindAutoscaler(w.workload, nil, w.foreign)
	if skip != "" {
		t.Fatalf("skipped: %s", skip)
	}
	for name, tc := range map[string]struct {
		install Install
		auto    Autoscaler
		want    string
	}{
		"KEDA is used":       {Install{KEDA: true}, auto, ""},
		"KEDA is not used":   {Install{NoKEDA: why}, auto, why},
		"it scales anything": {Install{NoKEDA: why}, Autoscaler{}, ""},
	} {
		if got := string(tc.install.judge(tc.auto, "")); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s", name, got)
		}
		if got := tc.install.judge(tc.auto, "another reason"); got != "another reason" {
			t.Errorf("%s: %s", name, got)
		}
	}
}
