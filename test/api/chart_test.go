// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
)

// The accounts of the chart's release.
const (
	controllerAccount  = "system:serviceaccount:scale-to-zero:scale-to-zero-controller"
	interceptorAccount = "system:serviceaccount:scale-to-zero:scale-to-zero-interceptor"
	restoreAccount     = "system:serviceaccount:scale-to-zero:scale-to-zero-restore"
)

// trusted is an account that the chart's values let opt apps in.
const trusted = "system:serviceaccount:tools:deployer"

// installRights creates the accounts' rights and the admission policies of the chart, so that the controllers of these tests have what
// they have in a cluster, and no more.
func installRights(ctx context.Context) error {
	render := exec.CommandContext(ctx, "go", "run", "./render", "startupCPU.enabled=true", "metrics.authentication=true",
		"customWorkloads[0].apiGroup=example.com,customWorkloads[0].resource=galleries", "authorization.trustedAccounts[0]="+trusted)
	render.Dir, render.Stderr = "../chart", os.Stderr
	text, err := render.Output()
	if err != nil {
		return fmt.Errorf("rendering the chart: %w", err)
	}
	kinds := []string{
		"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
	}
	decoder, made := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096), 0
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("reading the chart's objects: %w", err)
		}
		if !slices.Contains(kinds, o.GetKind()) {
			continue
		}
		if err := kube.Create(ctx, o); err != nil {
			return fmt.Errorf("creating %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		made++
	}
	if made < 20 {
		return fmt.Errorf("the chart has only %d roles and policies", made)
	}
	return nil
}

// as returns the configuration of a client of somebody's.
func as(user string) *rest.Config {
	config := rest.CopyConfig(env.Config)
	config.Impersonate.UserName = user
	return config
}
