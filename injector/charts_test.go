// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// charts are the Services of published charts, rendered with an Ingress if the chart has one (August 2026):
//
//	name type ports selector → verdict, and with internal-services
//
// A port is name:port>target/appProtocol, with a * if an Ingress routes to it. The selectors omit the release.
const charts = `
# argo-cd
applicationset-controller ClusterIP http-webhook:7000>webhook name=applicationset → not-reached taken
repo-server ClusterIP tcp-repo-server:8081>repo-server name=repo-server → not-reached not-http
server ClusterIP http:80>8080,*https:443>8080 name=server → taken taken
dex-server ClusterIP http:5556>http,grpc:5557>grpc name=dex → not-reached not-http
redis ClusterIP redis:6379>redis name=redis → store store

# argo-workflows
server ClusterIP *:2746>2746 name=server → taken taken

# argo-rollouts
metrics ClusterIP metrics:8090>metrics component=controller → not-reached not-http
dashboard ClusterIP dashboard:3100>dashboard component=dashboard → not-reached not-http

# argo-events
metrics ClusterIP metrics:8082>metrics name=manager → not-reached not-http
events-webhook ClusterIP :443>webhook name=webhook → not-reached not-http

# open-webui: its Redis calls its port http
open-webui ClusterIP *http:80>http component=open-webui → taken taken
redis ClusterIP http:6379>http component=redis → store store

# kube-prometheus-stack
alertmanager ClusterIP http-web:9093>9093,reloader-web:8080>reloader-web/http name=alertmanager → store store
coredns Headless http-metrics:9153>9153 k8s-app=kube-dns → not-reached headless
kube-etcd Headless http-metrics:2381>2381 component=etcd → not-reached headless
operator ClusterIP https:443>https app=operator → not-reached taken
prometheus ClusterIP http-web:9090>9090,reloader-web:8080>reloader-web/http name=prometheus → not-reached taken

# prometheus, alertmanager, pushgateway
server ClusterIP http:80>9090 name=prometheus → not-reached taken
alertmanager ClusterIP http:9093>http name=alertmanager → store store
alertmanager-headless Headless http:9093>http name=alertmanager → store store
pushgateway ClusterIP http:9091>9091 name=pushgateway → not-reached taken

# harbor
core ClusterIP *http-web:80>8080 component=core → taken taken
database ClusterIP :5432>5432 component=database → store store
jobservice ClusterIP http-jobservice:80>8080 component=jobservice → not-reached taken
portal ClusterIP *:80>8080 component=portal → taken taken
redis ClusterIP :6379>6379 component=redis → store store
registry ClusterIP http-registry:5000>5000,http-controller:8080>8080 component=registry → not-reached taken
trivy ClusterIP http-trivy:8080>8080 component=trivy → not-reached taken

# temporal
frontend ClusterIP grpc-rpc:7233>rpc/tcp,http:7243>http/http component=frontend → not-reached not-http
frontend-headless Headless grpc-rpc:7233>rpc/tcp,grpc-membership:6933>membership/tcp,` +
	`metrics:9090>metrics/http component=frontend → not-reached not-http
history-headless Headless grpc-rpc:7234>rpc/tcp,grpc-membership:6934>membership/tcp,` +
	`metrics:9090>metrics/http component=history → not-reached not-http
web ClusterIP *http:8080>http/http component=web → taken taken

# supabase: its PostgreSQL calls its port http
auth ClusterIP http:9999>9999 name=auth → not-reached taken
db ClusterIP http:5432>5432 name=db → store store
functions ClusterIP http:9000>9000 name=functions → not-reached taken
kong ClusterIP *http:8000>8000 name=kong → taken taken
realtime ClusterIP http:4000>4000 name=realtime → not-reached taken
storage ClusterIP http:5000>5000 name=storage → not-reached taken
studio ClusterIP http:3000>3000 name=studio → not-reached taken

# airflow (airflow-helm)
flower ClusterIP *flower:5555>5555/http component=flower → taken taken
pgbouncer ClusterIP pgbouncer:6432>6432/tcp component=pgbouncer → store store
web ClusterIP *web:8080>8080/http component=web → taken taken
worker Headless worker:8793>8793/http component=worker → not-reached headless

# vault: it is sealed after each start
agent-injector ClusterIP https:443>8080 component=webhook → not-reached taken
active ClusterIP *http:8200>8200,https-internal:8201>8201 component=server,vault-active=true → store store
internal Headless http:8200>8200,https-internal:8201>8201 component=server → store store
vault ClusterIP http:8200>8200,https-internal:8201>8201 component=server → store store

# jenkins: the agents' port is one of the same pods
agent ClusterIP agent-listener:50000>50000 component=controller → not-http not-http
jenkins ClusterIP *http:8080>8080 component=controller → taken taken

# tempo-distributed
compactor ClusterIP http-metrics:3200>http-metrics component=compactor → not-reached taken
distributor-discovery Headless http-metrics:3200>http-metrics component=distributor → not-reached headless
distributor ClusterIP http-metrics:3200>http-metrics,grpc:9095>9095 component=distributor → not-reached not-http
gateway ClusterIP *http-metrics:80>http-metrics component=gateway → taken taken
gossip-ring Headless gossip-ring:7946>7946 part-of=memberlist → not-reached not-http
memcached ClusterIP memcached-client:11211>client,http-metrics:9150>http-metrics component=memcached → store store

# loki-distributed
distributor ClusterIP http:3100>http,grpc:9095>grpc component=distributor → not-reached not-http
gateway ClusterIP *http:80>http component=gateway → taken taken
ingester-headless Headless http:3100>http,grpc:9095>grpc component=ingester → not-reached not-http
memberlist Headless tcp:7946>http-memberlist part-of=memberlist → not-reached not-http

# mastodon
streaming ClusterIP *streaming:4000>streaming component=streaming → taken taken
web ClusterIP *http:3000>http component=web → taken taken

# opencost: the Ingress routes to one of three ports
opencost ClusterIP http:9003>9003,mcp-server:8081>8081,*http-ui:9090>9090 name=opencost → not-http not-http

# nextcloud
metrics ClusterIP http:9100>metrics component=metrics → not-reached taken
nextcloud ClusterIP *http:8080>80 component=app → taken taken
`

