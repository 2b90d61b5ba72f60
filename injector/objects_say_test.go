// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestScaledObjectOfAChart has all of the ScaledObject of a built-in workload, and of a custom resource.
func TestScaledObjectOfAChart(t *testing.T) {
	gallery := Workload{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "pictures", UID: "u-1"}, APIVersion: "example.com/v1", Kind: "Gallery",
		Resource: "galleries",
	}
	set := Workload{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "u-1"}, APIVersion: "apps/v1", Kind: "StatefulSet"}
	for name, tc := range map[string]struct {
		w                             Workload
		named, apiVersion, kind, text string
	}{
		"a StatefulSet":     {set, "db-statefulset", "apps/v1", "StatefulSet", "StatefulSet/db"},
		"a custom resource": {gallery, "pictures-gallery", "example.com/v1", "Gallery", "Gallery.example.com/pictures"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Scaling{
				MinReplicas: 1, WakeReplicas: 2, MaxReplicas: 4, TargetPendingRequests: 7, TargetRequestRate: 0.5, Cooldown: 10 * time.Minute,
			}
			got := ScaledObject(tc.w, s, 3, Scaler{Address: "interceptors:9090"})
			want := &keda.ScaledObject{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "shop", Name: tc.named, Labels: map[string]string{ManagedByLabel: ManagedBy},
					Annotations: map[string]string{ReplicasAnnotation: "3"},
					OwnerReferences: []metav1.OwnerReference{{
						APIVersion: tc.apiVersion, Kind: tc.kind, Name: tc.w.Name, UID: "u-1", Controller: new(true),
					}},
				},
				Spec: keda.ScaledObjectSpec{
					ScaleTargetRef:  keda.ScaleTarget{APIVersion: tc.apiVersion, Kind: tc.kind, Name: tc.w.Name},
					PollingInterval: new(int32(600)), CooldownPeriod: new(int32(602)), InitialCooldownPeriod: new(int32(1202)),
					MinReplicaCount: new(int32(1)), MaxReplicaCount: new(int32(4)),
					Triggers: []keda.Trigger{{Type: "external-push", Metadata: map[string]string{
						"scalerAddress": "interceptors:9090", api.MetadataWorkload: tc.text, api.MetadataTargetPendingRequests: "7",
						api.MetadataTargetRequestRate: "0.5",
						api.MetadataInactiveAfter:     "9m30s",
					}}},
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRememberedCounts tests which values of the annotation are a count to return to.
func TestRememberedCounts(t *testing.T) {
	for value, want := range map[string]int32{
		"1": 1, "12": 12, "2147483647": 2147483647, "": 0, "0": 0, "-1": 0, "-3": 0, "2147483648": 0, "1.5": 0, "two": 0, " 2": 0,
	} {
		if got := Remembered(map[string]string{ReplicasAnnotation: value}); got != want {
			t.Errorf("%q: %d, want %d", value, got, want)
		}
	}
	if Remembered(nil) != 0 {
		t.Error("without annotations, there is one")
	}
}

// TestWorkloadsAsRead has all that is read of each built-in kind.
func TestWorkloadsAsRead(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u-1", Annotations: map[string]string{ReplicasAnnotation: "2"}}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web", "tier": "front"}}}
	selector := &metav1.LabelSelector{
		MatchLabels:      map[string]string{"app": "web"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "canary", Operator: metav1.LabelSelectorOpDoesNotExist}},
	}
	broken := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Resembles"}}}
	for name, tc := range map[string]struct {
		object any
		want   Workload
	}{
		"a Deployment": {
			&appsv1.Deployment{
				ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: new(int32(3)), Selector: selector, Template: template},
				Status: appsv1.DeploymentStatus{ReadyReplicas: 2, Replicas: 5},
			},
			Workload{
				ObjectMeta: meta, APIVersion: "apps/v1", Kind: "Deployment", PodLabels: template.Labels, Template: &template,
				Selector: "app=web,!canary", Replicas: 3, ReadyReplicas: 2,
			},
		},
		"a Deployment whose selector is none": {
			&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: broken, Template: template}},
			Workload{ObjectMeta: meta, APIVersion: "apps/v1", Kind: "Deployment", PodLabels: template.Labels, Template: &template, Replicas: 1},
		},
		"a StatefulSet": {
			&appsv1.StatefulSet{
				ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template},
				Status: appsv1.StatefulSetStatus{ReadyReplicas: 1, Replicas: 5},
			},
			Workload{
				ObjectMeta: meta, APIVersion: "apps/v1", Kind: "StatefulSet", PodLabels: template.Labels, Template: &template,
				Selector: "app=web,!canary", Replicas: 1, ReadyReplicas: 1,
			},
		},
		"a DaemonSet": {
			&appsv1.DaemonSet{
				ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template},
				Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 5, CurrentNumberScheduled: 4, NumberReady: 3},
			},
			Workload{ObjectMeta: meta, APIVersion: "apps/v1", Kind: "DaemonSet", PodLabels: template.Labels, Replicas: 5, ReadyReplicas: 3},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := NewWorkload(tc.object)
			if diff := cmp.Diff(tc.want, got); diff != "" || !ok {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRefusedByStatus tests which conditions of a Deployment say that Kubernetes cannot create its pods.
func TestRefusedByStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*appsv1.DeploymentCondition)
		want   string
	}{
		"it is refused":            {func(*appsv1.DeploymentCondition) {}, "exceeded quota: few"},
		"it was refused":           {func(c *appsv1.DeploymentCondition) { c.Status = corev1.ConditionFalse }, ""},
		"nobody knows":             {func(c *appsv1.DeploymentCondition) { c.Status = corev1.ConditionUnknown }, ""},
		"it cannot delete pods":    {func(c *appsv1.DeploymentCondition) { c.Reason = "FailedDelete" }, ""},
		"a rollout takes its time": {func(c *appsv1.DeploymentCondition) { c.Type = appsv1.DeploymentProgressing }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := appsv1.DeploymentCondition{
				Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "exceeded quota: few",
			}
			tc.change(&c)
			available := appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "FailedCreate"}
			d := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{available, c}}}
			if w, _ := NewWorkload(d); w.Refused != tc.want {
				t.Errorf("refused %q, want %q", w.Refused, tc.want)
			}
		})
	}
}

