// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestProtocol(t *testing.T) {
	port := func(name string, number int32, appProtocol ...string) corev1.ServicePort {
		p := corev1.ServicePort{Name: name, Port: number}
		if len(appProtocol) > 0 {
			p.AppProtocol = &appProtocol[0]
		}
		return p
	}
	for name, tc := range map[string]struct {
		port    corev1.ServicePort
		setting string
		want    string
	}{
		"nothing says anything": {port: port("ui", 8080), want: "auto"},

		"appProtocol http":                      {port: port("", 80, "http"), want: "http"},
		"h2c":                                   {port: port("", 80, "kubernetes.io/h2c"), want: "http"},
		"ws":                                    {port: port("", 80, "kubernetes.io/ws"), want: "http"},
		"grpc in capitals":                      {port: port("", 80, "GRPC"), want: "http"},
		"https":                                 {port: port("", 443, "https"), want: "tcp"},
		"wss":                                   {port: port("", 443, "kubernetes.io/wss"), want: "tcp"},
		"postgresql":                            {port: port("", 80, "postgresql"), want: "tcp"},
		"postgres":                              {port: port("", 80, "Postgres"), want: "tcp"},
		"an unknown one":                        {port: port("", 80, "example.com/own"), want: "auto"},
		"an unknown one, and a name":            {port: port("mysql", 80, "example.com/own"), want: "tcp"},
		"appProtocol before the annotation":     {port: port("", 80, "http"), setting: "tcp", want: "http"},
		"appProtocol before a port's":           {port: port("db", 80, "http"), setting: "db=tcp", want: "http"},
		"the annotation after an unknown one":   {port: port("", 80, "example.com/own"), setting: "http", want: "http"},
		"appProtocol before the name":           {port: port("mysql", 80, "http"), want: "http"},
		"appProtocol before the number":         {port: port("", 3306, "http"), want: "http"},
		"the annotation":                        {port: port("ui", 80), setting: "tcp", want: "tcp"},
		"for a name":                            {port: port("ui", 80), setting: "ui=http", want: "http"},
		"for a number":                          {port: port("ui", 80), setting: "80=http", want: "http"},
		"for another port":                      {port: port("ui", 80), setting: "81=http,web=http", want: "auto"},
		"for another port, and the rest":        {port: port("ui", 80), setting: "81=http, tcp", want: "tcp"},
		"for this port, and the rest":           {port: port("ui", 80), setting: "tcp,80=http", want: "http"},
		"for an unnamed one":                    {port: port("", 80), setting: "80=tcp", want: "tcp"},
		"the annotation before the name":        {port: port("mysql", 80), setting: "http", want: "http"},
		"auto before the name":                  {port: port("mysql", 80), setting: "auto", want: "auto"},
		"auto before the number":                {port: port("db", 3306), setting: "3306=auto", want: "auto"},
		"another port's leaves the name":        {port: port("mysql", 80), setting: "81=http", want: "tcp"},
		"a name whose server speaks first":      {port: port("mysql", 3307), want: "tcp"},
		"with more after it":                    {port: port("smtp-relay", 8025), want: "tcp"},
		"with tcp before it":                    {port: port("tcp-ssh", 2222), want: "tcp"},
		"a number whose server speaks first":    {port: port("", 22), want: "tcp"},
		"under a name that says nothing":        {port: port("db", 3306), want: "tcp"},
		"a name whose client speaks first":      {port: port("postgres", 5432), want: "auto"},
		"a name that only begins like one":      {port: port("sshx", 8080), want: "auto"},
		"a name that says HTTP":                 {port: port("http", 80), want: "http"},
		"with more after it, in capitals":       {port: port("HTTP2-web", 80), want: "http"},
		"stands against the number":             {port: port("http", 3306), want: "http"},
		"and not against the annotation":        {port: port("http", 80), setting: "auto", want: "auto"},
		"nor an unknown appProtocol":            {port: port("http", 80, "example.com/own"), want: "http"},
		"named tcp, which many an HTTP port is": {port: port("tcp", 8080), want: "auto"},
		"named https, behind which may be HTTP": {port: port("https", 443), want: "auto"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := protocol(tc.port, tc.setting); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestProtocolSetting(t *testing.T) {
	for value, want := range map[string]bool{
		"auto": true, "http": true, "tcp": true, "80=http": true, "ui=http,5432=tcp": true, "http, 5432=tcp": true, "5432=tcp,http": true,
		"http=http": true, "tcp=http,auto": true, "65535=tcp": true,
		"": false, ",": false, "http,": false, "udp": false, "HTTP": false, "http,tcp": false, "ui=http,ui=http": false, "ui": false,
		"ui=": false, "=http": false, "ui==http": false, "ui=http=tcp": false, "0=tcp": false, "080=tcp": false, "65536=tcp": false,
		"-1=tcp":  false,
		"UI=http": false, "u_i=http": false, "ui =http": false, strings.Repeat("a", 64) + "=http": false,
	} {
		if _, err := ParseSettings(map[string]string{Prefix + "protocol": value}); (err == nil) != want {
			t.Errorf("%q: %v, want it allowed: %t", value, err, want)
		}
	}
}

// TestExposedPorts tests that a port is one of HTTP if an Ingress sends requests to it, and nothing says otherwise.
func TestExposedPorts(t *testing.T) {
	ingress := func(change ...func(*networkingv1.Ingress)) networkingv1.Ingress {
		in := networkingv1.Ingress{Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Name: "ui"}},
		}}}
		for _, c := range change {
			c(&in)
		}
		return in
	}
	sends := func(protocol string) func(*networkingv1.Ingress) {
		return func(in *networkingv1.Ingress) {
			in.Annotations = map[string]string{"nginx.ingress.kubernetes.io/backend-protocol": protocol}
		}
	}
	ui := func(protocol ...string) []corev1.ServicePort {
		p := corev1.ServicePort{Name: "ui", Port: 8080}
		if len(protocol) > 0 {
			p.AppProtocol = &protocol[0]
		}
		return []corev1.ServicePort{p}
	}
	to := func(change func(*networkingv1.IngressServiceBackend)) networkingv1.Ingress {
		return ingress(func(in *networkingv1.Ingress) { change(in.Spec.DefaultBackend.Service) })
	}
	more := corev1.ServicePort{Name: "x", Port: 1}
	number := to(func(b *networkingv1.IngressServiceBackend) { b.Port = networkingv1.ServiceBackendPort{Number: 8080} })
	other := to(func(b *networkingv1.IngressServiceBackend) { b.Name = "other" })
	for name, tc := range map[string]struct {
		ports     []corev1.ServicePort
		setting   string
		ingresses []networkingv1.Ingress
		want      []string
	}{
		"none":                   {ui(), "", nil, []string{"auto"}},
		"by name":                {append(ui(), more), "", []networkingv1.Ingress{ingress()}, []string{"http", "auto"}},
		"by number":              {[]corev1.ServicePort{{Port: 8080}}, "", []networkingv1.Ingress{number}, []string{"http"}},
		"of another Service":     {ui(), "", []networkingv1.Ingress{other}, []string{"auto"}},
		"against the annotation": {ui(), "auto", []networkingv1.Ingress{ingress()}, []string{"auto"}},
		"against an appProtocol": {ui("redis"), "", []networkingv1.Ingress{ingress()}, []string{"tcp"}},
		"that speaks gRPC":       {ui(), "", []networkingv1.Ingress{ingress(sends("GRPC"))}, []string{"http"}},
		"that speaks TLS":        {ui(), "", []networkingv1.Ingress{ingress(sends("https"))}, []string{"http"}},
		"that speaks FastCGI":    {ui(), "", []networkingv1.Ingress{ingress(sends("FCGI"))}, []string{"auto"}},
		"and one that speaks it": {ui(), "", []networkingv1.Ingress{ingress(sends("FCGI")), ingress()}, []string{"http"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(func(s *corev1.Service) { s.Name, s.Spec.Ports = "web", tc.ports })
			routes := NewRoutes(s, Settings{Protocol: tc.setting}, Workload{}, nil)
			exposedPorts(&routes, s, tc.setting, tc.ingresses)
			for i, want := range tc.want {
				if got := routes.Ports[i].Protocol; got != want {
					t.Errorf("port %d speaks %s, want %s", i, got, want)
				}
			}
		})
	}
}

