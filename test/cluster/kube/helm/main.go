// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command helm is Helm 4.
package main

import (
	"errors"
	"log/slog"
	"os"

	helm "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
)

func main() {
	kube.ManagedFieldsManager = "helm"
	cmd, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err != nil {
		slog.Error("helm", "error", err)
		os.Exit(1)
	}
	if err := cmd.Execute(); err != nil {
		code := 1
		if failed, ok := errors.AsType[helm.CommandError](err); ok {
			code = failed.ExitCode
		}
		os.Exit(code)
	}
}
