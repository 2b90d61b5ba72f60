// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command render prints the chart as Helm installs it in namespace scale-to-zero, for the tests of other modules. Its arguments are
// values, as those of helm's --set.
package main

import (
	"fmt"
	"os"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/strvals"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(settings []string) error {
	chart, err := loader.Load("../../config/chart")
	if err != nil {
		return fmt.Errorf("loading the chart: %w", err)
	}
	values := map[string]any{}
	for _, s := range settings {
		if err := strvals.ParseInto(s, values); err != nil {
			return fmt.Errorf("reading %s: %w", s, err)
		}
	}
	install := action.NewInstall(action.NewConfiguration())
	install.ReleaseName, install.Namespace, install.DryRunStrategy = "scale-to-zero", "scale-to-zero", action.DryRunClient
	if install.KubeVersion, err = common.ParseKubeVersion("v1.37.0"); err != nil {
		return fmt.Errorf("reading the version: %w", err)
	}
	result, err := install.Run(chart, values)
	if err != nil {
		return fmt.Errorf("rendering the chart: %w", err)
	}
	rendered, ok := result.(*release.Release)
	if !ok {
		return fmt.Errorf("rendering the chart: a release of type %T", result)
	}
	fmt.Println(rendered.Manifest)
	return nil
}
