// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

func traefikImage() bundledImage {
	return bundledImage{name: traefikImageName, binary: "traefik", dest: "/traefik"}
}

const (
	traefikImageName  = "scale-to-zero.test/traefik:" + traefikVersion
	traefikNamespace  = "traefik"
	traefikDeployment = "/apis/apps/v1/namespaces/" + traefikNamespace + "/deployments/traefik"
	traefikClass      = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/traefik"
	definitions       = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
)

// Traefik listens on 80 and 443 in its pod too, because it accepts a Gateway's listeners only on its own ports. It may
// read what its two providers watch and write only status. It ignores Ingresses without its class. Its API shows tests
// what it has loaded; only pods of this cluster can reach it.
const traefikManifests = `
apiVersion: v1
kind: Namespace
metadata: {name: ` + traefikNamespace + `}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: traefik, namespace: ` + traefikNamespace + `}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: traefik}
rules:
- {apiGroups: [""], resources: [namespaces, nodes], verbs: [list, watch]}
- {apiGroups: [""], resources: [services, secrets, configmaps], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses, ingressclasses], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses/status], verbs: [update]}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses, gateways, httproutes, grpcroutes, tlsroutes, referencegrants, backendtlspolicies]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status, gateways/status, httproutes/status, grpcroutes/status, tlsroutes/status, backendtlspolicies/status]
  verbs: [update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: traefik}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: traefik}
subjects: [{kind: ServiceAccount, name: traefik, namespace: ` + traefikNamespace + `}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: traefik}
spec: {controller: traefik.io/ingress-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: traefik}
spec: {controllerName: traefik.io/gateway-controller}
---
apiVersion: v1
kind: Service
metadata: {name: traefik, namespace: ` + traefikNamespace + `}
spec:
  selector: {app: traefik}
  ports:
  - {name: web, port: 80, targetPort: web}
  - {name: websecure, port: 443, targetPort: websecure}
  - {name: admin, port: 8080, targetPort: admin}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: traefik, namespace: ` + traefikNamespace + `}
spec:
  selector: {matchLabels: {app: traefik}}
  template:
    metadata: {labels: {app: traefik}}
    spec:
      serviceAccountName: traefik
      securityContext:
        runAsNonRoot: true
        sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "80"}]
      containers:
      - name: traefik
        image: ` + traefikImageName + `
        args:
        - --global.checknewversion=false
        - --entrypoints.web.address=:80
        - --entrypoints.websecure.address=:443
        - --entrypoints.websecure.http.tls=true
        - --entrypoints.traefik.address=:8080
        - --ping=true
        - --api.insecure=true
        - --api.dashboard=false
        - --providers.kubernetesingress=true
        - --providers.kubernetesingress.ingressclass=traefik
        - --providers.kubernetesgateway=true
        ports:
        - {name: web, containerPort: 80}
        - {name: websecure, containerPort: 443}
        - {name: admin, containerPort: 8080}
        readinessProbe: {httpGet: {path: /ping, port: admin}, periodSeconds: 1}
`

// addTraefik adds Traefik to a running cluster. Every step can be repeated.
func (c *cluster) addTraefik(ctx context.Context, report *progress) error {
	if err := c.checkMachine(); err != nil {
		return err
	}
	return c.change(ctx, func() error {
		api, err := c.api()
		if err != nil {
			return err
		}
		if api.traefikAvailable(ctx) {
			fmt.Fprintf(report.out, "Traefik is there already in cluster %s\n", c.name)
			return nil
		}
		if err := c.buildTraefik(ctx, report); err != nil {
			return err
		}
		return c.installTraefik(ctx, newProgress(), api)
	})
}

func (c *cluster) installTraefik(ctx context.Context, report *progress, api *apiClient) error {
	return report.stages([]stage{
		{"Traefik's image", func() error { return c.loadOnce(ctx, traefikImage()) }},
		{"Gateway API's definitions", func() error { return c.installGatewayAPI(ctx, api) }},
		{"Traefik's manifests", func() error { return c.apply(ctx, []byte(traefikManifests)) }},
		{"Traefik: Deployment is Available, GatewayClass is Accepted", func() error { return c.waitForTraefik(ctx, api) }},
	})
}

// installGatewayAPI returns when the API server serves the kinds that Traefik watches.
func (c *cluster) installGatewayAPI(ctx context.Context, api *apiClient) error {
	manifests, err := os.ReadFile(c.gatewayAPIManifests())
	if err != nil {
		return fmt.Errorf("reading Gateway API's definitions: %w", err)
	}
	if err := c.apply(ctx, manifests); err != nil {
		return fmt.Errorf("installing Gateway API: %w", err)
	}
	return poll(ctx, time.Minute, "Gateway API to be served", func() (bool, error) {
		for _, kind := range []string{
			"gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants", "backendtlspolicies",
		} {
			if !api.has(ctx, definitions+kind+".gateway.networking.k8s.io", "Established") {
				return false, c.require("kube-apiserver")
			}
		}
		return true, nil
	})
}

func (c *cluster) waitForTraefik(ctx context.Context, api *apiClient) error {
	return poll(ctx, 3*time.Minute, "Traefik to be Available; see `kubectl get pods -n "+traefikNamespace+"`", func() (bool, error) {
		return api.traefikAvailable(ctx), c.requireNodes()
	})
}

// traefikAvailable checks the Deployment, and the GatewayClass, which only a Traefik that reads the cluster's objects
// accepts.
func (a *apiClient) traefikAvailable(ctx context.Context) bool {
	return a.has(ctx, traefikDeployment, "Available") && a.has(ctx, traefikClass, "Accepted")
}
