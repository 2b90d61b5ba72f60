// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package rights

import "strings"

// excuse is for rights that a run does not use. An empty field is any; a verb is one of several, separated by spaces.
type excuse struct {
	account, group, resource, verbs string
	why                             string
}

func (e excuse) covers(r right) bool {
	return e.account == r.account && e.group == r.group && e.resource == r.resource && (" "+e.verbs+" " != "  ") &&
		strings.Contains(" "+e.verbs+" ", " "+r.verb+" ")
}

// unused are the rights that no end-to-end test needs, with what does.
func unused() []excuse {
	const controller, interceptor, restore = release + "-controller", release + "-interceptor", release + "-restore"
	return []excuse{
		{
			controller, "discovery.k8s.io", "endpointslices/restricted", "create",
			"only OpenShift's admission asks for it, of no request of its own",
		},
	}
}

// expectation is for refusals that tests provoke, and for those that cannot be avoided.
type expectation struct {
	resource, message string // part of the message
	why               string
}

func (e expectation) covers(f refusal) bool {
	return (e.resource == "" || e.resource == f.resource) && strings.Contains(f.message, e.message)
}

func expected() []expectation {
	return []expectation{
		{"", "because it is being terminated", "tests delete their namespaces with the apps in them"},
	}
}
