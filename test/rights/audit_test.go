// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
)

// request is what the audit log says of one.
type request struct {
	account, namespace    string
	group, resource, verb string
	name                  string // of the object; for a list, the only one that it selects
}

func (q request) String() string {
	return fmt.Sprintf("%s: %s %s %s/%s", q.account, q.verb, join(q.group, q.resource), q.namespace, q.name)
}

// refusal is a 403, or what a policy without a reason of its own makes a 422.
type refusal struct {
	request

	byRoles bool // not by a policy, a webhook or another admission plugin
	message string
}

// entry is one line of an audit log: audit.k8s.io/v1, Event.
type entry struct {
	Verb       string `json:"verb"`
	RequestURI string `json:"requestURI"`
	User       struct {
		Username string              `json:"username"`
		Extra    map[string][]string `json:"extra"`
	} `json:"user"`
	ObjectRef *struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
		APIGroup    string `json:"apiGroup"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"responseStatus"`
	Annotations map[string]string `json:"annotations"`
}

// ofPod is the extra that tokens have which the kubelet gives to pods.
const ofPod = "authentication.kubernetes.io/pod-name"

// read returns how often the pods of the namespace have made each request that was not refused, and the refusals with their counts. Tests
// that attack with the tokens of these accounts ask for the tokens themselves, and are left out.
func read(log io.Reader, namespace string) (made map[request]int, refused map[refusal]int, err error) {
	made, refused = map[request]int{}, map[refusal]int{}
	d := json.NewDecoder(log)
	for n := 1; ; n++ {
		var e entry
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return made, refused, nil
		} else if err != nil {
			return nil, nil, fmt.Errorf("reading entry %d: %w", n, err)
		}
		account, ours := strings.CutPrefix(e.User.Username, "system:serviceaccount:"+namespace+":")
		if !ours || len(e.User.Extra[ofPod]) == 0 {
			continue
		}
		q, err := e.request(account)
		if err != nil {
			return nil, nil, fmt.Errorf("reading entry %d: %w", n, err)
		}
		if !e.refused() {
			made[q]++
			if q.verb == "watch" && strings.Contains(e.RequestURI, "sendInitialEvents=true") {
				q.verb = "list" // an API server that cannot begin a watch so is asked for a list
				made[q]++
			}
			continue
		}
		refused[refusal{q, e.Annotations["authorization.k8s.io/decision"] == "forbid", e.ResponseStatus.Message}]++
	}
}

func (e entry) refused() bool {
	return e.ResponseStatus.Code == 403 ||
		e.ResponseStatus.Code == 422 && strings.Contains(e.ResponseStatus.Message, "ValidatingAdmissionPolicy")
}

func (e entry) request(account string) (request, error) {
	if e.ObjectRef == nil { // discovery, for example
		path, _, _ := strings.Cut(e.RequestURI, "?")
		return request{account: account, verb: e.Verb, resource: path}, nil
	}
	q := request{account, e.ObjectRef.Namespace, e.ObjectRef.APIGroup, e.ObjectRef.Resource, e.Verb, e.ObjectRef.Name}
	if e.ObjectRef.Subresource != "" {
		q.resource += "/" + e.ObjectRef.Subresource
	}
	if q.name == "" {
		u, err := url.Parse(e.RequestURI)
		if err != nil {
			return q, err
		}
		selector, err := fields.ParseSelector(u.Query().Get("fieldSelector"))
		if err != nil {
			return q, err
		}
		q.name, _ = selector.RequiresExactMatch("metadata.name")
	}
	return q, nil
}
