// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// daemons are all processes that run besides the pods.
func (c *cluster) daemons() []string {
	names := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	for _, n := range c.nodes() {
		names = append(names, n.daemons()...)
	}
	return append(names, "coredns")
}

// requireNodes fails if a process is missing that pods need, on whatever node.
func (c *cluster) requireNodes() error {
	for _, n := range c.nodes() {
		if err := n.require("kubelet", "containerd"); err != nil {
			return err
		}
	}
	return c.require("kube-apiserver")
}

// up starts what does not run yet. Every stage can be repeated, so it also completes a partial cluster, after a crash of
// `up` itself or of any process.
func (c *cluster) up(ctx context.Context, report *progress, nodes int, withAddOns bool) error {
	if err := c.checkMachine(); err != nil {
		return err
	}
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := c.checkOwner(); err != nil {
		return err
	}
	if nodes, err = c.checkNodes(nodes); err != nil {
		return err
	}
	if c.isUp(ctx, withAddOns) {
		fmt.Fprintf(report.out, "cluster %s is up already\n", c.name)
		return nil
	}
	if err := c.obtain(ctx, report, withAddOns); err != nil {
		return err
	}
	if err := c.boot(ctx, newProgress(), nodes, withAddOns); err != nil {
		return err
	}
	fmt.Printf("cluster %s is up: `kubectl get pods -A` shows its pods, `load` loads an image, `forward` opens a Service, `down` removes it\n",
		c.name)
	return nil
}

// obtain installs and builds what is missing, both at once: one waits for the network, the other for the processors.
func (c *cluster) obtain(ctx context.Context, report *progress, withAddOns bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	installed := make(chan error, 1)
	go func() {
		err := installPackages(ctx, report.aside())
		if err != nil {
			cancel() // report it now, and not after minutes of building
		}
		installed <- err
	}()
	built := c.buildCluster(ctx, report, withAddOns)
	if err := <-installed; err != nil {
		return err
	}
	return built
}

// isUp checks everything that up waits for.
func (c *cluster) isUp(ctx context.Context, withAddOns bool) bool {
	if !c.namespace().exists() || c.require(c.daemons()...) != nil {
		return false
	}
	api, err := c.api()
	if err != nil || !exists(c.path("bin", "kubectl")) {
		return false
	}
	for _, n := range c.nodes() {
		if !n.namespace().exists() || !api.has(ctx, n.object(), "Ready") {
			return false
		}
	}
	return !withAddOns || api.metricsServerAvailable(ctx) && api.kedaAvailable(ctx)
}

func (c *cluster) boot(ctx context.Context, report *progress, nodes int, withAddOns bool) error {
	if err := c.prepare(nodes); err != nil {
		return fmt.Errorf("making folders: %w", err)
	}
	if err := c.claimHost(ctx); err != nil {
		return fmt.Errorf("saving the machine's settings: %w", err)
	}
	loaded := make(chan error, 1)
	stages := []stage{
		{"network namespace " + c.globalName(), c.ensureNetwork},
		{"certificates and commands", func() error { return firstError(c.ensurePKI, c.writeWrappers) }},
		{"containerd", func() error {
			err := c.each(func(n node) error { return n.upContainerd(ctx) })
			if err == nil { // unpacking images takes seconds, and nothing needs them before the first pod
				go func() { loaded <- c.loadOnce(ctx, nodeImages(withAddOns)...) }()
			}
			return err
		}},
		{"etcd and API server", func() error { return c.upAPIServer(ctx) }},
		{"controller-manager and scheduler", func() error { return c.upControllers(ctx) }},
		{choose(nodes == 1, "kubelet and kube-proxy: the node is Ready", "kubelets and kube-proxies: the nodes are Ready"), func() error {
			return c.upNodes(ctx)
		}},
		{"CoreDNS: names resolve", func() error { return c.upDNS(ctx) }},
	}
	if withAddOns { // metrics-server goes first: it measures for 10 s before it is ready
		stages = append(stages,
			stage{"metrics-server's manifests", func() error { return c.installMetricsServer(ctx) }},
			stage{"KEDA's manifests", func() error { return c.installKEDA(ctx) }})
	}
	stages = append(stages, stage{"images", func() error { return <-loaded }})
	if withAddOns {
		stages = append(stages,
			stage{"KEDA: Deployments and external metrics are Available", func() error { return c.waitForKEDA(ctx) }},
			stage{"metrics-server: Deployment and resource metrics are Available", func() error { return c.waitForMetricsServer(ctx) }})
	}
	return report.stages(stages)
}

func (c *cluster) ensureNetwork() error {
	if err := c.ensureBridge(); err != nil {
		return fmt.Errorf("connecting the nodes: %w", err)
	}
	for _, n := range c.nodes() {
		if err := n.ensureNetwork(); err != nil {
			return err
		}
	}
	return nil
}

// upNodes starts the nodes. With several of them, the first has the label of a control plane, so that others know which not to stop.
func (c *cluster) upNodes(ctx context.Context) error {
	err := c.each(func(n node) error { return n.upKubelet(ctx) })
	if err != nil || len(c.nodes()) == 1 {
		return err
	}
	return c.apply(ctx, []byte(`{apiVersion: v1, kind: Node, metadata: {name: node1, labels: {node-role.kubernetes.io/control-plane: ""}}}`))
}

// nodeImages are the images that `up` loads, in the order in which pods need them.
func nodeImages(withAddOns bool) []bundledImage {
	images := []bundledImage{pause()}
	if withAddOns {
		images = slices.Concat(images, []bundledImage{metricsServerImage()}, kedaImages())
	}
	return images
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// environment is the environment of a client of the cluster. The caches of kubectl and helm are in the cluster's folder,
// and go with it.
func (c *cluster) environment() []string {
	return []string{
		"SCALE_TO_ZERO_CLUSTER=" + c.name, "SCALE_TO_ZERO_NETNS=" + c.namespace().path(), "SCALE_TO_ZERO_BIN=" + c.path("bin"),
		"KUBECONFIG=" + c.kubeconfig(), "KUBECACHEDIR=" + c.path("cache", "kube"),
		"HELM_CACHE_HOME=" + c.path("cache", "helm"), "HELM_CONFIG_HOME=" + c.path("config", "helm"), "HELM_DATA_HOME=" + c.path("share", "helm"),
		"SCALE_TO_ZERO_AUDIT_LOG=" + c.auditLog(),
		"PATH=" + c.path("bin") + ":" + os.Getenv("PATH"),
	}
}
