package main

import (
	"io"
	"strings"
	"testing"
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

// TestBadFlags says what is wrong before anything is connected to.
func TestBadFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		env  [2]string
		want string
	}{
		"a flag":            {args: []string{"controller", "--namespace=x", "--log-level=loud"}, want: `"loud"; allowed are info and debug`},
		"the environment":   {args: []string{"controller", "--namespace=x"}, env: [2]string{"SCALE_TO_ZERO_LOG_FORMAT", "xml"}, want: `"xml"; allowed are json and text`},
		"not even a number": {args: []string{"controller"}, env: [2]string{"SCALE_TO_ZERO_WEBHOOK_PORT", "x"}, want: "SCALE_TO_ZERO_WEBHOOK_PORT"},
		"the flag goes first": {
			args: []string{"restore", "--namespace=x", "--log-level=quiet"}, env: [2]string{"SCALE_TO_ZERO_LOG_LEVEL", "info"}, want: `"quiet"`,
		},
		"a mode":       {args: []string{"controller", "--namespace=x", "--certs-mode=certmanager"}, want: `--certs-mode is "certmanager"; allowed are self and cert-manager`},
		"no namespace": {args: []string{"restore"}, env: [2]string{"POD_NAMESPACE", ""}, want: "--namespace is empty"},
		"no pod":       {args: []string{"interceptor", "--namespace=x"}, want: "--pod-name or --pod-ip is empty"},
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
