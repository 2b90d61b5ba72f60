// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// clients maps the commands that talk to the cluster to their programs.
func clients() map[string]string {
	return map[string]string{"kubectl": "hyperkube", "helm": "helm", "helm3": "helm3"}
}

// A wrapper enters the namespace before it runs the command, and fails if there is no namespace: outside of it, a client
// with the cluster's kubeconfig would reach nothing and report a confusing error. It keeps a KUBECONFIG of the caller
// only where that can be meant: in `exec` and after `env`.
const wrapper = `#!/bin/sh
if ! [ -e %[1]s ]; then
  echo "%[2]s: cluster %[3]s is not up; start it with: go run -C test/cluster . up" >&2
  exit 1
fi
if [ "${SCALE_TO_ZERO_CLUSTER:-}" != %[3]s ] || [ -z "${KUBECONFIG:-}" ]; then
%[4]sfi
exec nsenter --net=%[1]s -- %[5]s "$@"
`

func (c *cluster) writeWrappers() error {
	var settings strings.Builder
	for _, variable := range c.environment() {
		name, value, _ := strings.Cut(variable, "=")
		if name != "PATH" {
			fmt.Fprintf(&settings, "  export %s=%s\n", name, shellQuote(value))
		}
	}
	if err := os.MkdirAll(c.path("libexec"), 0o755); err != nil {
		return err
	}
	for name, program := range clients() {
		link := c.path("libexec", name) // hyperkube chooses the program by the link's name
		if err := os.Symlink(c.binary(program), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		script := fmt.Sprintf(wrapper, shellQuote(c.namespace().path()), name, c.name, settings.String(), shellQuote(link))
		if _, err := writeFile(c.path("bin", name), []byte(script), 0o755); err != nil {
			return fmt.Errorf("writing command %s: %w", name, err)
		}
	}
	return nil
}

// runClient becomes kubectl or helm, inside the namespace. It first builds Helm 3 if needed, which `up` does not build.
func (c *cluster) runClient(ctx context.Context, name string, args []string) error {
	if err := c.mustBeUp(); err != nil {
		return err
	}
	if err := c.build(ctx, newProgress(), clients()[name]); err != nil {
		return err
	}
	return c.namespace().exec(c.binary(clients()[name]), append([]string{name}, args...), replaceEnv(os.Environ(), c.environment()))
}

func (c *cluster) mustBeUp() error {
	if !c.namespace().exists() || !exists(c.kubeconfig()) {
		return fmt.Errorf("cluster %s is not up; start it with: go run -C test/cluster . up", c.name)
	}
	return nil
}

// shellQuote quotes a string as one shell word.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
