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

const rootHelp = `Boots a real Kubernetes ` + kubernetesVersion + ` in an isolated network namespace, with KEDA ` + kedaVersion + ` and
metrics-server ` + metricsServerVersion + `.

Each checkout has its own cluster, named after its path; --name or SCALE_TO_ZERO_CLUSTER selects another. Everything is
built once, from the Go module proxy (up to a quarter of an hour on two cores), and kept in the user's cache folder. It
needs Linux, root, Go and Debian's apt-get. Traefik ` + traefikVersion + ` is built and installed only on request.

Run it from the repository's root; relative paths start there:

  go run -C test/cluster . up
  go run -C test/cluster . traefik
  go run -C test/cluster . kubectl get pods -A
  go run -C test/cluster . down`

// A command gets its cluster when it runs, because --name is not parsed earlier.
type command func(ctx context.Context, c *cluster, args []string) error

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "cluster", Short: "A real Kubernetes with KEDA in one network namespace", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true, TraverseChildren: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	name := root.PersistentFlags().String("name", os.Getenv("SCALE_TO_ZERO_CLUSTER"), "name of the cluster; goes before the command")
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
		clientCommand(run, "kubectl", "kubectl, as cluster administrator"),
		clientCommand(run, "helm", "Helm "+helmVersion), clientCommand(run, "helm3", "Helm "+helm3Version+", built on first use"),
		execCommand(run), envCommand(run), loadCommand(run), imageCommand(), forwardCommand(run), pauseCommand(run), nodeCommand(run),
		certManagerCommand(run), networkPoliciesCommand(run), kwokCommand(run))
	return root
}

type runner func(command) func(*cobra.Command, []string) error

func upCommand(run runner) *cobra.Command {
	var without, large bool
	var nodes int
	cmd := &cobra.Command{
		Use: "up", Short: "Boot the cluster, or what is missing of it", Args: cobra.NoArgs,
		Long: "Boots the cluster, or what is missing of it, and returns when the nodes are Ready, DNS answers, and metrics-server\n" +
			"and KEDA are Available. Builds and installs what is missing first. A running cluster keeps its versions until `down`.\n\n" +
			"With --nodes, each node has a network namespace of its own, on one bridge, a zone of its own (zone1, zone2 …) and 254\n" +
			"addresses for pods. The control plane and DNS run in the first node's. See `node stop`.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			c.large = large
			return c.up(ctx, newProgress(), nodes, !without)
		}),
	}
	cmd.Flags().IntVar(&nodes, "nodes", 0, fmt.Sprintf("number of nodes, up to %d; without it, as many as the cluster has, or 1", maxNodes))
	cmd.Flags().BoolVar(&without, "without-keda", false, "Kubernetes only; `up` without this flag adds metrics-server and KEDA later")
	cmd.Flags().BoolVar(&large, "large", false, "for thousands of apps: etcd's data is in memory, the API server writes an audit log,\n"+
		"and autoscalers read metrics every 15 s, as they do by default")
	return cmd
}

func traefikCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "traefik", Short: "Add Traefik and Gateway API to the cluster", Args: cobra.NoArgs,
		Long: "Adds Traefik " + traefikVersion + " to a running cluster, and returns when it is Available. It serves Ingresses and Gateways\n" +
			"of the class traefik behind the Service traefik/traefik: web is 80, websecure is 443 and its API is 8080. Gateway API's standard\n" +
			"channel is included. The first time, Traefik is built from the Go module proxy, which takes about 5 minutes on two cores.\n" +
			"What the proxy does not have is left out: DNS providers for ACME; the middlewares basicAuth and digestAuth refuse everybody.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			return c.addTraefik(ctx, newProgress())
		}),
	}
}

func downCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the cluster and everything in it", Args: cobra.NoArgs,
		Long: "Removes the cluster with its processes, mounts, cgroups, files and network namespace, whatever state it is in.\n" +
			"Build results stay in the cache.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			return c.down(ctx, newProgress())
		}),
	}
}

func statusCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what is running; fails if the cluster is not usable", Args: cobra.NoArgs,
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
	cmd.Flags().BoolVar(&without, "without-keda", false, "Kubernetes only")
	return cmd
}

func assetsCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "assets", Short: "Print a folder with etcd, kube-apiserver, kubectl, helm and helm3, for KUBEBUILDER_ASSETS", Args: cobra.NoArgs,
		Long: "Prints the folder that envtest needs in KUBEBUILDER_ASSETS. Builds Kubernetes and Helm if they are missing; needs neither\n" +
			"root nor a cluster.",
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

// clientCommand passes all arguments on, --help included; `help kubectl` shows our own help.
func clientCommand(run runner, name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name + " …", Short: short, DisableFlagParsing: true,
		Long: short + ". Runs inside the namespace, with the arguments that follow.",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error { return c.runClient(ctx, name, args) }),
	}
}