// TestWorkloadsByName tests how a workload is named in annotations and routes, and that what is written is read again.
func TestWorkloadsByName(t *testing.T) {
	for text, want := range map[string]*struct {
		kind schema.GroupKind
		name string
	}{
		"Deployment/web":           {schema.GroupKind{Kind: "Deployment"}, "web"},
		"StatefulSet/db.shop":      {schema.GroupKind{Kind: "StatefulSet"}, "db.shop"},
		"Gallery.example.com/web":  {schema.GroupKind{Group: "example.com", Kind: "Gallery"}, "web"},
		"Deployment.example.com/x": {schema.GroupKind{Group: "example.com", Kind: "Deployment"}, "x"},
		"Job/web":                  nil,
		".example.com/web":         nil,
		"Gallery./web":             nil,
		"Gallery.Example.com/web":  nil,
		"Deployment":               nil,
		"Deployment/-web":          nil,
		"Deployment/web/":          nil,
		"deployment/web":           nil,
	} {
		kind, name, ok := ParseWorkload(text)
		if ok != (want != nil) || ok && (kind != want.kind || name != want.name) {
			t.Errorf("%q: %v, %q, %t", text, kind, name, ok)
		}
	}
	w := Workload{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "u-1"}, APIVersion: "example.com/v1", Kind: "Gallery", Resource: "galleries"}
	want := api.Workload{APIVersion: "example.com/v1", Kind: "Gallery", Name: "web", UID: "u-1", Resource: "galleries"}
	if w.Ref() != want || w.Ref().String() != "Gallery.example.com/web" {
		t.Errorf("got %+v, %s", w.Ref(), w.Ref())
	}
	if back := keptWorkload("shop", w.Ref()); back.Namespace != "shop" || back.Ref() != want {
		t.Errorf("of routes: %+v", back)
	}
}

