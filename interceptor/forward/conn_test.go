// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// A head that arrives bit by bit is parsed when it is complete, and earlier only so rarely that it does not matter.
func TestMayBeComplete(t *testing.T) {
	for name, tc := range map[string]struct {
		b            string
		parsed, seen int
		want         bool
	}{
		"the first bytes":           {"G", 0, 0, true},
		"a little more":             {"GET / HTT", 5, 5, false},
		"twice as much":             {"GET / HTTP", 5, 5, true},
		"a line":                    {"GET / HTTP/1.1\r\n", 10, 10, false},
		"another line":              {"GET / HTTP/1.1\r\nHost: h\r\n", 16, 16, false},
		"an empty line":             {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 16, 25, true},
		"its LF alone":              {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 26, 26, true},
		"an empty line of LF":       {"GET / HTTP/1.1\nHost: h\n\n", 16, 23, true},
		"an empty line long before": {"GET / HTTP/1.1\r\n\r\nwhat comes behind", 24, 30, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mayBeComplete([]byte(tc.b), tc.parsed, tc.seen); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
	head := append([]byte("GET / HTTP/1.1\r\n"), make([]byte, 0, 64<<10)...)
	parses, parsed := 0, 0
	for seen := 0; len(head) < 64<<10; seen = len(head) {
		head = append(head, "a:\r\n"...)
		if mayBeComplete(head, parsed, seen) {
			parses, parsed = parses+1, len(head)
		}
	}
	if parses > 20 {
		t.Errorf("a head of 64 KiB that came line by line was parsed %d times", parses)
	}
}

func TestFieldSize(t *testing.T) {
	if got := reflect.TypeFor[http1.Field]().Size(); got != fieldSize {
		t.Errorf("it is %d", got)
	}
}

// The requests that wait for a pod together take no more memory than they may.
func TestHeldBytes(t *testing.T) {
	r := newRig(t, Options{})
	r.route.Memory.Force(rigMemory/2 - (64 << 10))
	defer r.route.Memory.Give(rigMemory/2 - (64 << 10))
	const exhausted = "use more memory" // the head itself may be too much already
	large := strings.Replace(get, "\r\n\r\n", "\r\nConnection: close\r\nX: "+strings.Repeat("x", 40<<10)+"\r\n\r\n", 1)
	c := r.dial()
	c.send("%s", large)
	if got := c.ends(); !strings.Contains(got, "too many requests wait") && !strings.Contains(got, exhausted) {
		t.Errorf("got %q", got)
	}
	c = r.dial()
	c.send("%s", strings.Replace(get, "\r\n\r\n", "\r\nConnection: close\r\n"+strings.Repeat("b:\r\n", 2500)+"\r\n", 1))
	if got := c.ends(); !strings.Contains(got, "too many requests wait") && !strings.Contains(got, exhausted) {
		t.Errorf("with many fields: got %q", got)
	}
	small := r.dial()
	small.send(get)
	for r.route.Held() != 1 {
		runtime.Gosched()
	}
}
