// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWrap(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"", []string{""}},
		{"one two", []string{"one two"}},
		{"one  two", []string{"one  two"}}, // it fits, and is unchanged
		{"one two three", []string{"one two", "three"}},
		{"one twotwotwotwo three", []string{"one", "twotwotwotwo", "three"}},
		{"äöü äöü äöü", []string{"äöü äöü", "äöü"}},
	} {
		if got := wrap(tc.text, 8); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.text, got, tc.want)
		}
	}
}

func TestWrapCommand(t *testing.T) {
	args := []string{"helm", "upgrade", "airflow", "-n", "airflow", "--reuse-values", "--set", "a=b"}
	want := []string{`helm upgrade airflow \`, `-n airflow \`, `--reuse-values \`, "--set a=b"}
	if got := wrapCommand(args, 27); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := wrapCommand(args, 80); len(got) != 1 || got[0] != strings.Join(args, " ") {
		t.Errorf("what fits was wrapped: %q", got)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	n := &narrator{out: &out}
	n.table(
		row{cells: []string{"LAST SEEN", "REASON", "MESSAGE"}},
		row{mark: "+", cells: []string{"3s", "Asleep", strings.Repeat("word ", 14)}},
	)
	want := `    LAST SEEN  REASON  MESSAGE
  + 3s         Asleep  word word word word word word word word word word word
  +                    word word word
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestColour(t *testing.T) {
	var out bytes.Buffer
	(&narrator{out: &out, colour: true}).table(row{mark: "+", cells: []string{"a", "b"}}, row{cells: []string{"c", "d"}})
	if want := "\033[32m  + a  b\033[0m\n    c  d\n"; out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
	for _, file := range []string{os.DevNull, t.TempDir() + "/log"} {
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if n := newNarrator(f, func(string) string { return "" }); n.colour || n.terminal {
			t.Errorf("%s is taken for a terminal", file)
		}
		f.Close()
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Microsecond: "1 ms", 7 * time.Millisecond: "7 ms", 120 * time.Millisecond: "0.1 s", 3716 * time.Millisecond: "3.7 s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		n := &narrator{out: &out, terminal: true}
		c := condition{step: "sleep", want: "0 replicas", within: 10 * time.Second}
		looks := 0
		c.holds = func(context.Context) (bool, string, error) { looks++; return looks == 11, "", nil }
		if took, err := n.await(t.Context(), c); err != nil || took != 10*pollInterval {
			t.Errorf("took %s, %v", took, err)
		}
		if want := "waiting: sleep, 2 s"; !strings.Contains(out.String(), want) || !strings.HasSuffix(out.String(), "\r\033[K") {
			t.Errorf("%q does not show %q, or leaves something behind", &out, want)
		}

		c.holds = func(context.Context) (bool, string, error) { return false, "1 replica", nil }
		_, err := n.await(t.Context(), c)
		var f *failure
		if !errors.As(err, &f) || f.got != "1 replica" || f.want != "0 replicas, within 10s" || f.step != "sleep" {
			t.Errorf("what did not happen is told as %v", err)
		}

		broken := errors.New("broken")
		c.holds = func(context.Context) (bool, string, error) { return false, "", broken }
		if _, err := n.await(t.Context(), c); !errors.Is(err, broken) {
			t.Errorf("%v, want %v", err, broken)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.holds = func(context.Context) (bool, string, error) { return false, "", nil }
		if took, err := n.await(ctx, c); !errors.Is(err, context.DeadlineExceeded) || took > time.Second {
			t.Errorf("told to stop: %v after %s", err, took)
		}
	})
}