// A Namespace's setting is for many Services: not every Service needs to have the ports that it names.
func TestNamespacesPortsAreNotChecked(t *testing.T) {
	namespace := &corev1.Namespace{}
	namespace.Annotations = map[string]string{Prefix + "protocol": "5432=tcp"}
	if err := AdmitNamespace(namespace); err != nil {
		t.Error(err)
	}
	s := service(func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "db", Port: 5432}}
	})
	settings, err := ParseSettings(Layer(namespace.Annotations, s.Annotations))
	if err != nil {
		t.Fatal(err)
	}
	routes := NewRoutes(s, settings, Workload{}, nil)
	if routes.Ports[0].Protocol != api.ProtocolHTTP || routes.Ports[1].Protocol != api.ProtocolTCP {
		t.Errorf("%+v", routes.Ports)
	}
}

// Whatever the annotation holds, every port gets a protocol that the interceptors know, and a valid annotation decides.
func FuzzProtocolSetting(f *testing.F) {
	for _, seed := range []string{"auto", "http,5432=tcp", "ui=http, 80=tcp", "=,=", "http=http=http"} {
		f.Add(seed, "ui", int32(80))
	}
	f.Fuzz(func(t *testing.T, value, name string, number int32) {
		p := corev1.ServicePort{Name: name, Port: number}
		got := protocol(p, value)
		if _, ok := parseProtocols(value); !ok && got != protocol(p, "") {
			t.Errorf("%q is not allowed, and makes the port %s", value, got)
		}
		switch got {
		case api.ProtocolAuto, api.ProtocolHTTP, api.ProtocolTCP:
		default:
			t.Errorf("%q makes the port %q", value, got)
		}
	})
}
