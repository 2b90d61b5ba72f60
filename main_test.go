// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
)

func TestParsePortRange(t *testing.T) {
	for in, want := range map[string][2]int32{
		"10000-29999": {10000, 29999}, "2000-2000": {2000, 2000},
		"": {}, "10000": {}, "2-1": {}, "20-30": {}, "10000-65536": {}, "-1-5": {}, "a-b": {},
	} {
		low, high, err := parsePortRange(in)
		if ok := want[1] != 0; ok != (err == nil) || low != want[0] || high != want[1] {
			t.Errorf("%q: got %d, %d, %v; want %v", in, low, high, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), `"`+in+`"`) {
			t.Errorf("%q: %v does not name the value", in, err)
		}
	}
}

func TestLimitFlags(t *testing.T) {
	d := interceptor.DefaultLimits()
	for name, tc := range map[string]struct {
		args   []string
		env    [2]string
		limits interceptor.Limits
		hops   int
		want   string // the flag that cannot be used, its value and what can
	}{
		"defaults": {limits: d, hops: interceptor.AllHops},
		"all": {
			args: []string{
				"--max-connections-per-route=1", "--max-header-bytes=1048576", "--read-header-timeout=1s", "--idle-timeout=24h",
				"--write-timeout=90s", "--trusted-hops=2",
			},
			limits: interceptor.Limits{
				MaxConnections: 1, MaxHeaderBytes: 1 << 20, ReadHeaderTimeout: time.Second, IdleTimeout: 24 * time.Hour, WriteTimeout: 90 * time.Second,
			},
			hops: 2,
		},
		"the environment": {env: [2]string{"SCALE_TO_ZERO_TRUSTED_HOPS", "0"}, limits: d, hops: 0},
		"no connection": {
			args: []string{"--max-connections-per-route=0"},
			want: "--max-connections-per-route is 0; allowed is a whole number from 1 to 1000000",
		},
		"no header": {
			args: []string{"--max-header-bytes=1023"},
			want: "--max-header-bytes is 1023; allowed is a whole number from 1024 to 1048576",
		},
		"a large header": {args: []string{"--max-header-bytes=1048577"}, want: "--max-header-bytes is 1048577;"},
		"no time to read": {
			args: []string{"--read-header-timeout=1ms"},
			want: "--read-header-timeout is 1ms; allowed is a duration from 1s to 1h0m0s",
		},
		"a negative time": {args: []string{"--idle-timeout=-1m"}, want: "--idle-timeout is -1m0s; allowed is a duration from 1s to 24h0m0s"},
		"no end":          {args: []string{"--write-timeout=0"}, want: "--write-timeout is 0s; allowed is a duration from 1s to 24h0m0s"},
		"fewer than none": {args: []string{"--trusted-hops=-2"}, want: "--trusted-hops is -2; allowed is a whole number from -1 to 100"},
		"two at a time": {
			args: []string{"--trusted-hops=101", "--write-timeout=0"},
			want: "--write-timeout is 0s; allowed is a duration from 1s to 24h0m0s, such as 30s or 5m\n--trusted-hops is 101",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.env[0] != "" {
				t.Setenv(tc.env[0], tc.env[1])
			}
			var l limitFlags
			flags := pflag.NewFlagSet("interceptor", pflag.ContinueOnError)
			l.add(flags)
			if err := errors.Join(flags.Parse(tc.args), fromEnvironment(flags)); err != nil {
				t.Fatal(err)
			}
			switch err := l.check(); {
			case tc.want == "" && (err != nil || l.Limits != tc.limits || l.trustedHops != tc.hops):
				t.Errorf("got %+v, %d, %v", l.Limits, l.trustedHops, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestBadFlags says what is wrong before anything is connected to.
func TestBadFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		env  [2]string
		want string
	}{
		"a flag": {args: []string{"controller", "--namespace=x", "--log-level=loud"}, want: `"loud"; allowed are info and debug`},
		"the environment": {
			args: []string{"controller", "--namespace=x"}, env: [2]string{"SCALE_TO_ZERO_LOG_FORMAT", "xml"},
			want: `"xml"; allowed are json and text`,
		},
		"not even a number": {
			args: []string{"controller"}, env: [2]string{"SCALE_TO_ZERO_WEBHOOK_PORT", "x"},
			want: "SCALE_TO_ZERO_WEBHOOK_PORT",
		},
		"the flag goes first": {
			args: []string{"restore", "--namespace=x", "--log-level=quiet"}, env: [2]string{"SCALE_TO_ZERO_LOG_LEVEL", "info"}, want: `"quiet"`,
		},
		"a mode": {
			args: []string{"controller", "--namespace=x", "--certs-mode=certmanager"},
			want: `--certs-mode is "certmanager"; allowed are self and cert-manager`,
		},
		"no namespace": {args: []string{"restore"}, env: [2]string{"POD_NAMESPACE", ""}, want: "--namespace is empty"},
		"yes or no": {
			args: []string{"interceptor"}, env: [2]string{"SCALE_TO_ZERO_HELD_HEADER", "perhaps"},
			want: "SCALE_TO_ZERO_HELD_HEADER",
		},
		"a number": {
			args: []string{"interceptor", "--max-connections-per-route=0"},
			want: `--max-connections-per-route is 0; allowed is a whole number from 1 to 1000000`,
		},
		"a duration": {
			args: []string{"interceptor"}, env: [2]string{"SCALE_TO_ZERO_IDLE_TIMEOUT", "0"},
			want: `--idle-timeout is 0s; allowed is a duration from 1s to 24h0m0s`,
		},
		"metrics without a certificate": {
			args: []string{"interceptor", "--namespace=x", "--metrics-authentication", "--mutual-tls=false"},
			want: "--metrics-authentication is set, and --mutual-tls is not",
		},
		"metrics without a port": {
			args: []string{"interceptor", "--namespace=x", "--metrics-authentication", "--metrics-address=8443"},
			want: `"8443"`,
		},
		"no pod": {args: []string{"interceptor", "--namespace=x"}, want: "--pod-name or --pod-ip is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.env[0] != "" {
				t.Setenv(tc.env[0], tc.env[1])
			}
			c := command()
			c.SetArgs(tc.args)
			c.SetOut(io.Discard)
			c.SetErr(io.Discard)
			if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %s", err, tc.want)
			}
		})
	}
}
