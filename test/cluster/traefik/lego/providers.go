// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package dns is what Traefik is built with in place of the package providers/dns of go-acme/lego, which knows some two
// hundred companies' interfaces: the module proxy does not have all of their libraries. This one knows none, so Traefik
// can answer every ACME challenge but those in DNS.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName fails, whatever the name.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("making the ACME challenge's DNS provider %q: there are none in this build", name)
}
