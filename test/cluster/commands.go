// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const rootHelp = `Boots a real Kubernetes ` + kubernetesVersion + ` with KEDA ` + kedaVersion + ` in a network namespace with no way out.

Each checkout has a cluster of its own, named after its path; --name or SCALE_TO_ZERO_CLUSTER picks another. Everything
is built once, from the Go module proxy (some minutes on two cores), and kept in the user's cache folder. It needs
Linux, root, Go and Debian's apt-get. Traefik ` + traefikVersion + ` is built and installed only when asked for.

Run it from the repository's root; relative paths are taken from there:

  go run -C test/cluster . up
  go run -C test/cluster . traefik
  go run -C test/cluster . kubectl get pods -A
  go run -C test/cluster . down`

// A command gets its cluster when it runs, since --name is only known then.
type command func(ctx context.Context, c *cluster, args []string) error

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "cluster", Short: "A real Kubernetes with KEDA in one network namespace", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true, TraverseChildren: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	name := root.PersistentFlags().String("name", os.Getenv("SCALE_TO_ZERO_CLUSTER"), "name of the cluster; given before the command")
	run := func(do command) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			c, err := newCluster(*name, dir)
			if err != nil {
				return err
			}
			return do(cmd.Context(), c, args)
		}
	}
	root.AddCommand(upCommand(run), traefikCommand(run), downCommand(run), statusCommand(run), buildCommand(run), assetsCommand(run),
		clientCommand(run, "kubectl", "kubectl, as the cluster's administrator"),
		clientCommand(run, "helm", "Helm "+helmVersion), clientCommand(run, "helm3", "Helm "+helm3Version+", built when it is first called"),
		execCommand(run), envCommand(run), loadCommand(run), imageCommand(), forwardCommand(run), pauseCommand(run),
		certManagerCommand(run))
	return root
}

type runner func(command) func(*cobra.Command, []string) error

func upCommand(run runner) *cobra.Command {
	var without bool
	cmd := &cobra.Command{
		Use: "up", Short: "Boot the cluster; returns at once if it is up, mends it if it is up in part", Args: cobra.NoArgs,
		Long: "Boots the cluster, or what is missing of it, and returns when the node is Ready, DNS answers and KEDA is Available.\n" +
			"Builds and installs first what is not there yet. A running cluster keeps its versions until `down`.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			return c.up(ctx, newProgress(), !without)
		}),
	}
	cmd.Flags().BoolVar(&without, "without-keda", false, "Kubernetes only; a later up without this adds KEDA")
	return cmd
}

func traefikCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "traefik", Short: "Add Traefik and Gateway API to the cluster; returns at once if they are there", Args: cobra.NoArgs,
		Long: "Adds Traefik " + traefikVersion + " to a cluster that is up, and returns when it is Available. It serves Ingresses of the class traefik\n" +
			"and Gateways of the class traefik, behind the Service traefik/traefik: web is 80, websecure is 443 and its API is 8080. Gateway\n" +
			"API's standard channel comes with it. The first time, it is built from the Go module proxy, which takes about 5 minutes on two cores. What\n" +
			"the proxy does not have is left out: DNS providers for ACME, and the middlewares basicAuth and digestAuth let nobody in.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			return c.addTraefik(ctx, newProgress())
		}),
	}
}

func downCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the cluster and everything in it", Args: cobra.NoArgs,
		Long: "Removes the cluster with all its processes, mounts, cgroups, files and its network namespace, whatever state it is in.\n" +
			"What was built stays in the cache.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			return c.down(ctx, newProgress())
		}),
	}
}

func statusCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs; fails if the cluster is not usable", Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			return c.status(ctx, os.Stdout)
		}),
	}
}

func buildCommand(run runner) *cobra.Command {
	var without bool
	cmd := &cobra.Command{
		Use: "build", Short: "Build and install what `up` needs, without booting", Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			report := newProgress()
			if err := c.checkMachine(); err != nil {
				return err
			}
			return c.obtain(ctx, report, !without)
		}),
	}
	cmd.Flags().BoolVar(&without, "without-keda", false, "leave KEDA out")
	return cmd
}

func assetsCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "assets", Short: "Print a folder with etcd, kube-apiserver, kubectl, helm and helm3, for KUBEBUILDER_ASSETS", Args: cobra.NoArgs,
		Long: "Prints the folder that envtest wants in KUBEBUILDER_ASSETS. Builds Kubernetes and Helm if they are not there; needs neither\nroot nor a cluster.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			if err := c.buildAssets(ctx, newProgress()); err != nil {
				return err
			}
			dir, err := c.assets()
			if err == nil {
				fmt.Println(dir)
			}
			return err
		}),
	}
}

// clientCommand hands every argument on, --help included; `help kubectl` is ours.
func clientCommand(run runner, name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name + " …", Short: short, DisableFlagParsing: true,
		Long: short + ". Runs inside the namespace with the arguments that follow.",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error { return c.runClient(ctx, name, args) }),
	}
}

func execCommand(run runner) *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec CMD…", Short: "Run a command inside the cluster's network namespace", Args: cobra.MinimumNArgs(1),
		Long: "Runs a command inside the namespace, in the repository's root, with KUBECONFIG set and kubectl, helm and helm3 in PATH.\n" +
			"Services are reached at their addresses. `go run` turns every exit code that is not 0 into 1.",
		RunE: run(func(_ context.Context, c *cluster, args []string) error {
			if err := c.mustBeUp(); err != nil {
				return err
			}
			if err := os.Setenv("PATH", c.path("bin")+":"+os.Getenv("PATH")); err != nil {
				return err
			}
			binary, err := exec.LookPath(args[0])
			if err != nil {
				return err
			}
			return c.execInNamespace(binary, args, replaceEnv(os.Environ(), c.environment()))
		}),
	}
	cmd.Flags().SetInterspersed(false) // the command's flags are its own
	return cmd
}

func envCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print what a script needs, as shell assignments", Args: cobra.NoArgs,
		Long: "Prints shell assignments: eval \"$(go run -C test/cluster . env)\" puts kubectl, helm and helm3 in PATH, which enter the\n" +
			"namespace by themselves. Other programs: nsenter --net=$SCALE_TO_ZERO_NETNS CMD…",
		RunE: run(func(_ context.Context, c *cluster, _ []string) error {
			if err := c.mustBeUp(); err != nil {
				return err
			}
			for _, variable := range c.environment() {
				name, value, _ := strings.Cut(variable, "=")
				quoted := shellQuote(value)
				if name == "PATH" {
					quoted = shellQuote(c.path("bin")) + `:"$PATH"`
				}
				fmt.Printf("export %s=%s\n", name, quoted)
			}
			return nil
		}),
	}
}

func loadCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE.tar…", Short: "Give images to the node", Args: cobra.MinimumNArgs(1),
		Long: "Gives images to the node, from tarballs as `image`, `docker save` and `crane pull` write them. There is no registry:\n" +
			"pods need imagePullPolicy IfNotPresent, which is the default unless the tag is latest.",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error { return c.load(ctx, args...) }),
	}
}

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image NAME OUT.tar BINARY[:/dest] [ARG…]", Short: "Make an image of one static binary", Args: cobra.MinimumNArgs(3),
		Long: "Writes an image with nothing in it but a static binary, /tmp and /etc/passwd, whose user is 65532. ARGs come before what the\n" +
			"pod's args add. Build the binary with CGO_ENABLED=0.",
		Example: "  image example.test/app:1 app.tar ./app:/app serve --verbose",
		RunE: func(_ *cobra.Command, args []string) error {
			spec, err := parseImageSpec(args[0], args[2], args[3:])
			if err != nil {
				return err
			}
			return writeImage(spec, args[1])
		},
	}
	cmd.Flags().SetInterspersed(false) // the image's arguments may look like flags
	return cmd
}

func forwardCommand(run runner) *cobra.Command {
	var background bool
	cmd := &cobra.Command{
		Use: "forward LOCALPORT NAMESPACE/SERVICE:PORT", Short: "Open a Service on this machine's loopback", Args: cobra.ExactArgs(2),
		Long: "Listens on 127.0.0.1:LOCALPORT and connects to the Service's cluster IP inside the namespace, so that a browser on this\n" +
			"machine reaches what runs there. PORT is a number or a name. Ends with Ctrl-C or with the cluster.",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error {
			f, err := parseForwarding(args[0], args[1])
			if err != nil {
				return err
			}
			if background {
				return c.forwardInBackground(ctx, f)
			}
			err = c.forward(ctx, f, func(address string) { fmt.Printf("http://%s -> %s\n", address, f.target()) })
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&background, "background", false, "return once it listens, and keep it running until down")
	return cmd
}

func pauseCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "pause DAEMON DURATION", Short: "Stop a daemon for a while, as if it could not be reached", Args: cobra.ExactArgs(2),
		Long: "Stops a process of the cluster, such as kube-apiserver or kubelet, and has it go on after DURATION or Ctrl-C. Who talks to it\n" +
			"meanwhile gets no answer.",
		Example: "  pause kube-apiserver 1m",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error {
			duration, err := time.ParseDuration(args[1])
			if err != nil || duration <= 0 {
				return fmt.Errorf("DURATION is %q; allowed is one such as 30s or 1m", args[1])
			}
			id, err := c.running(args[0])
			if err != nil {
				return fmt.Errorf("pausing %s of cluster %s: %w", args[0], c.name, err)
			}
			id.signal(syscall.SIGSTOP)
			defer id.signal(syscall.SIGCONT)
			select {
			case <-ctx.Done():
			case <-time.After(duration):
			}
			return nil
		}),
	}
}

func certManagerCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "cert-manager", Short: "Add cert-manager to the cluster", Args: cobra.NoArgs,
		Long: "Adds cert-manager " + certManagerVersion + " to the cluster that is up, and returns when it is Available: its CRDs, its controllers for\n" +
			"self-signed and CA issuers, and its cainjector. Builds it first if it is not there yet, in about 5 minutes.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error { return c.addCertManager(ctx, newProgress()) }),
	}
}

// replaceEnv sets variables, once each: of a variable given twice, some programs take the first.
func replaceEnv(env, set []string) []string {
	names := map[string]bool{}
	for _, variable := range set {
		name, _, _ := strings.Cut(variable, "=")
		names[name] = true
	}
	var kept []string
	for _, variable := range env {
		if name, _, _ := strings.Cut(variable, "="); !names[name] {
			kept = append(kept, variable)
		}
	}
	return append(kept, set...)
}
