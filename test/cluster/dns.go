// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// CoreDNS runs as a process: this needs no image, and DNS is there before the first pod.
func (c *cluster) corefile() []byte {
	return fmt.Appendf(nil, `.:53 {
  bind %s
  errors
  health 127.0.0.1:18090
  ready 127.0.0.1:18091
  kubernetes cluster.local in-addr.arpa {
    kubeconfig %s
    pods insecure
    ttl 5
  }
}
`, nodeIP, c.pki("coredns.kubeconfig"))
}

const dnsManifests = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coredns}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: ` + dnsIP + `
  ports:
  - {name: dns, port: 53, protocol: UDP, targetPort: 53}
  - {name: dns-tcp, port: 53, protocol: TCP, targetPort: 53}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [` + nodeIP + `], conditions: {ready: true}}]
`

// upDNS returns when a name resolves through the Service's address, as it does for a pod.
func (c *cluster) upDNS(ctx context.Context) error {
	if _, err := writeFile(c.path("conf", "Corefile"), c.corefile(), 0o644); err != nil {
		return err
	}
	if err := c.apply(ctx, []byte(dnsManifests)); err != nil {
		return err
	}
	if err := c.start(ctx, daemon{
		name: "coredns", binary: c.binary("coredns"), args: []string{"-conf", c.path("conf", "Corefile")},
	}); err != nil {
		return err
	}
	return c.each(func(n node) error {
		return poll(ctx, time.Minute, "DNS to answer "+n.name()+"; see "+c.log("coredns"), func() (bool, error) {
			return n.resolves(ctx, "kubernetes.default.svc.cluster.local.", serviceIP), firstError(
				func() error { return c.require("coredns") }, func() error { return n.require("kube-proxy") })
		})
	})
}

func (n node) resolves(ctx context.Context, name, want string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.namespace().dial(ctx, network, net.JoinHostPort(dnsIP, "53"))
	}}
	addrs, err := resolver.LookupHost(ctx, name)
	return err == nil && len(addrs) == 1 && addrs[0] == want
}
