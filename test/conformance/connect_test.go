// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// roleVariable has the runner start this program in the place of a client or a server.
const roleVariable, countsVariable = "CONFORMANCE_ROLE", "CONFORMANCE_COUNTS"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := between(role, os.Getenv(countsVariable), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "between:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if name := os.Getenv(caseVariable); name != "" {
		interopCase(name, os.Getenv(addrVariable))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// run is one run of the suite.
type run struct {
	mode    string   // which side is not the suite's reference
	command string   // that side
	config  string   // what of the suite concerns it
	failing []string // patterns of cases that fail without an interceptor too
	cases   int      // that there have to be at least
	seen    int      // of them that have to be counted by the interceptor; those by TLS go through as bytes
}

func runs() map[string]run {
	// The reference implementations take a message too many, or none, for another error than the specification does.
	servers := []string{
		"**/unary/multiple-requests", "**/unary/no-request", "**/server-stream/multiple-requests", "**/server-stream/no-request",
	}
	clients := []string{
		"**/unary/multiple-responses", "**/unary/ok-but-no-response", "**/client-stream/multiple-responses",
		"**/client-stream/ok-but-no-response",
	}
	return map[string]run{
		"connect server":  {"server", "referenceserver", "reference.yaml", nil, 1900, 900},
		"connect client":  {"client", "referenceclient", "reference.yaml", nil, 1900, 900},
		"grpc-go server":  {"server", "grpcserver", "grpc.yaml", servers, 300, 300},
		"grpc-go client":  {"client", "grpcclient", "grpc.yaml", clients, 300, 300},
		"grpc-web server": {"server", "grpcserver", "grpc-web.yaml", servers, 300, 300},
	}
}

// Every case passes through an interceptor. What is known to fail does so without one too: the runner reports a case that
// is known to fail and does not.
func TestConnect(t *testing.T) {
	tools := build(t)
	for name, r := range runs() {
		t.Run(name, func(t *testing.T) { r.suite(t, tools, true) })
		if len(r.failing) > 0 {
			t.Run(name+", directly", func(t *testing.T) { r.suite(t, tools, false) })
		}
	}
}

// build builds the suite's programs and returns their folder.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/",
		"connectrpc.com/conformance/cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("building the suite: %v\n%s", err, out)
	}
	return dir
}

func (r run) suite(t *testing.T, tools string, through bool) {
	t.Helper()
	counts := t.TempDir()
	args := []string{"-v", "--mode", r.mode, "--conf", filepath.Join("testdata", r.config)}
	for _, pattern := range r.failing {
		args = append(args, "--known-failing", pattern)
	}
	args = append(args, "--")
	if through {
		args = append(args, os.Args[0])
	}
	args = append(args, filepath.Join(tools, r.command))
	cmd := exec.CommandContext(t.Context(), filepath.Join(tools, "connectconformance"), args...)
	if through {
		cmd.Env = append(os.Environ(), roleVariable+"="+r.mode, countsVariable+"="+counts)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	total := regexp.MustCompile(`Total cases: (\d+)\n(\d+) passed, 0 failed`).FindSubmatch(out)
	if total == nil {
		t.Fatalf("the suite does not say how many cases there were:\n%s", out)
	}
	cases, _ := strconv.Atoi(string(total[1]))
	t.Logf("%s of %d cases passed", total[2], cases)
	if cases < r.cases {
		t.Errorf("only %d cases ran, want %d", cases, r.cases)
	}
	if seen := seen(t, counts); through && seen < r.seen {
		t.Errorf("only %d requests went through an interceptor, want %d", seen, r.seen)
	}
}

// seen is how many requests the interceptors of a run have counted.
func seen(t *testing.T, counts string) (all int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(counts, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			t.Fatal(err)
		}
		all += n
	}
	return all
}
