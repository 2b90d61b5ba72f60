// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

func (c *cluster) etcd() daemon {
	return daemon{name: "etcd", binary: c.hyperkube(), args: []string{
		"--name=scale-to-zero", "--data-dir=" + c.path("data", "etcd"), "--log-level=warn",
		"--unsafe-no-fsync", // no fsync: the data has to survive a killed process, and not a power cut
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=scale-to-zero=http://127.0.0.1:2380",
	}}
}

func (c *cluster) apiServer() daemon {
	return daemon{name: "kube-apiserver", binary: c.hyperkube(), args: []string{
		"--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range=" + serviceCIDR,
		"--bind-address=0.0.0.0", "--secure-port=6443", "--advertise-address=" + nodeIP,
		"--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--client-ca-file=" + c.pki("ca.crt"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.pki("service-account.crt"), "--service-account-signing-key-file=" + c.pki("service-account.key"),
		"--kubelet-client-certificate=" + c.pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + c.pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.pki("front-proxy-client.crt"), "--proxy-client-key-file=" + c.pki("front-proxy-client.key"),
		"--enable-aggregator-routing=true", // the API server calls webhooks and aggregated APIs at their pods, not through kube-proxy
		"--shutdown-delay-duration=0s",
		"--audit-policy-file=" + c.auditPolicyFile(), "--audit-log-path=" + c.auditLog(), "--audit-log-maxsize=4000", // megabytes: one file
	}}
}

// auditPolicy records who did what, without contents, for the accounts of one namespace, and of KEDA's in a large cluster. What its
// requests are is how tests compare an account's rights with what it uses. Nothing else is recorded, because most requests are
// Kubernetes' own.
func (c *cluster) auditPolicy() []byte {
	groups := `"system:serviceaccounts:` + auditedNamespace + `"`
	if c.large {
		groups += `, "system:serviceaccounts:keda"`
	}
	return fmt.Appendf(nil, `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: [%s]
  - level: None
`, groups)
}

// auditedNamespace is where the tests install what they try.
const auditedNamespace = "scale-to-zero"

func (c *cluster) auditPolicyFile() string { return c.path("conf", "audit-policy.yaml") }
func (c *cluster) auditLog() string        { return c.log("audit") }

// Both controllers get higher request rates. At the defaults, the default ServiceAccount, which every pod needs, comes 5
// s late. There is one replica of each, so none elects a leader. Autoscalers read their metrics every 5 s instead of 15 s,
// because tests wait for them. Their delays for starting pods are the defaults: a pod's CPU counts as soon as the pod has
// been ready for one of metrics-server's measurements.
func (c *cluster) controllerManager() daemon {
	kubeconfig := c.pki("kube-controller-manager.kubeconfig")
	return daemon{name: "kube-controller-manager", binary: c.hyperkube(), args: []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=300", "--kube-api-burst=600",
		"--horizontal-pod-autoscaler-sync-period=" + c.autoscalerPeriod(),
		"--use-service-account-credentials=true", "--root-ca-file=" + c.pki("ca.crt"),
		"--service-account-private-key-file=" + c.pki("service-account.key"),
		"--cluster-signing-cert-file=" + c.pki("ca.crt"), "--cluster-signing-key-file=" + c.pki("ca.key"),
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
		"--allocate-node-cidrs=false", "--service-cluster-ip-range=" + serviceCIDR,
	}}
}

func (c *cluster) scheduler() daemon {
	kubeconfig := c.pki("kube-scheduler.kubeconfig")
	return daemon{name: "kube-scheduler", binary: c.hyperkube(), args: []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=300", "--kube-api-burst=600",
	}}
}

// upAPIServer starts etcd and the API server. The API server waits for etcd itself.
func (c *cluster) upAPIServer(ctx context.Context) error {
	if _, err := writeFile(c.auditPolicyFile(), c.auditPolicy(), 0o644); err != nil {
		return err
	}
	if err := c.mountEtcd(); err != nil {
		return err
	}
	for _, d := range []daemon{c.etcd(), c.apiServer()} {
		if err := c.start(ctx, d); err != nil {
			return err
		}
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	return poll(ctx, 2*time.Minute, "the API server to be ready; see "+c.log("kube-apiserver"), func() (bool, error) {
		return api.get(ctx, "/readyz", nil) == nil, c.require("etcd", "kube-apiserver")
	})
}

// upControllers returns when pods can be created: it waits for their ServiceAccount, which comes last.
func (c *cluster) upControllers(ctx context.Context) error {
	for _, d := range []daemon{c.controllerManager(), c.scheduler()} {
		if err := c.start(ctx, d); err != nil {
			return err
		}
	}
	if err := c.waitHealthy(ctx, "kube-controller-manager", "https://127.0.0.1:10257/healthz"); err != nil {
		return err
	}
	if err := c.waitHealthy(ctx, "kube-scheduler", "https://127.0.0.1:10259/healthz"); err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	return poll(ctx, time.Minute, "the default ServiceAccount", func() (bool, error) {
		return api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil) == nil, c.require("kube-controller-manager")
	})
}
