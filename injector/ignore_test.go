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

func TestIgnorePathsSetting(t *testing.T) {
	for value, want := range map[string][]string{
		"/healthz": {"/healthz"}, "/healthz,/static/*": {"/healthz", "/static/*"}, " /a , /b* ": {"/a", "/b*"}, "/": {"/"},
		"/a%20b;v=1/ü": nil, "/a;v=1/%C3%BC": {"/a;v=1/%C3%BC"}, "": nil,
		"healthz": nil, "*": nil, "/*": nil, "/a,": nil, ",": nil, "/a,/a": nil, "/a?b": nil, "/a#b": nil, "/a b": nil, "/a*b": nil,
		"/a**": nil, "/a\tb": nil, "http://h/a": nil, "/" + strings.Repeat("a", 256): nil, many("/p", 65): nil,
		many("/p", 64): strings.Split(many("/p", 64), ","),
	} {
		got, ok := parseIgnorePaths(value)
		if ok != (want != nil || value == "") || !slices.Equal(got, want) {
			t.Errorf("%.50q: got %q, %t", value, got, ok)
		}
	}
}

func TestIgnoreAgentsSetting(t *testing.T) {
	type result struct {
		agents []string
		count  bool
	}
	for value, want := range map[string]*result{
		"Acme-Monitor/":           {[]string{"Acme-Monitor/"}, false},
		"Acme Monitor/, *AcmeBot": {[]string{"Acme Monitor/", "*AcmeBot"}, false},
		"none":                    {nil, true},
		"none,Acme":               {[]string{"Acme"}, true},
		"Acme, none":              {[]string{"Acme"}, true},
		"None":                    {[]string{"None"}, false},
		"":                        {nil, false},
		many("agent", 64):         {strings.Split(many("agent", 64), ","), false},
		"*":                       nil,
		"ab":                      nil,
		"*ab":                     nil,
		"none,none":               nil,
		"Acme,":                   nil,
		"Ac*me":                   nil,
		"**Acme":                  nil,
		"Acme\x00":                nil,
		"Ácme":                    nil,
		"* Acme":                  nil,
		strings.Repeat("a", 257):  nil,
		many("agent", 65):         nil,
	} {
		agents, count, ok := parseIgnoreAgents(value)
		if ok != (want != nil) || ok && (count != want.count || !slices.Equal(agents, want.agents)) {
			t.Errorf("%.50q: got %q, %t, %t", value, agents, count, ok)
		}
	}
}

// many returns a list with n entries.
func many(name string, n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(name, i)
	}
	return strings.Join(list, ",")
}

// The interceptors get the values of the annotations, in their own format.
func TestIgnoredInRoutes(t *testing.T) {
	settings, err := ParseSettings(map[string]string{
		Prefix + "ignore-paths": "/healthz, /static/*", Prefix + "ignore-user-agents": "none, Acme-Monitor/",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := service(func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}} })
	workload := workload("Deployment", "web", nil)
	listen := map[string]int32{"http": 10000}
	got := NewRoutes(s, settings, workload, listen)
	if !slices.Equal(got.IgnorePaths, []string{"/healthz", "/static/*"}) || !slices.Equal(got.IgnoreAgents, []string{"Acme-Monitor/"}) ||
		!got.CountKnownAgents {
		t.Errorf("got %+v", got)
	}
	encoded, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.DecodeRoutes(encoded); err != nil {
		t.Error(err)
	}
	// Without the annotations, the fields are absent, so that an upgrade changes no slice.
	got = NewRoutes(s, DefaultSettings(), workload, listen)
	if encoded, err = got.Encode(); err != nil || strings.Contains(encoded, "gnore") || strings.Contains(encoded, "nown") {
		t.Errorf("got %s, %v", encoded, err)
	}
}
