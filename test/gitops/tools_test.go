// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// command runs a tool for one namespace.
type command struct {
	home, namespace string
	stdin           string
}

// run runs a tool and returns its standard output. If the tool fails, standard error is part of it.
func (c command) run(name string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), name), args...)
	cmd.Env = []string{"HOME=" + c.home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + kubeconfig}
	if c.namespace != "" {
		cmd.Env = append(cmd.Env, "HELM_NAMESPACE="+c.namespace)
	}
	cmd.Stdin = strings.NewReader(c.stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	if name == "kubectl" {
		return stdout.String(), nil
	}
	return stdout.String() + stderr.String(), nil // with --debug, helm prints its steps there
}

// values are what differs between two versions of the chart.
type values struct {
	replicas int32
	note     string
	// scaledObject is the spec of the chart's ScaledObject without its target, in JSON. The chart has none if it is empty.
	scaledObject string
	optedOut     bool
}

func (v values) flags() []string {
	flags := []string{"--set", fmt.Sprintf("replicas=%d,note=%s", v.replicas, v.note)}
	if v.scaledObject != "" {
		flags = append(flags, "--set-json", "scaledObject="+v.scaledObject)
	}
	if v.optedOut {
		flags = append(flags, "--set-json", `labels={"scale-to-zero":null}`)
	}
	return flags
}

// kinds are the kinds of the chart's objects, in the order in which they are applied.
func (v values) kinds() []string {
	kinds := []string{"Deployment", "Service", "Ingress"}
	if v.scaledObject != "" {
		kinds = append(kinds, "ScaledObject")
	}
	return kinds
}

// tool is one way to apply a chart to a cluster, again and again.
type tool struct {
	name string
	// manager is the field manager of what it has applied.
	manager string
	// apply applies the chart and returns the output.
	apply func(a *app, v values) (string, error)
	// unchanged are the words, for a kind, that say that nothing was to be done. It is empty if the tool has none.
	unchanged string
	// drift returns how the object of a kind differs from the chart, or "". It is nil if the tool can only apply.
	drift func(a *app, kind string, v values) (string, error)
	// forced applies in spite of conflicts. It is nil if the tool always does, or has no conflicts.
	forced func(a *app, v values) (string, error)
	// threeWay says that the tool keeps what others have added to a map.
	threeWay bool
	// replaces says that the tool always writes the whole object.
	replaces bool
}

func tools() []tool {
	return []tool{
		{
			name: "helm 3", manager: "helm", threeWay: true, unchanged: "no changes for %s",
			apply: helm("helm3", "--debug"),
		},
		{
			name: "helm 4", manager: "helm",
			apply: helm("helm", "--server-side=true"), forced: helm("helm", "--server-side=true", "--force-conflicts"),
		},
		{
			name: "helm 4, client-side", manager: "helm", threeWay: true, unchanged: `"no changes detected" kind=%s`,
			apply: helm("helm", "--server-side=false", "--debug"),
		},
		{
			name: "kubectl apply", manager: "kubectl-client-side-apply", threeWay: true, unchanged: "%s/web unchanged",
			apply: kubectl("apply"), drift: kubectlDiff(),
		},
		{
			name: "kubectl apply, server-side", manager: "ci",
			apply:  kubectl("apply", "--server-side", "--field-manager=ci"),
			forced: kubectl("apply", "--server-side", "--field-manager=ci", "--force-conflicts"),
			drift:  kubectlDiff("--server-side", "--field-manager=ci"),
		},
		{
			name: "flux", manager: fluxManager,
			apply: fluxApply, drift: fluxDrift,
		},
		{
			name: "argo cd", manager: argoManager, threeWay: true, unchanged: "%s/web unchanged",
			apply: kubectl("apply", "--field-manager="+argoManager), drift: argoDrift,
		},
		{
			name: "argo cd, server-side", manager: argoManager,
			apply: kubectl("apply", "--server-side", "--force-conflicts", "--field-manager="+argoManager), drift: argoDrift,
		},
		{
			name: "argo cd, replace", manager: argoManager, replaces: true,
			apply: func(a *app, v values) (string, error) {
				verb := "replace"
				if a.exists() != nil {
					verb = "create"
				}
				return kubectl(verb, "--field-manager="+argoManager)(a, v)
			},
			drift: argoDrift,
		},
	}
}

