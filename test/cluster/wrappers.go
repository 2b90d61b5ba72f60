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

// clients maps the commands that talk to the cluster to the programs that they are.
func clients() map[string]string {
	return map[string]string{"kubectl": "hyperkube", "helm": "helm", "helm3": "helm3"}
}

// A wrapper enters the namespace before it runs the command, and fails if it is not there: with the cluster's kubeconfig
// but outside of its namespace, a client would not reach anything, and say so in its own confusing way. It keeps another
// KUBECONFIG only where one can have been meant: in `exec` and after `env`.
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
		link := c.path("libexec", name) // called through a link, hyperkube knows what to be
		if err := os.Symlink(c.binary(program), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		script := fmt.Sprintf(wrapper, shellQuote(c.namespacePath()), name, c.name, settings.String(), shellQuote(link))
		if _, err := writeFile(c.path("bin", name), []byte(script), 0o755); err != nil {
			return fmt.Errorf("writing command %s: %w", name, err)
		}
	}
	return nil
}

// runClient becomes kubectl or helm, inside the namespace. Helm 3, which `up` does without, is built first if need be.
func (c *cluster) runClient(ctx context.Context, name string, args []string) error {
	if err := c.mustBeUp(); err != nil {
		return err
	}
	if err := c.build(ctx, newProgress(), clients()[name]); err != nil {
		return err
	}
	return c.execInNamespace(c.binary(clients()[name]), append([]string{name}, args...), replaceEnv(os.Environ(), c.environment()))
}

func (c *cluster) mustBeUp() error {
	if !c.hasNamespace() || !exists(c.kubeconfig()) {
		return fmt.Errorf("cluster %s is not up; start it with: go run -C test/cluster . up", c.name)
	}
	return nil
}

// shellQuote makes one word of anything.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
