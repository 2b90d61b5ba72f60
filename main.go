// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command scale-to-zero puts apps that are already deployed to sleep at zero replicas and wakes them on the first request.
// One binary contains everything that runs in the cluster; see its --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// version is set by the linker.
var version = ""

// leaseName is the name of the Lease that the controllers use for leader election.
const leaseName = "scale-to-zero-controller"

// Defaults that two commands share: the names in the chart for a release called scale-to-zero.
const (
	defaultDeployment         = "scale-to-zero-controller"
	defaultCertSecret         = "scale-to-zero-webhook-cert"
	defaultInterceptorService = "scale-to-zero-interceptor"
	defaultInterceptorAccount = "scale-to-zero-interceptor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale-to-zero:", err)
		os.Exit(1)
	}
}

// command is the whole command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "scale-to-zero",
		Short: "Put idle apps to sleep at zero replicas, and wake them on the first request",
		Long: `Put idle apps to sleep at zero replicas, and wake them on the first request.

These commands run in the cluster; the Helm chart starts them. To put an app to sleep while nobody uses it, label its Service:

    kubectl label service NAME scale-to-zero=true

Every flag can also be set in the environment: --log-level is SCALE_TO_ZERO_LOG_LEVEL. The command line takes precedence.`,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(controllerCommand(), interceptorCommand(), restoreCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), versionText()) },
	})
	return root
}

// fromEnvironment sets every flag that is not on the command line from its environment variable, if that exists.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "SCALE_TO_ZERO_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// common are the flags that every command has.
type common struct {
	namespace, logLevel, logFormat string
	profileAddress                 string
}

func (c *common) add(f *pflag.FlagSet) {
	f.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that scale-to-zero runs in (default: $POD_NAMESPACE)")
	f.StringVar(&c.logLevel, "log-level", "info", "log level: info or debug")
	f.StringVar(&c.logFormat, "log-format", "json", "log format: json or text")
	c.addProfiles(f)
}

// start checks the common flags, and sets up logging and the connection to the API server.
func (c *common) start(component string) (logr.Logger, *rest.Config, error) {
	level := zapcore.InfoLevel
	switch c.logLevel {
	case "info":
	case "debug":
		level = zapcore.DebugLevel
	default:
		return logr.Logger{}, nil, fmt.Errorf("--log-level is %q; allowed are info and debug", c.logLevel)
	}
	switch c.logFormat {
	case "json", "text":
	default:
		return logr.Logger{}, nil, fmt.Errorf("--log-format is %q; allowed are json and text", c.logFormat)
	}
	if c.namespace == "" {
		return logr.Logger{}, nil, errors.New("--namespace is empty, and so is $POD_NAMESPACE; set one to the namespace of scale-to-zero")
	}
	logger := zap.New(zap.UseDevMode(c.logFormat == "text"), zap.Level(level), zap.StacktraceLevel(zapcore.PanicLevel))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger.WithName("client"))
	config, err := ctrl.GetConfig()
	if err != nil {
		return logger, nil, fmt.Errorf("finding the API server: %w", err)
	}
	config.UserAgent = "scale-to-zero-" + component + "/" + versionText()
	if err := c.serveProfiles(logger); err != nil {
		return logger, nil, err
	}
	logger.Info("Starting", "component", component, "version", versionText(), "namespace", c.namespace)
	return logger, config, nil
}