func helm(binary string, flags ...string) func(*app, values) (string, error) {
	return func(a *app, v values) (string, error) {
		args := append([]string{"upgrade", "web", "testdata/chart", "--install"}, flags...)
		return a.command.run(binary, append(args, v.flags()...)...)
	}
}

// render returns the objects of the chart by kind.
func (a *app) render(v values) (map[string]string, error) {
	if all := a.rendered[v]; all != nil {
		return all, nil
	}
	out, err := a.command.run("helm", append([]string{"template", "web", "testdata/chart"}, v.flags()...)...)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, document := range documents(out) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), u); err != nil {
			return nil, err
		}
		all[u.GetKind()] = document
	}
	a.rendered[v] = all
	return all, nil
}

// documents returns the YAML documents of a stream except empty ones.
func documents(stream string) []string {
	var out []string
	for document := range strings.SplitSeq("\n"+stream, "\n---\n") {
		if strings.TrimSpace(document) != "" {
			out = append(out, document)
		}
	}
	return out
}

// kubectl runs kubectl with all objects of the chart.
func kubectl(verb string, flags ...string) func(*app, values) (string, error) {
	return func(a *app, v values) (string, error) {
		all, err := a.render(v)
		if err != nil {
			return "", err
		}
		c := a.command
		for _, kind := range v.kinds() {
			c.stdin += all[kind] + "\n---\n"
		}
		return c.run("kubectl", append([]string{verb, "--namespace=" + a.ns, "--filename=-"}, flags...)...)
	}
}

func kubectlDiff(flags ...string) func(*app, string, values) (string, error) {
	return func(a *app, kind string, v values) (string, error) {
		all, err := a.render(v)
		if err != nil {
			return "", err
		}
		c := a.command
		c.stdin = all[kind]
		out, err := c.run("kubectl", append([]string{"diff", "--namespace=" + a.ns, "--filename=-"}, flags...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 1 && out != "" {
			return out, nil
		}
		return out, err
	}
}

// fluxManager is the name under which Flux's kustomize-controller applies.
const fluxManager = "kustomize-controller"

// fluxApply does what Flux does with an object: a dry run of a forced server-side apply, and a real one only if the dry
// run's result differs from what is there.
func fluxApply(a *app, v values) (string, error) {
	all, err := a.render(v)
	if err != nil {
		return "", err
	}
	var said strings.Builder
	for _, kind := range v.kinds() {
		drift, err := fluxDrift(a, kind, v)
		if apierrors.IsNotFound(err) {
			drift, err = "it is not there", nil
		}
		if err == nil && drift != "" {
			fmt.Fprintf(&said, "%s: %s\n", kind, drift)
			_, err = a.serverSideApply(fluxManager, all[kind])
		}
		if err != nil {
			return said.String(), err
		}
	}
	return said.String(), nil
}

func fluxDrift(a *app, kind string, v values) (string, error) {
	all, err := a.render(v)
	if err != nil {
		return "", err
	}
	live := a.object(kind)
	if err := a.get("web", live); err != nil {
		return "", err
	}
	dry, err := a.serverSideApply(fluxManager, all[kind], client.DryRunAll)
	if err != nil {
		return "", err
	}
	for _, u := range []*unstructured.Unstructured{live, dry} {
		delete(u.Object, "status")
		u.Object["metadata"] = map[string]any{"labels": u.GetLabels(), "annotations": u.GetAnnotations()}
	}
	return cmp.Diff(live.Object, dry.Object), nil
}

// serverSideApply applies a manifest and forces it, as Flux and Argo CD do, and returns the API server's answer.
func (a *app) serverSideApply(manager, manifest string, options ...client.PatchOption) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), u); err != nil {
		return nil, err
	}
	u.SetNamespace(a.ns)
	options = append(options, client.FieldOwner(manager), client.ForceOwnership)
	err := kube.Patch(a.t.Context(), u, client.Apply, options...) //nolint:staticcheck // of an object that is read from a manifest
	return u, err
}
