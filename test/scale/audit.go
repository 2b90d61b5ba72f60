// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// auditEvent is a line of the API server's audit log: a request that an account of a pod has made.
type auditEvent struct {
	Verb, Stage              string
	User                     struct{ Username string }
	ObjectRef                struct{ Resource, Subresource, Namespace, Name string }
	ResponseStatus           struct{ Code int }
	RequestReceivedTimestamp time.Time
}

// what names the verb and the resource.
func (e auditEvent) what() string {
	resource := e.ObjectRef.Resource
	if e.ObjectRef.Subresource != "" {
		resource += "/" + e.ObjectRef.Subresource
	}
	return e.Verb + " " + resource
}

// account returns the namespace and the name of the account.
func (e auditEvent) account() (namespace, name string) {
	namespace, name, _ = strings.Cut(strings.TrimPrefix(e.User.Username, "system:serviceaccount:"), ":")
	return namespace, name
}

// scales says that the request asks for another replica count.
func (e auditEvent) scales() bool {
	return e.ObjectRef.Subresource == "scale" && isWrite(e.Verb) && e.ResponseStatus.Code < 300
}

func (e auditEvent) key() string { return e.ObjectRef.Namespace + "/" + e.ObjectRef.Name }

// auditLog reads the log from where it was opened.
type auditLog struct {
	file *os.File
	rest []byte
}

// openAudit opens the log at its end.
func openAudit() (*auditLog, error) {
	f, err := os.Open(filepath.Join(stateFolder(), "logs", "audit.log"))
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	return &auditLog{file: f}, nil
}

// more returns what has been logged since the last call.
func (a *auditLog) more() ([]auditEvent, error) {
	b, err := io.ReadAll(a.file)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	events, rest, err := parseAudit(append(a.rest, b...))
	a.rest = rest
	return events, err
}

func (a *auditLog) close() { a.file.Close() }

// parseAudit decodes complete lines, and returns what is left of an incomplete one.
func parseAudit(b []byte) (events []auditEvent, rest []byte, err error) {
	for {
		line, after, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return events, bytes.Clone(b), nil
		}
		var e auditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return events, nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if b = after; e.Stage != "ResponseStarted" { // of a watch, which is logged again when it ends
			events = append(events, e)
		}
	}
}

// ours are the requests of the product's accounts, by verb and resource.
func ours(events []auditEvent) apiRequests { return of(events, product) }

// of counts the requests of the accounts of a namespace.
func of(events []auditEvent, namespace string) apiRequests {
	counts := apiRequests{}
	for _, e := range events {
		if ns, _ := e.account(); ns == namespace {
			counts[e.what()]++
		}
	}
	return counts
}
