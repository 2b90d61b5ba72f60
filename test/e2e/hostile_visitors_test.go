// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// opened is what `app knock` prints for a connection that was accepted.
type opened struct {
	Address, Read, Error string
}

// knock connects from the client pod, which has no rights, to these addresses, and says nothing.
func knock(t *testing.T, args ...string) map[string]opened {
	t.Helper()
	out := kubectl(t, append([]string{"exec", "-n", clientsNS, "client", "--", "/app", "knock"}, args...)...)
	all := map[string]opened{}
	for line := range strings.Lines(out) {
		var o opened
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		all[o.Address] = o
	}
	return all
}

// listens returns the ports of a Service's routes at the interceptors.
func (s *stack) listens(service string) []int {
	s.t.Helper()
	slice := &discoveryv1.EndpointSlice{}
	if err := kube.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: service + "-scale-to-zero-ipv4"}, slice); err != nil {
		s.t.Fatal(err)
	}
	routes, err := api.DecodeRoutes(slice.Annotations[api.RoutesAnnotation])
	if err != nil {
		s.t.Fatal(err)
	}
	var all []int
	for _, p := range routes.Ports {
		all = append(all, int(p.Listen))
	}
	return all
}

// TestHostileScan: a pod without rights that connects to every port of every interceptor, and says nothing, wakes nobody. It finds
// the apps' ports, one for health, and one that takes certificates alone. It is not parallel to other tests, whose apps may speak first.
func TestHostileScan(t *testing.T) {
	s := &stack{t: t, ns: newNamespace(t)}
	s.app("web", 8080, nil)
	kubectl(t, "patch", "service", "-n", s.ns, "web", "--type=json", "-p", `[{"op":"add","path":"/spec/ports/0/appProtocol","value":"http"}]`)
	s.redirected("web")
	s.asleep()
	const grpc, health = 9443, 8081
	for _, ip := range interceptors(t) {
		open := knock(t, "-wait", "3s", "-c", "400", ip+":1-65535")
		for _, port := range append(s.listens("web"), grpc, health) {
			if _, accepted := open[net.JoinHostPort(ip, strconv.Itoa(port))]; !accepted {
				t.Errorf("port %d of %s was not found", port, ip)
			}
		}
		for address, one := range open {
			_, text, _ := net.SplitHostPort(address)
			if port, _ := strconv.Atoi(text); port != grpc && port != health && (port < 10000 || port > 29999) {
				t.Errorf("%s is open: %+v", address, one)
			}
			if one.Read != "" {
				t.Errorf("%s says %q to everybody", address, one.Read)
			}
		}
		at := net.JoinHostPort(ip, strconv.Itoa(grpc))
		if got := knock(t, "-tls", "-wait", "10s", at)[at]; !strings.Contains(got.Error, "certificate required") || got.Read != "" {
			t.Errorf("without a certificate: %+v", got)
		}
	}
	if up := s.replicas(); len(up) > 0 || strings.Contains(s.events(), "WakeRequested") {
		t.Errorf("it was woken: %v, events: %s", up, s.events())
	}
	s.answers("web", "a request wakes it")
}

// TestHostileReader: whoever visits an app that cannot start learns the kind of the failure, by text and by page, and no name of what is
// missing. The event has the name.
func TestHostileReader(t *testing.T) {
	t.Parallel()
	const secret = "prod-payments-db-root-password"
	s := &stack{t: t, ns: newNamespace(t)}
	s.app("web", 8080, nil)
	s.redirected("web")
	s.asleep()
	kubectl(t, "patch", "deployment", "-n", s.ns, "web", "-p", `{"spec":{"template":{"spec":{"containers":[{"name":"app","envFrom":[
		{"secretRef":{"name":"`+secret+`"}}]}]}}}}`)
	url := "http://web." + s.ns + "/"
	page := []string{
		"-show", "200000", "-H", "Accept: text/html", "-H", "Sec-Fetch-Mode: navigate", "-H", "Sec-Fetch-Dest: document",
		"-H", "Host: shop.example.com", "-H", "X-Forwarded-For: 203.0.113.9",
		"-H", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0",
	}
	first := get(t, append(page, url)...)[0] // while it starts
	text := get(t, "-show", "200000", url)[0]
	last := get(t, append(page, url)...)[0] // when it is certain
	for what, got := range map[string]answer{"the first page": first, "the text": text, "the last page": last} {
		if got.Status != 503 || strings.Contains(got.Body, secret) || strings.Contains(got.Body, os.Getenv("E2E_APP_IMAGE")) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if !strings.Contains(text.Body, "cannot start") || !strings.Contains(last.Body, "<html") {
		t.Errorf("text %q, page %q", text.Body, last.Body)
	}
	s.told(secret)
}

// TestHostilePath: what a visitor's path has of secrets is neither in events nor in logs.
func TestHostilePath(t *testing.T) {
	t.Parallel()
	s := &stack{t: t, ns: newNamespace(t)}
	s.app("web", 8080, nil)
	s.redirected("web")
	secrets := []string{
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dGhpc2lzbm90YXNlY3JldA", "0A1B2C3D4E5F60718293A4B5C6D7E8F9", "hunter2secret",
		"3f786850e387550fdab836ed7e6dc881de23001b", "f47ac10b-58cc-4372-a567-0e02b2c3d479",
	}
	for i, path := range []string{
		"/reset/" + secrets[0] + "/form", "/shop;jsessionid=" + secrets[1] + "/cart", "/login?password=" + secrets[2], "/invite/" + secrets[3],
		"/files/" + secrets[4] + "/" + secrets[3],
	} {
		s.asleep()
		if got := get(t, "http://web."+s.ns+path)[0]; got.Status != 404 {
			t.Errorf("%s: got %+v", path, got)
		}
		eventually(t, "an event says that it was woken", func() error {
			if n := strings.Count(s.events(), "WakeRequested: GET /"); n < i+1 {
				return fmt.Errorf("%d such events", n)
			}
			return nil
		})
	}
	texts := map[string]string{"events": s.events()}
	if !strings.Contains(texts["events"], "GET /reset/") {
		t.Errorf("the paths are not in the events: %s", texts["events"])
	}
	for _, component := range []string{"interceptor", "controller"} {
		out, err := logs(t.Context(), component)
		if err != nil {
			t.Fatal(err)
		}
		texts["logs of "+component] = out
	}
	for where, text := range texts {
		for _, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s have %s: %s", where, secret, text[max(0, at-200):min(len(text), at+100)])
			}
		}
	}
}
