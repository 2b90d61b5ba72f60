// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The viewer's own cluster is used only if its context is named; the current context does not matter. The demo creates two
// namespaces in it, refuses to touch one that it has not created, and removes both at the end.

// madeByDemo is the label of the namespaces that the demo may remove.
const madeByDemo = "scale-to-zero-demo"

// loader returns the command that loads an image archive into the nodes of a cluster, by the context's name. {} stands for
// the archive's path.
func loader(kubeContext, given string) ([]string, error) {
	if given != "" {
		command := strings.Fields(given)
		if !slices.Contains(command, "{}") {
			command = append(command, "{}")
		}
		return command, nil
	}
	kind, isKind := strings.CutPrefix(kubeContext, "kind-")
	k3d, isK3d := strings.CutPrefix(kubeContext, "k3d-")
	switch {
	case isKind:
		return []string{"kind", "load", "image-archive", "{}", "--name", kind}, nil
	case isK3d:
		return []string{"k3d", "image", "import", "{}", "--cluster", k3d}, nil
	case strings.HasPrefix(kubeContext, "minikube"):
		return []string{"minikube", "--profile", kubeContext, "image", "load", "{}"}, nil
	case kubeContext == "microk8s":
		return []string{"microk8s", "ctr", "image", "import", "{}"}, nil
	case slices.Contains([]string{"docker-desktop", "orbstack", "rancher-desktop"}, kubeContext):
		return []string{"docker", "load", "--input", "{}"}, nil
	}
	return nil, fmt.Errorf("the demo does not know how to load images into the nodes of %s: set LOAD to the command, as in "+
		"make demo CONTEXT=%s LOAD='sudo k3s ctr images import {}', where {} is an archive as `docker save` writes it", kubeContext, kubeContext)
}

// ownCluster inspects the cluster of a context. The error says why the demo leaves it alone.
func ownCluster(ctx context.Context, n *narrator, kubeContext, load string) (cluster, error) {
	c := cluster{context: kubeContext}
	for _, tool := range []string{"kubectl", "helm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return c, fmt.Errorf("%s is not in PATH; the demo needs it on your own cluster", tool)
		}
	}
	var err error
	if c.load, err = loader(kubeContext, load); err != nil {
		return c, err
	}
	server, err := output(ctx, "kubectl", "config", "view", "--minify", "--context", kubeContext,
		"-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return c, err
	}
	n.say(fmt.Sprintf("This is your cluster %s at %s. The demo creates the namespaces %s and %s in it, and the chart's cluster-wide "+
		"objects (roles, admission), and removes them all at the end.", kubeContext, server, ourNamespace, appNamespace))
	if c.arch, err = c.architecture(ctx); err != nil {
		return c, err
	}
	apis, err := c.kubectl(ctx, "api-resources", "--api-group=keda.sh", "-o", "name")
	if err != nil {
		return c, err
	}
	c.keda = strings.Contains(apis, "scaledobjects")
	return c, c.claim(ctx)
}

// architecture returns the nodes' architecture, which the images are built for.
func (c cluster) architecture(ctx context.Context) (string, error) {
	out, err := c.kubectl(ctx, "get", "nodes", "-o", "json")
	if err != nil {
		return "", err
	}
	var nodes struct {
		Items []struct {
			Status struct {
				NodeInfo struct{ Architecture string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &nodes); err != nil {
		return "", fmt.Errorf("reading the nodes: %w", err)
	}
	var found []string
	for _, node := range nodes.Items {
		found = append(found, node.Status.NodeInfo.Architecture)
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) != 1 {
		return "", fmt.Errorf("the nodes have the architectures %v, and the demo builds its images for only one", found)
	}
	return found[0], nil
}

// claim creates the namespaces. It fails if one exists that the demo has not created, or if scale-to-zero is installed already.
func (c cluster) claim(ctx context.Context) error {
	others, err := c.kubectl(ctx, "get", "mutatingwebhookconfigurations", "-l", "app.kubernetes.io/name=scale-to-zero",
		"-o", "jsonpath={.items[*].metadata.annotations.meta\\.helm\\.sh/release-namespace}")
	if err != nil {
		return err
	}
	for _, namespace := range []string{ourNamespace, appNamespace} {
		out, err := c.kubectl(ctx, "get", "namespace", namespace, "--ignore-not-found", "-o", "json")
		if err != nil {
			return err
		}
		if strings.TrimSpace(out) == "" {
			if namespace == ourNamespace && others != "" {
				return fmt.Errorf("scale-to-zero is already installed in this cluster, in namespace %s: the demo leaves it alone", others)
			}
			if _, err := c.kubectl(ctx, "create", "namespace", namespace); err != nil {
				return err
			}
			if _, err := c.kubectl(ctx, "label", "namespace", namespace, madeByDemo+"=true"); err != nil {
				return err
			}
			continue
		}
		var there object
		if err := json.Unmarshal([]byte(out), &there); err != nil {
			return fmt.Errorf("reading namespace %s: %w", namespace, err)
		}
		if there.Metadata.Labels[madeByDemo] != "true" {
			return fmt.Errorf("namespace %s exists and is not the demo's (it has no label %s=true): the demo leaves it alone", namespace, madeByDemo)
		}
	}
	return nil
}

// cleanUp removes what the demo has created: the app first, so that scale-to-zero is there to restore it.
func (c cluster) cleanUp(ctx context.Context, n *narrator) error {
	n.heading("Cleaning up")
	var errs []error
	for _, args := range [][]string{
		{"helm", "uninstall", "airflow", "-n", appNamespace, "--ignore-not-found", "--wait"},
		{"helm", "uninstall", "scale-to-zero", "-n", ourNamespace, "--ignore-not-found", "--wait"},
		{"kubectl", "delete", "namespace", "-l", madeByDemo + "=true", "--timeout=2m"},
	} {
		n.command(args...)
		run := c.kubectl
		if args[0] == "helm" {
			run = c.helm
		}
		done := n.progress("removing")
		_, err := run(ctx, args[1:]...)
		done()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// forward opens a port of this machine to a port of a pod, until stop is called. kubectl has to forward to a pod: the
// Service of an injected app selects none.
func (c cluster) forward(ctx context.Context, to endpoint) (port int, stop func(), err error) {
	_, podPort, _ := strings.Cut(to.address, ":")
	ctx, cancel := context.WithCancel(ctx)
	cmd := program(ctx, "kubectl", "--context", c.context, "port-forward", "-n", to.namespace, "pod/"+to.pod, ":"+podPort)
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return 0, nil, fmt.Errorf("forwarding a port: %w", err)
	}
	stop = func() {
		cancel()
		_ = cmd.Wait() // it is being stopped
	}
	lines := bufio.NewScanner(out)
	timer := time.AfterFunc(time.Minute, cancel)
	defer timer.Stop()
	for lines.Scan() {
		if match := regexp.MustCompile(`^Forwarding from 127\.0\.0\.1:(\d+) ->`).FindStringSubmatch(lines.Text()); match != nil {
			go func() {
				for lines.Scan() { // a full pipe would block it
				}
			}()
			_, err := fmt.Sscan(match[1], &port)
			return port, stop, err
		}
	}
	stop()
	return 0, nil, fmt.Errorf("kubectl port-forward to %s ended before it listened", to)
}
