// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	networkingv1 "k8s.io/api/networking/v1"
)

// policyFlags say what the controllers do about NetworkPolicies.
type policyFlags struct {
	follow, create bool
	own            string
}

func (p *policyFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&p.follow, "follow-network-policies", false,
		"bind the interceptors' ports by the NetworkPolicies of the apps' namespaces; this takes the rights to read all NetworkPolicies and to "+
			"write those of --namespace")
	flags.BoolVar(&p.create, "create-network-policies", false,
		"let the interceptors in by a NetworkPolicy where others isolate an app's pods; this takes the rights to read and write all "+
			"NetworkPolicies")
	flags.StringVar(&p.own, "interceptor-ingress", "",
		"ingress rules of a NetworkPolicy, as JSON, for the interceptors' ports outside --port-range (default: these ports stay open)")
}

// ingress reads the rules for the interceptors' own ports.
func (p *policyFlags) ingress() ([]networkingv1.NetworkPolicyIngressRule, error) {
	if p.own == "" {
		return nil, nil
	}
	if !p.follow {
		return nil, errors.New("--interceptor-ingress needs --follow-network-policies")
	}
	var rules []networkingv1.NetworkPolicyIngressRule
	decoder := json.NewDecoder(strings.NewReader(p.own))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&rules); err != nil {
		return nil, fmt.Errorf("--interceptor-ingress is not a list of a NetworkPolicy's ingress rules: %w", err)
	}
	if len(rules) == 0 {
		return nil, errors.New("--interceptor-ingress has no rule, so nobody could connect; leave it out to keep the ports open")
	}
	return rules, nil
}
