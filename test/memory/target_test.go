// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// The attacker's apps are in one namespace, from firstPort on: half of them asleep, and one that answers. The other app is alone in its
// namespace.
const (
	otherPort, awakePort, tcpPort, firstPort = 28000, 28001, 28002, 28003
	sleepers                                 = 8
	grpcAddress, healthAddress               = "127.0.0.1:28100", "127.0.0.1:28101"
)

// target is an interceptor under attack.
type target struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	cgroup string
	ended  chan error
}

// binary builds the target, without the race detector: it would take the memory itself.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "target")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./target").CombinedOutput(); err != nil {
		t.Fatalf("building the target: %v\n%s", err, out)
	}
	return path
}

func start(t *testing.T, path string) *target {
	t.Helper()
	x := &target{t: t, cgroup: cgroup(t), ended: make(chan error, 1)}
	run := `exec "$0" "$@"`
	if x.cgroup != "" {
		run = "echo $$ > " + filepath.Join(x.cgroup, "cgroup.procs") + " && " + run
	}
	x.cmd = exec.CommandContext(context.Background(), "sh", "-c", run, path, "-grpc", grpcAddress, "-health", healthAddress,
		"-memory", fmt.Sprint(limit))
	x.cmd.Stderr = os.Stderr
	var err error
	if x.stdin, err = x.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := x.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.stop(t) })
	pod := newPod(t)
	x.set(service("other", "web", otherPort, "", pod))
	x.set(service("attacker", "awake", awakePort, "", pod))
	x.set(service("attacker", "bytes", tcpPort, api.ProtocolTCP, silent(t)))
	for i := range sleepers {
		x.set(service("attacker", fmt.Sprintf("asleep-%d", i), firstPort+int32(i), ""))
	}
	_, _ = io.WriteString(x.stdin, "\n")
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the target has not started: %q, %v", line, err)
	}
	go func() { x.ended <- x.cmd.Wait() }()
	return x
}

func (x *target) set(s route.Service) {
	x.t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := x.stdin.Write(append(b, '\n')); err != nil {
		x.t.Fatal(err)
	}
}

// alive fails the test if the target has died.
func (x *target) alive() bool {
	select {
	case err := <-x.ended:
		x.t.Errorf("the interceptor has died: %v", err)
		x.ended <- err
		return false
	default:
		return true
	}
}

func (x *target) stop(t *testing.T) {
	t.Helper()
	_ = x.stdin.Close()
	select {
	case <-x.ended:
	case <-time.After(5 * time.Second):
		_ = x.cmd.Process.Kill()
		<-x.ended
	}
	if x.cgroup != "" {
		if err := os.Remove(x.cgroup); err != nil {
			t.Log(err)
		}
	}
}

func service(namespace, name string, listen int32, protocol string, pods ...string) route.Service {
	return route.Service{
		Namespace: namespace, Name: name, Published: true, SleepID: "s1", Pods: len(pods), Endpoints: map[string][]string{"http": pods},
		Routes: api.Routes{
			Service: name, ServiceUID: "u1", Direct: name + "-direct",
			Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: "u2"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: listen, Protocol: protocol}},
			Cooldown: api.Duration(time.Hour), HoldTimeout: api.Duration(time.Minute),
		},
	}
}

// newPod answers at once, with as many bytes as the query says, or never if the path is /never. It reads no body.
func newPod(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/never" {
			<-r.Context().Done()
			return
		}
		size := 100
		_, _ = fmt.Sscan(r.URL.RawQuery, &size)
		piece := make([]byte, min(size, 64<<10))
		for ; size > 0; size -= len(piece) {
			if _, err := w.Write(piece[:min(size, len(piece))]); err != nil {
				return
			}
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 5000}
	s.Start()
	t.Cleanup(s.CloseClientConnections)
	return strings.TrimPrefix(s.URL, "http://")
}

// silent accepts connections and neither reads nor writes.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	return l.Addr().String()
}

// visitor asks the other app all the time, and measures how long the answers take.
type visitor struct {
	times  []time.Duration
	failed []error
	stop   chan struct{}
	done   sync.WaitGroup
}

func visit() *visitor {
	v := &visitor{stop: make(chan struct{})}
	v.done.Go(func() {
		kept := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
		anew := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-v.stop:
				return
			case <-tick.C:
			}
			client := kept
			if n%4 == 0 {
				client = anew
			}
			began := time.Now()
			if err := get(client, fmt.Sprintf("http://127.0.0.1:%d/", otherPort)); err != nil {
				v.failed = append(v.failed, err)
				continue
			}
			v.times = append(v.times, time.Since(began))
		}
	})
	return v
}

func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// end returns the median and the 99th percentile.
func (v *visitor) end() (median, p99 time.Duration) {
	close(v.stop)
	v.done.Wait()
	if len(v.times) == 0 {
		return 0, 0
	}
	slices.Sort(v.times)
	return v.times[len(v.times)/2], v.times[len(v.times)*99/100]
}

// raiseFiles lets this process, and the target, open as many files as the attacks need.
func raiseFiles(t *testing.T) {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Cur < 20_000 {
		t.Skipf("the attacks need 20,000 open files; allowed are %d", files.Cur)
	}
}
