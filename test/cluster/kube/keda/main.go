// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command keda is KEDA's three programs in one. It runs the one it is called as.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kedacore/keda/v2/cmd/adapter"
	"github.com/kedacore/keda/v2/cmd/operator"
	"github.com/kedacore/keda/v2/cmd/webhooks"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "keda":
		operator.Main()
	case "keda-adapter":
		adapter.Main()
	case "keda-admission-webhooks":
		webhooks.Main()
	default:
		fmt.Fprintf(os.Stderr, "called as %s: call it keda, keda-adapter or keda-admission-webhooks\n", name)
		os.Exit(2)
	}
}
