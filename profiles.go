// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
)

// addProfiles adds the flag of the address for profiles. It is for those who work on scale-to-zero: the help does not show it.
func (c *common) addProfiles(f *pflag.FlagSet) {
	f.StringVar(&c.profileAddress, "profile-address", "", "address of /debug/pprof")
	if err := f.MarkHidden("profile-address"); err != nil {
		panic(err) // there is no such flag, but it was just added
	}
}

// serveProfiles answers Go's profiler until the process ends, if it has an address.
func (c *common) serveProfiles(log logr.Logger) error {
	if c.profileAddress == "" {
		return nil
	}
	listener, err := net.Listen("tcp", c.profileAddress) //nolint:noctx // it listens at once or not at all
	if err != nil {
		return fmt.Errorf("--profile-address: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Info("Serving profiles", "address", listener.Addr().String())
	go func() { _ = server.Serve(listener) }() // ends with the process
	return nil
}