func execCommand(run runner) *cobra.Command {
	name := "node1"
	cmd := &cobra.Command{
		Use: "exec CMD…", Short: "Run a command inside the cluster's network namespace", Args: cobra.MinimumNArgs(1),
		Long: "Runs a command inside the namespace, in the repository's root, with KUBECONFIG set and kubectl, helm and helm3 in PATH.\n" +
			"It can reach Services at their addresses. `go run` turns every exit code other than 0 into 1. With --node, the command runs\n" +
			"on another node than the first.",
		Example: "  exec --node node2 wget -qO- http://198.19.128.2:30080",
		RunE: run(func(_ context.Context, c *cluster, args []string) error {
			if err := c.mustBeUp(); err != nil {
				return err
			}
			n, err := c.findNode(name)
			if err != nil {
				return err
			}
			if err := os.Setenv("PATH", c.path("bin")+":"+os.Getenv("PATH")); err != nil {
				return err
			}
			binary, err := exec.LookPath(args[0])
			if err != nil {
				return err
			}
			env := replaceEnv(os.Environ(), c.environment())
			return n.namespace().exec(binary, args, replaceEnv(env, []string{"KUBECONFIG=" + n.pki("admin", ".kubeconfig")}))
		}),
	}
	cmd.Flags().StringVar(&name, "node", name, "the node")
	cmd.Flags().SetInterspersed(false) // the command's flags are its own
	return cmd
}

func envCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print shell assignments for scripts", Args: cobra.NoArgs,
		Long: "Prints shell assignments: eval \"$(go run -C test/cluster . env)\" puts kubectl, helm and helm3 into PATH; they enter the\n" +
			"namespace themselves. For other programs, use nsenter --net=$SCALE_TO_ZERO_NETNS CMD…",
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
		Use: "load IMAGE.tar…", Short: "Load images into the nodes", Args: cobra.MinimumNArgs(1),
		Long: "Loads images into every node, from tarballs as `image`, `docker save` and `crane pull` write them. There is no registry:\n" +
			"pods need imagePullPolicy IfNotPresent, which is the default unless the tag is latest.",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error { return c.load(ctx, args...) }),
	}
}

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image NAME OUT.tar BINARY[:/dest] [ARG…]", Short: "Build an image of one static binary", Args: cobra.MinimumNArgs(3),
		Long: "Writes an image that contains only a static binary, /tmp and /etc/passwd, and runs as user 65532. ARGs come before the pod's\n" +
			"args. Build the binary with CGO_ENABLED=0.",
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
			"machine can reach it. PORT is a number or a name. Ends with Ctrl-C or with the cluster.",
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
	cmd.Flags().BoolVar(&background, "background", false, "return once it listens, and keep it running until `down`")
	return cmd
}

func pauseCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "pause DAEMON DURATION", Short: "Stop a daemon for a while, as if it were unreachable", Args: cobra.ExactArgs(2),
		Long: "Stops one of the cluster's processes, such as kube-apiserver or kubelet, and continues it after DURATION or Ctrl-C. Until\n" +
			"then its clients get no answer. Those of other nodes than the first have names such as kubelet-node2; `status` shows them.",
		Example: "  pause kube-apiserver 1m",
		RunE: run(func(ctx context.Context, c *cluster, args []string) error {
			duration, err := time.ParseDuration(args[1])
			if err != nil || duration <= 0 {
				return fmt.Errorf("DURATION is %q; allowed is a duration such as 30s or 1m", args[1])
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

func nodeCommand(run runner) *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Stop a node as a power failure does, or start it again", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "stop NODE", Short: "Stop a node as a power failure does", Args: cobra.ExactArgs(1),
		Long: "Stops a node as a power failure does: it is unplugged first, so that nobody hears of it any more, not even that its\n" +
			"connections end; then its kubelet, containerd, kube-proxy and all processes of its pods are killed, and its network namespace,\n" +
			"cgroups and mounts are removed. Its disk stays. Not for node1, which has the control plane. Kubernetes notices after 50 s.",
		Example: "  node stop node2",
		RunE:    run(func(ctx context.Context, c *cluster, args []string) error { return c.stopNode(ctx, args[0]) }),
	}, &cobra.Command{
		Use: "start NODE", Short: "Start a node again, and wait until it is Ready", Args: cobra.ExactArgs(1),
		Long: "Starts a node that was stopped, and returns when it is Ready. Pods that it had start once more, unless they were deleted\n" +
			"meanwhile.",
		Example: "  node start node2",
		RunE:    run(func(ctx context.Context, c *cluster, args []string) error { return c.startNode(ctx, args[0]) }),
	})
	return cmd
}

func certManagerCommand(run runner) *cobra.Command {
	return &cobra.Command{
		Use: "cert-manager", Short: "Add cert-manager to the cluster", Args: cobra.NoArgs,
		Long: "Adds cert-manager " + certManagerVersion + " to a running cluster, and returns when it is Available: its CRDs, its controllers\n" +
			"for self-signed and CA issuers, and its cainjector. The first time it is built, which takes about 5 minutes.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error { return c.addCertManager(ctx, newProgress()) }),
	}
}

func networkPoliciesCommand(run runner) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "network-policies", Short: "Enforce NetworkPolicies in the cluster", Args: cobra.NoArgs,
		Long: "Enforces NetworkPolicies in a running cluster until `down` or --off, by kube-network-policies " + netpolVersion +
			": for TCP connections that\nbegin later, except those of the node itself. The first time it is built, which takes about 3 minutes.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error {
			if off {
				return c.passAll(ctx, newProgress())
			}
			return c.enforceNetworkPolicies(ctx, newProgress())
		}),
	}
	cmd.Flags().BoolVar(&off, "off", false, "stop enforcing them")
	return cmd
}

// replaceEnv sets each variable once: some programs use the first of two values.
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
