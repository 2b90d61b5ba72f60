// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// deployment returns a Deployment with that count. remembered is the value of its annotation; empty if it has none.
func deployment(replicas *int32, remembered string, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: replicas},
	}
	if remembered != "" {
		d.Annotations = map[string]string{injector.ReplicasAnnotation: remembered}
	}
	for _, c := range change {
		c(d)
	}
	return d
}

func byHPA(d *appsv1.Deployment) {
	d.Annotations[injector.AutoscalerAnnotation] = "HorizontalPodAutoscaler/web"
}

// patches returns the patches of an answer as path=value.
func patches(t *testing.T, r admission.Response) []string {
	t.Helper()
	var out []string
	for _, p := range r.Patches {
		value, err := json.Marshal(p.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p.Operation+" "+p.Path+" "+string(value))
	}
	return out
}

// TestReplicaGuard tests that the guard protects the replica counts of workloads with a remembered count.
func TestReplicaGuard(t *testing.T) {
	n := func(n int32) *int32 { return &n }
	const annotation = "/metadata/annotations/scale-to-zero~1replicas"
	for name, tc := range map[string]struct {
		manager     string
		object, old *appsv1.Deployment
		want        []string
		warned      string
	}{
		"a new one":                         {object: deployment(n(2), "")},
		"one that is not ours":              {object: deployment(n(2), ""), old: deployment(n(0), "")},
		"by our controller":                 {manager: injector.ManagedBy, object: deployment(n(2), "2"), old: deployment(n(0), "2")},
		"the chart's count, asleep":         {object: deployment(n(2), "2"), old: deployment(n(0), "2"), want: []string{"add /spec/replicas 0"}},
		"the chart's count, awake with one": {object: deployment(n(2), "2"), old: deployment(n(1), "2"), want: []string{"add /spec/replicas 1"}},
		"the count that it has":             {object: deployment(n(0), "2"), old: deployment(n(0), "2")},
		"another count": {
			object: deployment(n(5), "2"), old: deployment(n(0), "2"), want: []string{"add " + annotation + ` "5"`},
		},
		"a count of zero":        {object: deployment(n(0), "2"), old: deployment(n(2), "2")},
		"no count, which is one": {object: deployment(nil, "1"), old: deployment(n(0), "1"), want: []string{"add /spec/replicas 0"}},
		"no count before": {
			object: deployment(n(3), "2"), old: deployment(nil, "2"), want: []string{"add " + annotation + ` "3"`},
		},
		"a replace without annotations": {object: deployment(n(2), ""), old: deployment(n(0), "2"), want: []string{
			"add /spec/replicas 0", `add /metadata/annotations {"scale-to-zero/replicas":"2"}`,
		}},
		"beside an autoscaler, asleep": {
			object: deployment(n(1), "4", byHPA), old: deployment(n(0), "4", byHPA),
			want: []string{"add /spec/replicas 0", "add " + annotation + ` "1"`},
		},
		"beside an autoscaler, awake":       {object: deployment(n(1), "4", byHPA), old: deployment(n(3), "4", byHPA)},
		"beside an autoscaler, put to zero": {object: deployment(n(0), "4", byHPA), old: deployment(n(3), "4", byHPA)},
		"beside an autoscaler, replaced": {object: deployment(n(2), ""), old: deployment(n(3), "4", byHPA), want: []string{
			`add /metadata/annotations {"scale-to-zero/autoscaler":"HorizontalPodAutoscaler/web","scale-to-zero/replicas":"4"}`,
		}},
		"a replace with other ones": {object: func() *appsv1.Deployment {
			d := deployment(n(2), "")
			d.Annotations = map[string]string{"team": "a"}
			return d
		}(), old: deployment(n(0), "2"), want: []string{"add /spec/replicas 0", "add " + annotation + ` "2"`}},
		"by a person": {
			manager: "kubectl-edit", object: deployment(n(2), "2"), old: deployment(n(0), "2"), want: []string{"add /spec/replicas 0"},
			warned: "Deployment/web keeps 0 replicas",
		},
		"by a person, with a wish": {
			manager: "kubectl-edit", object: deployment(n(4), "2"), old: deployment(n(0), "2"), want: []string{"add " + annotation + ` "4"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var old runtime.Object
			if tc.old != nil {
				old = tc.old
			}
			req := request(t, tc.manager, tc.object, old)
			req.Kind.Kind, req.Name = "Deployment", "web"
			got := replicaGuard{}.Handle(t.Context(), req)
			if !got.Allowed {
				t.Fatalf("denied: %v", got.Result)
			}
			if d := cmp.Diff(tc.want, patches(t, got)); d != "" {
				t.Errorf("patches (-want +got):\n%s", d)
			}
			if warned := strings.Join(got.Warnings, "\n"); (warned == "") != (tc.warned == "") || !strings.Contains(warned, tc.warned) {
				t.Errorf("warned %q, want %q", warned, tc.warned)
			}
		})
	}
}

// TestWorkloadsTwice tests that the guard does not change its own result.
func TestWorkloadsTwice(t *testing.T) {
	old, wanted := deployment(new(int32), "2"), deployment(new(int32(2)), "2")
	first := replicaGuard{}.Handle(t.Context(), request(t, "helm", wanted, old))
	if len(first.Patches) != 1 {
		t.Fatalf("patches %v", first.Patches)
	}
	if again := (replicaGuard{}).Handle(t.Context(), request(t, "helm", deployment(new(int32), "2"), old)); len(again.Patches) != 0 {
		t.Errorf("patches %v", again.Patches)
	}
}

// TestUndecodable tests that an undecodable object is an error if we have to guard it, and is allowed otherwise.
func TestUndecodable(t *testing.T) {
	broken := runtime.RawExtension{Raw: []byte("{")}
	for name, tc := range map[string]struct {
		handler admission.Handler
		change  func(*admission.Request)
		object  runtime.Object
		allowed bool
		code    int32
	}{
		"a workload as it was": {
			replicaGuard{},
			func(r *admission.Request) { r.OldObject = broken }, deployment(nil, "1"), false,
			http.StatusBadRequest,
		},
		"a workload": {
			replicaGuard{},
			func(r *admission.Request) { r.Object = broken }, deployment(nil, "1"), false,
			http.StatusBadRequest,
		},
		"a ScaledObject": {scaledObjects{}, func(r *admission.Request) { r.Object = broken }, scaledObject(true, 1), true, http.StatusOK},
		"a ScaledObject as it was": {
			scaledObjects{}, func(r *admission.Request) { r.OldObject = broken }, scaledObject(true, 1), true, http.StatusOK,
		},
		"a Service as it was": {
			admitter[*corev1.Service]{clientgoscheme.Scheme, admitService}, func(r *admission.Request) { r.OldObject = broken }, service(nil,
				nil), false, http.StatusForbidden,
		},
		"an Ingress as it was": {
			admitter[*networkingv1.Ingress]{clientgoscheme.Scheme, admitIngress},
			func(r *admission.Request) { r.OldObject = broken },
			ingress("web"), false, http.StatusForbidden,
		},
		"a Service": {
			admitter[*corev1.Service]{clientgoscheme.Scheme, admitService}, func(r *admission.Request) { r.Object = broken }, service(nil,
				nil), false, http.StatusBadRequest,
		},
		"options, which name nobody": {
			replicaGuard{}, func(r *admission.Request) { r.Options = broken }, deployment(nil, "1"), true, http.StatusOK,
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, "", tc.object, tc.object)
			tc.change(&req)
			got := tc.handler.Handle(t.Context(), req)
			if got.Allowed != tc.allowed || got.Result != nil && got.Result.Code != tc.code && got.Result.Code != 0 && !tc.allowed {
				t.Errorf("allowed: %t, %v", got.Allowed, got.Result)
			}
		})
	}
}

func scaledObject(ours bool, most int32) *keda.ScaledObject {
	so := &keda.ScaledObject{
		TypeMeta:   metav1.TypeMeta{APIVersion: "keda.sh/v1alpha1", Kind: "ScaledObject"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web-deployment"}, Spec: keda.ScaledObjectSpec{MaxReplicaCount: &most},
	}
	if ours {
		so.Labels = map[string]string{injector.ManagedByLabel: injector.ManagedBy}
	}
	return so
}

// TestScaledObjects tests that changes that the controller will undo cause a warning, and that none is denied.
func TestScaledObjects(t *testing.T) {
	for name, tc := range map[string]struct {
		manager     string
		object, old *keda.ScaledObject
		warned      string
	}{
		"a new one":       {object: scaledObject(true, 1)},
		"nothing of ours": {object: scaledObject(true, 1), old: scaledObject(true, 1)},
		"what is ours": {
			object: scaledObject(true, 5), old: scaledObject(true, 1),
			warned: "scale-to-zero owns ScaledObject web-deployment and undoes this change of spec.maxReplicaCount.",
		},
		"of one that is not":     {object: scaledObject(false, 5), old: scaledObject(false, 1)},
		"by our controller":      {manager: injector.ManagedBy, object: scaledObject(true, 5), old: scaledObject(true, 1)},
		"and its label is taken": {object: scaledObject(false, 5), old: scaledObject(true, 1), warned: "undoes this change"},
	} {
		t.Run(name, func(t *testing.T) {
			var old runtime.Object
			if tc.old != nil {
				old = tc.old
			}
			req := request(t, tc.manager, tc.object, old)
			req.Name = "web-deployment"
			got := scaledObjects{}.Handle(t.Context(), req)
			if warned := strings.Join(got.Warnings, "\n"); !got.Allowed || len(got.Patches) > 0 || (warned == "") != (tc.warned == "") ||
				!strings.Contains(warned, tc.warned) {
				t.Errorf("allowed %t, warned %q, want %q", got.Allowed, warned, tc.warned)
			}
		})
	}
}

// ingress returns an Ingress that sends everything to a Service.
func ingress(backend string, change ...func(*networkingv1.Ingress)) *networkingv1.Ingress {
	i := &networkingv1.Ingress{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "front", Labels: map[string]string{"scale-to-zero": "true"}},
		Spec: networkingv1.IngressSpec{
			DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: backend}},
		},
	}
	for _, c := range change {
		c(i)
	}
	return i
}

func aliased(i *networkingv1.Ingress) {
	i.Annotations = map[string]string{injector.AliasesAnnotation: "web=web-scale-to-zero"}
}

// TestIngresses tests that backends are exchanged for their alias Services, for our controller only.
func TestIngresses(t *testing.T) {
	const backend = "/spec/defaultBackend/service/name"
	for name, tc := range map[string]struct {
		manager     string
		object, old *networkingv1.Ingress
		denied      string
		want        []string
		warned      string
	}{
		"a new one": {object: ingress("web")},
		"a new copy": {
			object: ingress("web-scale-to-zero", aliased), want: []string{"remove /metadata/annotations null", "replace " + backend + ` "web"`},
		},
		"by our control": {
			manager: injector.ManagedBy, object: ingress("web", aliased), old: ingress("web"),
			want: []string{"replace " + backend + ` "web-scale-to-zero"`},
		},
		"by somebody else": {object: ingress("web", aliased), old: ingress("web"), want: []string{"remove /metadata/annotations null"}},
		"a chart again": {object: ingress("web"), old: ingress("web-scale-to-zero", aliased), want: []string{
			`add /metadata/annotations {"scale-to-zero/aliases":"web=web-scale-to-zero"}`, "replace " + backend + ` "web-scale-to-zero"`,
		}},
		"given up": {
			manager: injector.ManagedBy, object: ingress("web-scale-to-zero"), old: ingress("web-scale-to-zero", aliased),
			want: []string{"replace " + backend + ` "web"`},
		},
		"a setting that cannot be used": {
			object: ingress("web", func(i *networkingv1.Ingress) { i.Annotations = map[string]string{"scale-to-zero/cooldown": "soon"} }),
			denied: `scale-to-zero/cooldown: "soon"`,
		},
		"a setting of a Namespace": {
			object: ingress("web", func(i *networkingv1.Ingress) {
				i.Annotations = map[string]string{"scale-to-zero/internal-services": "true"}
			}),
			denied: "set it on the Namespace",
		},
		"a label that says nothing": {
			object: ingress("web", func(i *networkingv1.Ingress) { i.Labels["scale-to-zero"] = "yes" }), denied: `label scale-to-zero: "yes"`,
		},
		"not opted in": {object: ingress("web", func(i *networkingv1.Ingress) {
			i.Labels, i.Annotations = nil, map[string]string{"scale-to-zero/cooldown": "1m"}
		}), warned: "scale-to-zero/cooldown: no effect"},
	} {
		t.Run(name, func(t *testing.T) {
			var old runtime.Object
			if tc.old != nil {
				old = tc.old
			}
			got := admitter[*networkingv1.Ingress]{clientgoscheme.Scheme, admitIngress}.Handle(t.Context(), request(t, tc.manager, tc.object, old))
			if got.Allowed != (tc.denied == "") || !got.Allowed && !strings.Contains(got.Result.Message, tc.denied) {
				t.Fatalf("allowed %t, %v", got.Allowed, got.Result)
			}
			want := map[string]bool{}
			for _, p := range tc.want {
				want[p] = true
			}
			for _, p := range patches(t, got) {
				if !want[p] {
					t.Errorf("patch %s, want %v", p, tc.want)
				}
				delete(want, p)
			}
			if len(want) > 0 {
				t.Errorf("no patch %v", want)
			}
			if warned := strings.Join(got.Warnings, "\n"); (warned == "") != (tc.warned == "") || !strings.Contains(warned, tc.warned) {
				t.Errorf("warned %q", warned)
			}
		})
	}
}

// TestNamespaces tests that invalid settings are denied, and that settings without effect cause a warning.
func TestNamespaces(t *testing.T) {
	namespace := func(labels, annotations map[string]string) *corev1.Namespace {
		return &corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{
				Name: "apps", Labels: labels,
				Annotations: annotations,
			},
		}
	}
	in := map[string]string{"scale-to-zero": "true"}
	for name, tc := range map[string]struct {
		object         *corev1.Namespace
		denied, warned string
	}{
		"opted in":            {object: namespace(in, map[string]string{"scale-to-zero/cooldown": "1m"})},
		"with defaults alone": {object: namespace(nil, map[string]string{"scale-to-zero/cooldown": "1m"})},
		"with a bad default":  {object: namespace(nil, map[string]string{"scale-to-zero/cooldown": "soon"}), denied: `"soon"`},
		"with a workload": {
			object: namespace(in, map[string]string{"scale-to-zero/workload": "Deployment/web"}),
			denied: "set it on that Service",
		},
		"a label that says nothing": {object: namespace(map[string]string{"scale-to-zero": "1"}, nil), denied: `label scale-to-zero: "1"`},
		"an annotation as a label": {
			object: namespace(map[string]string{"scale-to-zero/enabled": "true"}, nil),
			warned: "label scale-to-zero/enabled does nothing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := admitter[*corev1.Namespace]{clientgoscheme.Scheme, admitNamespace}.Handle(t.Context(), request(t, "kubectl", tc.object, nil))
			if got.Allowed != (tc.denied == "") || !got.Allowed && !strings.Contains(got.Result.Message, tc.denied) || len(got.Patches) > 0 {
				t.Errorf("allowed %t, %v, patches %v", got.Allowed, got.Result, got.Patches)
			}
			if warned := strings.Join(got.Warnings, "\n"); (warned == "") != (tc.warned == "") || !strings.Contains(warned, tc.warned) {
				t.Errorf("warned %q", warned)
			}
		})
	}
}

func TestByController(t *testing.T) {
	for manager, want := range map[string]bool{injector.ManagedBy: true, "": false, "kubectl": false, "scale-to-zero-2": false} {
		if got := byController(request(t, manager, service(nil, nil), nil)); got != want {
			t.Errorf("%q: %t", manager, got)
		}
	}
	if byController(admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{}}) {
		t.Error("a request without options is our controller's")
	}
}

// TestTriggers tests that our trigger comes and goes by patches that leave the other triggers untouched, with fields that our types lack.
func TestTriggers(t *testing.T) {
	const annotation = "scale-to-zero/trigger"
	const asked = `{"metadata":{"workload":"Deployment/web"}}`
	const cron = `{"type":"cron","metadata":{"timezone":"Asia/Seoul"},"useCachedMetrics":true,"authenticationRef":{"name":"a"}}`
	const ours = `{"type":"external-push","name":"scale-to-zero","metadata":{"workload":"Deployment/web"}}`
	const added = "add /spec/triggers/- " + ours
	const noted = "add /metadata/annotations/scale-to-zero~1trigger " + `"{\"metadata\":{\"workload\":\"Deployment/web\"}}"`
	object := func(annotations map[string]string, triggers ...string) []byte {
		return []byte(fmt.Sprintf(`{"apiVersion":"keda.sh/v1alpha1","kind":"ScaledObject","metadata":{"name":"mine","namespace":"apps",
			"annotations":%s},"spec":{"scaleTargetRef":{"name":"web"},"triggers":[%s]}}`, raw(t, annotations), strings.Join(triggers, ",")))
	}
	with := map[string]string{annotation: asked}
	for name, tc := range map[string]struct {
		manager  string
		now, old []byte
		want     []string
	}{
		"our controller asks": {injector.ManagedBy, object(with, cron), object(nil, cron), []string{added}},
		"our controller asks no more": {
			injector.ManagedBy, object(nil, cron, ours), object(with, cron, ours), []string{"remove /spec/triggers/1 null"},
		},
		"our controller asks again": {injector.ManagedBy, object(with, cron, ours), object(with, cron, ours), nil},
		"a chart is applied":        {"helm", object(with, cron), object(with, cron, ours), []string{added}},
		"a replace": {"kubectl-replace", object(nil, cron), object(with, cron, ours), []string{
			`add /metadata/annotations {"scale-to-zero/trigger":"{\"metadata\":{\"workload\":\"Deployment/web\"}}"}`, added,
		}},
		"a replace with annotations": {
			"kubectl-replace", object(map[string]string{"team": "a"}, cron), object(with, cron, ours), []string{noted, added},
		},
		"ours first, by somebody": {
			"kubectl-edit", object(with, ours, cron), object(with, cron, ours), []string{"remove /spec/triggers/0 null", added},
		},
		"a copy": {
			"kubectl-create", object(with, cron, ours), nil,
			[]string{"remove /metadata/annotations/scale-to-zero~1trigger null", "remove /spec/triggers/1 null"},
		},
		"nothing of ours": {"helm", object(nil, cron), object(nil, cron), nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, tc.manager, &corev1.Service{}, nil)
			req.Object.Raw = tc.now
			if tc.old != nil {
				req.Operation, req.OldObject.Raw = admissionv1.Update, tc.old
			}
			got := scaledObjects{}.Handle(t.Context(), req)
			if diff := cmp.Diff(tc.want, patches(t, got)); !got.Allowed || diff != "" {
				t.Errorf("allowed %t, patches (-want +got):\n%s", got.Allowed, diff)
			}
		})
	}
}