// TestCompanionsAsMade has what our Services beside a Service say of themselves.
func TestCompanionsAsMade(t *testing.T) {
	s := service(annotated("traefik.ingress.kubernetes.io/service.sticky.cookie", "true"))
	s.Namespace = "shop"
	for name, tc := range map[string]struct {
		got         *corev1.Service
		named, role string
		selector    map[string]string
		clusterIP   string
	}{
		"the direct one": {DirectService(s, Settings{}), "web-direct", api.RoleDirect, map[string]string{"app": "web"}, corev1.ClusterIPNone},
		"the alias":      {AliasService(s), "web-scale-to-zero", RoleAlias, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]string{ManagedByLabel: ManagedBy, ServiceLabel: "web", api.RoleLabel: tc.role}
			if tc.got.Namespace != "shop" || tc.got.Name != tc.named || !cmp.Equal(tc.got.Labels, want) ||
				!cmp.Equal(tc.got.Spec.Selector, tc.selector) || tc.got.Spec.ClusterIP != tc.clusterIP {
				t.Errorf("got %+v", tc.got)
			}
			owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "web", UID: "uid-1", Controller: new(true)}}
			if diff := cmp.Diff(owner, tc.got.OwnerReferences); diff != "" {
				t.Error(diff)
			}
		})
	}
	for key, want := range map[string]bool{
		"kustomize.toolkit.fluxcd.io/name": true, "helm.toolkit.fluxcd.io/name": true, "fluxcd.io/x": true, "notfluxcd.io/x": false,
		"meta.helm.sh/release-name": true, "helm.sh/chart": false, "argocd.argoproj.io/tracking-id": true, "argoproj.io/x": false,
		"deployment.kubernetes.io/revision": true, "kubernetes.io/x": false,
	} {
		if bookkeeping(key) != want {
			t.Errorf("%s is a deployment tool's own: %t", key, !want)
		}
	}
}

// TestRefusalsAtTheEdge tests how much of the API server's words is kept, and that half of a plugin's words are not that plugin's.
func TestRefusalsAtTheEdge(t *testing.T) {
	for length, want := range map[int]int{maxWhy - 1: maxWhy - 1, maxWhy: maxWhy, maxWhy + 1: maxWhy + len("…")} {
		err := forbidden(strings.Repeat("a", length))
		if got, ok := RefusalOf(err); !ok || len(got.Why) != want {
			t.Errorf("of %d characters, %d are kept: %t", length, len(got.Why), ok)
		}
	}
	got, _ := RefusalOf(forbidden(strings.Repeat("ü", maxWhy)))
	if !strings.HasPrefix(got.Why, "ü") || strings.Contains(got.Why, "\ufffd") {
		t.Errorf("a character is cut: %q", got.Why)
	}
	const restricted = "Allow scale-to-zero's controller to create endpointslices/restricted (discovery.k8s.io), as its chart does"
	for message, want := range map[string]string{
		"endpoint address 10.1.2.3 is not allowed": restricted,
		"endpoint address 10.1.2.3 is odd":         "Change what refuses it",
		"the field is not allowed":                 "Change what refuses it",
		"failed quota: compute":                    "Raise that ResourceQuota, or free some of it",
	} {
		if got, ok := RefusalOf(forbidden(message)); !ok || got.Advice != want {
			t.Errorf("%s: %s", message, got.Advice)
		}
	}
}

// forbidden is what the API server answers to a write that it refuses.
func forbidden(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusForbidden, Message: message}}
}
