// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// logged returns a context with a logger, and what it has logged.
func logged(t *testing.T) (context.Context, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return log.IntoContext(t.Context(), funcr.New(func(_, args string) { out.WriteString(args + "\n") }, funcr.Options{})), &out
}

// TestEventsThatCannotBeWritten tests that an event that cannot be written is logged with all that it would have said, unless it says
// what an earlier one still says, and that it keeps no other from being written.
func TestEventsThatCannotBeWritten(t *testing.T) {
	exists := apierrors.NewAlreadyExists(schema.GroupResource{Resource: "events"}, "web.1")
	away := errors.New("the API server is away")
	for name, tc := range map[string]struct {
		lasting bool
		err     error
		logs    bool
	}{
		"it is written":                  {false, nil, false},
		"it lasts, and is written":       {true, nil, false},
		"it lasts, and is there":         {true, exists, false},
		"it lasts, and cannot":           {true, away, true},
		"it cannot":                      {false, away, true},
		"another has its name by chance": {false, exists, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webService())
			ctx, out := logged(t)
			first := true
			r := newRecorder(failingCreates{c, func() error {
				defer func() { first = false }()
				if first {
					return tc.err
				}
				return nil
			}}, c.services.now)
			r.emit(ctx, injector.Report{Reason: "Because", Note: "of it", Lasting: tc.lasting, Objects: []injector.Object{c.service()}},
				injector.Report{Reason: "Then", Note: "that", Objects: []injector.Object{c.service()}})
			if text := out.String(); (text != "") != tc.logs || tc.logs && (!strings.Contains(text, `"reason"="Because"`) ||
				!strings.Contains(text, `"note"="of it"`) || !strings.Contains(text, strconv.Quote(tc.err.Error()))) {
				t.Errorf("logged %s", text)
			}
			c.told("Then on Service/web: that")
		})
	}
	c := newCluster(t)
	ctx, out := logged(t)
	c.services.events.emit(ctx, injector.Report{Reason: "Odd", Objects: []injector.Object{&unknown{}}})
	if !strings.Contains(out.String(), "naming the kind of") || c.events() != "" {
		t.Errorf("of an unknown kind: %s, %s", out.String(), c.events())
	}
}

// failingCreates is a client whose creations may fail.
type failingCreates struct {
	client.Client

	err func() error
}

func (f failingCreates) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Client.Create(ctx, o, opts...)
}

// TestNamesOfLastingEvents tests that an event about a lasting state has one name for one object, reason and note, whoever writes it.
func TestNamesOfLastingEvents(t *testing.T) {
	c := newCluster(t, webService(), serviceNamed("api", nil))
	name := func(service, uid, reason, note string) string {
		t.Helper()
		s := get(c, service, &corev1.Service{})
		if uid != "" {
			s.UID = "another"
		}
		r := newRecorder(c, c.services.now)
		if err := r.write(t.Context(), injector.Report{Reason: reason, Note: note, Lasting: true}, s); err != nil &&
			!apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		var list corev1.EventList
		if err := c.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list.Items, func(e corev1.Event) bool {
			return e.InvolvedObject.UID == s.UID && e.Reason == reason && e.Message == note
		})
		if i < 0 {
			t.Fatalf("no event %s of %s", reason, service)
		}
		return list.Items[i].Name
	}
	base := name("web", "", "A", "x")
	if !strings.HasPrefix(base, "web.") || len(base) != len("web.")+16 || name("web", "", "A", "x") != base {
		t.Errorf("it has the names %s and %s", base, name("web", "", "A", "x"))
	}
	for what, other := range map[string]string{
		"another object": name("api", "", "A", "x"), "a Service of its name that replaces it": name("web", "new", "A", "x"),
		"another reason": name("web", "", "B", "x"), "another note": name("web", "", "A", "y"),
	} {
		if other[strings.Index(other, "."):] == base[strings.Index(base, "."):] {
			t.Errorf("%s has the same name %s", what, other)
		}
	}
}

