// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// fakeDiscovery serves kinds by group and version.
type fakeDiscovery struct {
	discovery.ServerResourcesInterface

	mu    sync.Mutex // protects the fields below, if a test changes them meanwhile
	kinds map[string][]string
	err   error
}

func (d *fakeDiscovery) ServerResourcesForGroupVersion(gv string) (*metav1.APIResourceList, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kinds, ok := d.kinds[gv]
	if d.err != nil {
		return nil, d.err
	}
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, gv)
	}
	list := &metav1.APIResourceList{}
	for _, k := range kinds {
		list.APIResources = append(list.APIResources, metav1.APIResource{Kind: k})
	}
	return list, nil
}

// fakeLive lists what a test allows.
type fakeLive struct {
	client.Reader

	err error
}

func (f *fakeLive) List(context.Context, client.ObjectList, ...client.ListOption) error { return f.err }

// newOptional follows the routes of the Gateway API, and records what comes and goes.
func newOptional(d *fakeDiscovery, live *fakeLive) (*optionalKinds, *[]string) {
	var story []string
	return &optionalKinds{
		log: logr.Discard(), discovery: d, live: live, versions: gatewayVersions(), kinds: injector.GatewayRouteKinds(),
		come: func(_ context.Context, k schema.GroupVersionKind) error {
			story = append(story, "+"+k.Version+"/"+k.Kind)
			return nil
		},
		gone: func(_ context.Context, k schema.GroupVersionKind) error {
			story = append(story, "-"+k.Version+"/"+k.Kind)
			return nil
		},
	}, &story
}

const gatewayV1, gatewayAlpha = "gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"

func TestOptionalKinds(t *testing.T) {
	d, live := &fakeDiscovery{kinds: map[string][]string{}}, &fakeLive{}
	k, story := newOptional(d, live)
	for _, step := range []struct {
		name  string
		kinds map[string][]string
		err   error
		want  string
	}{
		{"nothing is installed", nil, nil, ""},
		{
			"an old version",
			map[string][]string{gatewayAlpha: {"HTTPRoute", "TCPRoute", "Gateway"}},
			nil,
			"+v1alpha2/HTTPRoute +v1alpha2/TCPRoute",
		},
		{"again", map[string][]string{gatewayAlpha: {"HTTPRoute", "TCPRoute"}}, nil, ""},
		{
			"an upgrade",
			map[string][]string{gatewayV1: {"HTTPRoute"}, gatewayAlpha: {"HTTPRoute", "TCPRoute"}},
			nil,
			"-v1alpha2/HTTPRoute +v1/HTTPRoute",
		},
		{
			"a kind that may not be read",
			map[string][]string{gatewayV1: {"HTTPRoute", "GRPCRoute"}, gatewayAlpha: {"TCPRoute"}},
			apierrors.NewForbidden(schema.GroupResource{}, "", nil), "",
		},
		{"it may be read", map[string][]string{gatewayV1: {"HTTPRoute", "GRPCRoute"}, gatewayAlpha: {"TCPRoute"}}, nil, "+v1/GRPCRoute"},
		{"it is removed", nil, nil, "-v1alpha2/TCPRoute -v1/HTTPRoute -v1/GRPCRoute"},
	} {
		d.kinds, live.err, *story = step.kinds, step.err, nil
		if err := k.poll(t.Context()); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := strings.Join(*story, " "); got != step.want {
			t.Errorf("%s: got %s, want %s", step.name, got, step.want)
		}
	}
}

func TestOptionalKindsFail(t *testing.T) {
	d, live := &fakeDiscovery{kinds: map[string][]string{gatewayV1: {"HTTPRoute"}}}, &fakeLive{}
	k, _ := newOptional(d, live)
	broken := errors.New("connection refused")
	d.err = broken
	if err := k.poll(t.Context()); !errors.Is(err, broken) {
		t.Errorf("nobody says what is served: %v", err)
	}
	d.err, live.err = nil, broken
	if err := k.poll(t.Context()); !errors.Is(err, broken) {
		t.Errorf("it cannot be listed: %v", err)
	}
	live.err = nil
	come, gone := k.come, k.gone
	k.come = func(context.Context, schema.GroupVersionKind) error { return broken }
	if err := k.poll(t.Context()); !errors.Is(err, broken) || len(k.used()) != 0 {
		t.Errorf("it cannot be used: %v", err)
	}
	if k.come = come; k.poll(t.Context()) != nil || len(k.used()) != 1 {
		t.Errorf("it is not used: %v", k.used())
	}
	k.gone = func(context.Context, schema.GroupVersionKind) error { return broken }
	d.kinds = nil
	if err := k.poll(t.Context()); !errors.Is(err, broken) || len(k.used()) != 0 {
		t.Errorf("its use cannot be ended: %v, %v", err, k.used())
	}
	k.gone = gone
}

// TestOptionalKindsStart tests that polling continues, with or without errors, until the context ends.
func TestOptionalKindsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDiscovery{err: errors.New("connection refused")}
		k, story := newOptional(d, &fakeLive{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Start(ctx) }()
		time.Sleep(optionalInterval + 1) //nolint:forbidigo // of the bubble's clock
		synctest.Wait()
		d.mu.Lock()
		d.err, d.kinds = nil, map[string][]string{gatewayV1: {"HTTPRoute"}}
		d.mu.Unlock()
		time.Sleep(optionalInterval) //nolint:forbidigo // of the bubble's clock
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || fmt.Sprint(*story) != "[+v1/HTTPRoute]" {
			t.Errorf("%v, %v", err, *story)
		}
	})
}

// routesReader has an HTTPRoute for each Service.
type routesReader struct {
	client.Reader

	err error
}

func (r routesReader) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	service, _ := o.FieldSelector.RequiresExactMatch(byBackend)
	l := list.(*unstructured.UnstructuredList)
	l.Items = append(l.Items, unstructured.Unstructured{Object: map[string]any{
		"kind": "HTTPRoute", "metadata": map[string]any{"namespace": o.Namespace, "name": "to-" + service},
		"spec": map[string]any{"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": service, "port": int64(80)}}}}},
	}})
	return r.err
}

func TestGatewayRoutes(t *testing.T) {
	k := &optionalKinds{inUse: []schema.GroupVersionKind{{Group: injector.GatewayGroup, Version: "v1", Kind: "HTTPRoute"}}}
	g := &gatewayRoutes{cache: routesReader{}, kinds: k}
	got, err := g.routesTo(t.Context(), "apps", "web", "api", "web")
	if err != nil || len(got) != 2 || got[0].Name != "to-web" || !slices.Equal(got[1].Backends, []injector.RouteBackend{{
		Service: "api",
		Port:    80,
	}}) {
		t.Errorf("%+v, %v", got, err)
	}
	g.cache = routesReader{err: errors.New("no cache")}
	if _, err := g.routesTo(t.Context(), "apps", "web"); err == nil {
		t.Error("no error")
	}
}
