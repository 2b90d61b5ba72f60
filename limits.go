// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
)

// limitFlags bound what clients may use of an interceptor, and say how many proxies in front of it are trusted.
type limitFlags struct {
	interceptor.Limits

	maxWakes, maxWakesPerSource, trustedHops int
}

func (l *limitFlags) add(f *pflag.FlagSet) {
	d := interceptor.DefaultLimits()
	f.IntVar(&l.MaxConnections, "max-connections-per-route", d.MaxConnections,
		"how many connections to one port of one Service may be open at this interceptor")
	f.IntVar(&l.MaxHeaderBytes, "max-header-bytes", d.MaxHeaderBytes,
		"maximum size of a request's line and header together; a longer one gets a 431")
	f.DurationVar(&l.ReadHeaderTimeout, "read-header-timeout", d.ReadHeaderTimeout, "how long a client may take to send a request's header")
	f.DurationVar(&l.IdleTimeout, "idle-timeout", d.IdleTimeout,
		"how long a client's connection stays open without a request; keep it longer than the proxies in front keep theirs")
	f.DurationVar(&l.WriteTimeout, "write-timeout", d.WriteTimeout,
		"close the connection of a client that has not read any of its response for this long")
	f.IntVar(&l.maxWakes, "max-wakes", interceptor.DefaultMaxWakes, "how many apps may wake at a time; the rest wait for their turn")
	f.IntVar(&l.maxWakesPerSource, "max-wakes-per-source", interceptor.DefaultMaxWakesPerSource,
		"how many apps the requests of one client, or of one proxy, may wake at a time")
	f.IntVar(&l.trustedHops, "trusted-hops", interceptor.AllHops,
		"entries at the end of X-Forwarded-For to trust, one for each proxy in front; 0 drops incoming X-Forwarded headers and their like, "+
			"-1 trusts all")
}

// check names the flags whose values are not allowed, and what is.
func (l *limitFlags) check() error {
	return errors.Join(
		between("max-connections-per-route", l.MaxConnections, 1, 1_000_000),
		between("max-header-bytes", l.MaxHeaderBytes, 1<<10, 1<<20),
		within("read-header-timeout", l.ReadHeaderTimeout, time.Second, time.Hour),
		within("idle-timeout", l.IdleTimeout, time.Second, 24*time.Hour),
		within("write-timeout", l.WriteTimeout, time.Second, 24*time.Hour),
		between("max-wakes", l.maxWakes, 1, 100_000),
		between("max-wakes-per-source", l.maxWakesPerSource, 1, 100_000),
		between("trusted-hops", l.trustedHops, interceptor.AllHops, 100),
	)
}

func between(flag string, value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("--%s is %d; allowed is a whole number from %d to %d", flag, value, low, high)
	}
	return nil
}

func within(flag string, value, low, high time.Duration) error {
	if value < low || value > high {
		return fmt.Errorf("--%s is %s; allowed is a duration from %s to %s, such as 30s or 5m", flag, value, low, high)
	}
	return nil
}
