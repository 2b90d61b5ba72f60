// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// defaultMemory is how much memory a process may use that nothing limits: the chart's limit for interceptors.
	defaultMemory = 512 << 20
	// minMemory is the least that an interceptor can do with.
	minMemory = 64 << 20
	// heapShare is how much of the memory Go may use before it collects garbage whatever that costs. The kernel's part, for sockets, comes
	// on top of that.
	heapShare = 0.8
)

// memoryFlag is how much memory the process may use.
type memoryFlag struct{ text string }

func (m *memoryFlag) add(f *pflag.FlagSet) {
	f.StringVar(&m.text, "memory-limit", "",
		"how much memory this process may use, such as 512Mi (default: the container's limit, or else $GOMEMLIMIT, or else 512Mi)")
}

// apply returns how many bytes the process may use, and has Go collect garbage in time.
func (m *memoryFlag) apply(log logr.Logger) (int64, error) {
	limit, source, err := m.limit(memlimit.FromCgroup, debug.SetMemoryLimit(-1))
	if err != nil {
		return 0, err
	}
	if source != "GOMEMLIMIT" {
		debug.SetMemoryLimit(int64(heapShare * float64(limit)))
	}
	log.Info("Memory", "limit", limit, "from", source)
	return limit, nil
}

// limit returns the limit and where it comes from. goLimit is Go's own.
func (m *memoryFlag) limit(cgroup func() (uint64, error), goLimit int64) (limit int64, source string, err error) {
	if m.text != "" {
		quantity, err := resource.ParseQuantity(m.text)
		if err != nil || quantity.Value() < minMemory {
			return 0, "", fmt.Errorf("--memory-limit is %q; allowed is a quantity of at least 64Mi, such as 512Mi", m.text)
		}
		return quantity.Value(), "--memory-limit", nil
	}
	if n, err := cgroup(); err == nil && n > 0 && n < math.MaxInt64 { // an error means that there is no limit, or that nobody can say
		return max(minMemory, int64(n)), "cgroup", nil
	}
	if goLimit != math.MaxInt64 {
		return max(minMemory, goLimit), "GOMEMLIMIT", nil
	}
	return defaultMemory, "default", nil
}
