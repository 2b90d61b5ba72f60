// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

var galleryKind = schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Gallery"}

// galleries is a kind of custom resource with one object, web.
type galleries struct {
	client.Reader
	scale.ScaleInterface

	get, getScale error
	deleted       bool
	patched       schema.GroupVersionResource
}

func (g *galleries) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if g.get != nil {
		return g.get
	}
	u := o.(*unstructured.Unstructured)
	u.SetNamespace("apps")
	u.SetName("web")
	u.SetUID("1")
	u.SetAnnotations(map[string]string{"a": "b"})
	if g.deleted {
		u.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1e9, 0)})
	}
	return unstructured.SetNestedField(u.Object, int64(2), "status", "readyReplicas")
}

// galleryScales is the scale subresource of galleries.
type galleryScales struct{ g *galleries }

func (s galleryScales) Scales(string) scale.ScaleInterface { return s }
func (s galleryScales) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	return &autoscalingv1.Scale{
		Spec:   autoscalingv1.ScaleSpec{Replicas: 3},
		Status: autoscalingv1.ScaleStatus{Selector: "app=web"},
	}, s.g.getScale
}

func (s galleryScales) Update(context.Context, schema.GroupResource, *autoscalingv1.Scale, metav1.UpdateOptions) (*autoscalingv1.Scale,
	error,
) {
	return nil, errors.New("nobody updates a Scale")
}

func (s galleryScales) Patch(_ context.Context, gvr schema.GroupVersionResource, _ string, _ types.PatchType, _ []byte,
	_ metav1.PatchOptions,
) (*autoscalingv1.Scale, error) {
	s.g.patched = gvr
	return nil, nil
}

func newGalleries(g *galleries, watchKind func(schema.GroupVersionKind) error) *workloadClient {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{galleryKind.GroupVersion()})
	mapper.AddSpecific(galleryKind, galleryKind.GroupVersion().WithResource("galleries"),
		galleryKind.GroupVersion().WithResource("gallery"), meta.RESTScopeNamespace)
	return &workloadClient{client: g, mapper: mapper, scales: galleryScales{g}, watchKind: watchKind}
}

// TestCustomWorkload tests reading a workload of a kind that is not built in.
func TestCustomWorkload(t *testing.T) {
	resource := schema.GroupResource{Group: "example.com", Resource: "galleries"}
	forbidden, missing, broken := apierrors.NewForbidden(resource, "web", nil), apierrors.NewNotFound(resource,
		"web"), errors.New("connection refused")
	watched := 0
	watch := func(schema.GroupVersionKind) error { watched++; return nil }
	for name, tc := range map[string]struct {
		ref                   string
		galleries             galleries
		watch                 func(schema.GroupVersionKind) error
		skip, forbidden, fail string
		found                 bool
	}{
		"found":           {"Gallery.example.com/web", galleries{}, watch, "", "", "", true},
		"an unknown kind": {"Studio.example.com/web", galleries{}, watch, "the API server knows no kind Studio.example.com", "", "", false},
		"what is no name": {"web", galleries{}, watch, "", "", "", false},
		"not there":       {"Gallery.example.com/web", galleries{get: missing}, watch, "", "", "", false},
		"being deleted":   {"Gallery.example.com/web", galleries{deleted: true}, watch, "", "", "", false},
		"not to be read": {
			"Gallery.example.com/web",
			galleries{get: forbidden},
			watch, "",
			"may not read and scale galleries.example.com", "", false,
		},
		"not to be scaled":      {"Gallery.example.com/web", galleries{getScale: forbidden}, watch, "", "customWorkloads", "", false},
		"without a subresource": {"Gallery.example.com/web", galleries{getScale: missing}, watch, "has no scale subresource", "", "", false},
		"the API server is off": {"Gallery.example.com/web", galleries{get: broken}, watch, "", "", "connection refused", false},
		"it cannot be watched": {
			"Gallery.example.com/web",
			galleries{},
			func(schema.GroupVersionKind) error { return broken }, "", "",
			"watching", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			watched = 0
			ws := newGalleries(&tc.galleries, tc.watch)
			got, err := ws.get(t.Context(), "apps", tc.ref)
			if (err != nil) != (tc.fail != "") || err != nil && !strings.Contains(err.Error(), tc.fail) {
				t.Fatalf("%v, want %q", err, tc.fail)
			}
			if (got.Object != nil) != tc.found || !strings.Contains(string(got.Skip), tc.skip) || !strings.Contains(string(got.Forbidden),
				tc.forbidden) ||
				got.Forbidden != "" && tc.forbidden == "" || got.Skip != "" && tc.skip == "" {
				t.Errorf("%+v", got)
			}
			if !tc.found {
				return
			}
			if w := got.Workload; w.Replicas != 3 || w.ReadyReplicas != 2 || w.Selector != "app=web" || w.Ref().String() != tc.ref ||
				w.Annotations["a"] != "b" {
				t.Errorf("%+v", w)
			}
			if _, err := ws.get(t.Context(), "apps", tc.ref); err != nil || watched != 1 {
				t.Errorf("watched %d times, %v", watched, err)
			}
		})
	}
}

func TestScale(t *testing.T) {
	g := &galleries{}
	ws := newGalleries(g, nil)
	for name, tc := range map[string]struct {
		w    injector.Workload
		want string
	}{
		"a Deployment":  {injector.Workload{APIVersion: "apps/v1", Kind: "Deployment"}, "apps/v1, Resource=deployments"},
		"a StatefulSet": {injector.Workload{APIVersion: "apps/v1", Kind: "StatefulSet"}, "apps/v1, Resource=statefulsets"},
		"a custom resource": {
			injector.Workload{APIVersion: "example.com/v1", Kind: "Gallery", Resource: "galleries"},
			"example.com/v1, Resource=galleries",
		},
	} {
		if err := ws.scale(t.Context(), tc.w, 1); err != nil || g.patched.String() != tc.want {
			t.Errorf("%s: %s, %v", name, g.patched, err)
		}
	}
	if err := ws.scale(t.Context(), injector.Workload{APIVersion: "a/b/c"}, 1); err == nil {
		t.Error("a version that is none")
	}
}