// A Namespace's label selects, from these charts, what visitors reach, and no database.
func TestCharts(t *testing.T) {
	taken := 0
	for chart := range strings.SplitSeq(strings.TrimSpace(charts), "\n\n") {
		title, lines, _ := strings.Cut(chart, "\n")
		var around Surroundings
		var verdicts [][]string
		for line := range strings.SplitSeq(lines, "\n") {
			facts, verdict, ok := strings.Cut(line, " → ")
			fields := strings.Fields(facts)
			if !ok || len(fields) != 4 {
				t.Fatalf("%s: %q", title, line)
			}
			s, ingresses := chartService(t, fields)
			around.Services = append(around.Services, *s)
			around.Ingresses = append(around.Ingresses, ingresses...)
			verdicts = append(verdicts, strings.Fields(verdict))
		}
		for i := range around.Services {
			for j, internal := range []bool{false, true} {
				around.InternalServices = internal
				skip := JudgeNamespaced(&around.Services[i], around)
				if skip == "" {
					skip = JudgeService(&around.Services[i], "scale-to-zero", false, nil)
				}
				if got := verdictOf(skip); got != verdicts[i][j] {
					t.Errorf("%s: %s, internal services %t: %s, want %s (%s)", title, around.Services[i].Name, internal, got, verdicts[i][j], skip)
				}
				if skip == "" && !internal {
					taken++
				}
			}
		}
	}
	if taken != 15 {
		t.Errorf("%d Services are taken", taken)
	}
}

func verdictOf(skip Skip) string {
	for part, verdict := range map[string]string{
		"is that of": "store", "exposes it": "not-reached", "does not say that it speaks HTTP": "not-http",
		"it is headless": "headless", "visitors reach its pods by": "uncounted",
	} {
		if strings.Contains(string(skip), part) {
			return verdict
		}
	}
	if skip != "" {
		return string(skip)
	}
	return "taken"
}

// chartService parses a line: the Service, and the Ingresses that route to its ports.
func chartService(t *testing.T, facts []string) (*corev1.Service, []networkingv1.Ingress) {
	t.Helper()
	s := service(unlabelled, noPorts, called(facts[0]))
	if facts[1] == "Headless" {
		headless(s)
	}
	var ingresses []networkingv1.Ingress
	for fact := range strings.SplitSeq(facts[2], ",") {
		fact, appProtocol, hasProtocol := strings.Cut(fact, "/")
		fact, led := strings.CutPrefix(fact, "*")
		name, numbers, _ := strings.Cut(fact, ":")
		number, target, _ := strings.Cut(numbers, ">")
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		p := corev1.ServicePort{Name: name, Port: int32(n), TargetPort: intstr.Parse(target)}
		if hasProtocol {
			p.AppProtocol = &appProtocol
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
		if led {
			ingresses = append(ingresses, ingressTo(s.Name, networkingv1.ServiceBackendPort{Number: p.Port}))
		}
	}
	s.Spec.Selector = map[string]string{}
	for pair := range strings.SplitSeq(facts[3], ",") {
		key, value, _ := strings.Cut(pair, "=")
		s.Spec.Selector[key] = value
	}
	return s, ingresses
}