// TestReadsWithoutDuplicates tests what is found in the cache by several values of one field: each object once, Ingresses by name.
func TestReadsWithoutDuplicates(t *testing.T) {
	c := newCluster(t)
	labelled := func(name, instance string, selector map[string]string) {
		c.create(serviceNamed(name, selector, func(s *corev1.Service) { s.Labels = map[string]string{"app.kubernetes.io/instance": instance} }))
	}
	labelled("web", "shop", map[string]string{"app": "web", "tier": "front"})
	labelled("api", "shop", map[string]string{"app": "api", "tier": "front"})
	labelled("db", "data", map[string]string{"app": "db"})
	for name, backends := range map[string][]string{"z": {"web"}, "a": {"web", "api"}, "m": {"db"}} {
		i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name}}
		rule := networkingv1.IngressRule{IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}
		for _, b := range backends {
			rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: b},
			}})
		}
		i.Spec.Rules = []networkingv1.IngressRule{rule}
		c.create(i)
	}
	names := func(values ...string) string {
		t.Helper()
		found, err := servicesBy(t.Context(), c, "apps", bySelector, values...)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range found {
			out = append(out, s.Name)
		}
		return strings.Join(sorted(out), " ")
	}
	for values, want := range map[string]string{
		"app=web": "web", "tier=front": "api web", "app=web,tier=front": "api web", "tier=front,app=db,tier=front": "api db web",
		"app=none": "", "app=db,app=none": "db",
	} {
		if got := names(strings.Split(values, ",")...); got != want {
			t.Errorf("by %s: %s, want %s", values, got, want)
		}
	}
	if got := names(); got != "" {
		t.Errorf("by nothing: %s", got)
	}
	ingresses := func(services ...string) string {
		t.Helper()
		found, err := ingressesBy(t.Context(), c, "apps", byBackend, services...)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range found {
			out = append(out, i.Name)
		}
		return strings.Join(out, " ")
	}
	for services, want := range map[string]string{"web": "a z", "web,api": "a z", "db,web": "a m z", "none": ""} {
		if got := ingresses(strings.Split(services, ",")...); got != want {
			t.Errorf("to %s: %s, want %s", services, got, want)
		}
	}
	c.refuses = func(verb string, _ runtime.Object) error {
		if verb == "list" {
			return errors.New("no cache")
		}
		return nil
	}
	if _, err := servicesBy(t.Context(), c, "apps", bySelector, "app=web"); err == nil ||
		err.Error() != "listing services of namespace apps by scale-to-zero.selector: no cache" {
		t.Errorf("without a cache: %v", err)
	}
	if _, err := ingressesTo(t.Context(), c, "apps", "web"); err == nil ||
		err.Error() != "listing ingresses of namespace apps by scale-to-zero.backend: no cache" {
		t.Errorf("without a cache: %v", err)
	}
}

// TestRoutesOfSlices tests which slices are route slices, and by which values they are found.
func TestRoutesOfSlices(t *testing.T) {
	service := webService(func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81})
	})
	w, _ := injector.NewWorkload(webDeployment(1))
	service.UID = "u"
	text, err := injector.NewRoutes(service, injector.DefaultSettings(), w, map[string]int32{"http": 10000, "admin": 10001}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		role, annotation string
		want             bool
		owner            types.UID
	}{
		"a route slice":             {api.RoleRoute, text, true, ""},
		"a slice of real pods":      {api.RoleDirect, text, false, ""},
		"a slice of interceptors":   {api.RoleInterceptor, text, false, ""},
		"somebody's copy":           {"", text, false, ""},
		"of another owner":          {api.RoleRoute, text, false, "other"},
		"a route slice, unreadable": {api.RoleRoute, "{", false, ""},
		"a route slice, emptied":    {api.RoleRoute, "", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := sliceLikeOurs("apps", "web", cmp.Or(tc.owner, "u"), tc.annotation)
			s.Labels[api.RoleLabel] = tc.role
			_, ok := routesOf(s)
			workloads := strings.Join(routedWorkload(s), " ")
			if ok != tc.want || (workloads == "Deployment/web") != tc.want {
				t.Errorf("routes %t, workloads %q", ok, workloads)
			}
			if tc.want && !slices.Equal(routedPorts(s), []string{"10000", "10001"}) {
				t.Errorf("ports %v", routedPorts(s))
			}
		})
	}
}

// TestBackendsAreIndexed tests that an Ingress is found by the Service that its author wrote, by the alias that it uses, and by a
// Service whose alias it has only been asked to use.
func TestBackendsAreIndexed(t *testing.T) {
	for name, tc := range map[string]struct {
		backend, aliases, want string
	}{
		"as its author wrote it":    {"web", "", "web"},
		"redirected":                {"web-scale-to-zero", "web=web-scale-to-zero", "web web-scale-to-zero"},
		"asked, and not redirected": {"web", "web=web-scale-to-zero", "web"},
		"asked about another":       {"web", "api=api-scale-to-zero", "api web"},
		"its annotation is lost":    {"web-scale-to-zero", "", "web-scale-to-zero"},
	} {
		t.Run(name, func(t *testing.T) {
			i := webIngress()
			i.Spec.DefaultBackend.Service.Name = tc.backend
			i.Annotations = map[string]string{injector.AliasesAnnotation: tc.aliases}
			if got := strings.Join(ingressBackends(i), " "); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
