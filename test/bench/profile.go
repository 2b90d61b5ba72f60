// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
)

// profiles runs each load that figures need once more on the interceptor and writes its profiles. The results of these
// runs are not used, since profiling takes time.
func (l *lab) profiles(ctx context.Context, figures []figure) error {
	if err := os.MkdirAll(l.options.profile, 0o755); err != nil {
		return fmt.Errorf("making the folder for the profiles: %w", err)
	}
	for _, load := range allLoads() {
		// Each idle run has an interceptor of its own, whose work is not worth a profile.
		if !slices.Contains(proxiesOf(figures, load.name), ours) || load.name == "idle" {
			continue
		}
		progress("profiling %s", load.name)
		s, err := l.server(ctx, ours)
		if err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		for _, kind := range []string{"cpu", "allocs"} {
			group.Go(func() error {
				url := fmt.Sprintf("http://%s/%s?seconds=%d", s.profile, kind, int(l.options.duration.Seconds()))
				return fetch(ctx, url, filepath.Join(l.options.profile, load.name+"."+kind+".pprof"))
			})
		}
		// Not in the group: the thread that waits for us starts tools.
		_, err = load.run(ctx, l, s, l.options.duration)
		if fetched := group.Wait(); err == nil {
			err = fetched
		}
		if err != nil {
			return fmt.Errorf("profiling %s: %w", load.name, err)
		}
	}
	return nil
}

func fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", url, resp.Status, b)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
