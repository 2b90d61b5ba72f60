// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
)

// kind is a kind of request.
type kind struct {
	name   string
	method string
	path   string // %s is the request's number, %d its size
	body   bool
	chunks bool // the body is chunked
	once   bool // it must not be carried out twice
}

// kinds are all kinds of requests.
func kinds() []kind {
	return []kind{
		{name: "GET", method: http.MethodGet, path: "/echo?n=%s"},
		{name: "GET large", method: http.MethodGet, path: "/download?bytes=%d"},
		{name: "GET slow", method: http.MethodGet, path: "/slow?for=%dus"}, // up to a second
		{name: "HEAD", method: http.MethodHead, path: "/echo?n=%s"},
		{name: "DELETE", method: http.MethodDelete, path: "/echo?n=%s"},
		{name: "PUT", method: http.MethodPut, path: "/echo?n=%s", body: true},
		{name: "POST", method: http.MethodPost, path: "/once/%s", body: true, once: true},
		{name: "POST chunked", method: http.MethodPost, path: "/once/%s", body: true, chunks: true, once: true},
		{name: "POST empty", method: http.MethodPost, path: "/once/%s", once: true},
	}
}

// plan is a request to send.
type plan struct {
	kind
	id   string
	size int  // size of the body or the answer
	seed byte // seed of the body
	kept bool // over a connection that has been used before, if there is one
}

// newPlan draws a request. Half of the bodies fit into a packet, and some are a mebibyte.
func newPlan(rng *rand.Rand, id string) plan {
	all := kinds()
	most := []int{1 << 10, 1 << 10, 64 << 10, 1 << 20}[rng.IntN(4)]
	return plan{
		kind: all[rng.IntN(len(all))], id: id, size: rng.IntN(most + 1),
		seed: byte(rng.UintN(256)), kept: rng.IntN(3) > 0,
	}
}

// request returns the plan's HTTP request to host.
func (p plan) request(host string) (*http.Request, error) {
	path := p.path
	switch {
	case strings.Contains(path, "%s"):
		path = fmt.Sprintf(path, p.id)
	case strings.Contains(path, "%d"):
		path = fmt.Sprintf(path, p.size)
	}
	var body io.Reader = http.NoBody
	if p.body {
		body = bytes.NewReader(p.content())
	}
	if p.chunks {
		body = io.MultiReader(body) // which hides the length
	}
	r, err := http.NewRequest(p.method, "http://"+host+path, body)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	r.Header.Set("X-Drive", p.id)
	r.Close = !p.kept
	return r, nil
}

// content returns the body. No other request is likely to have the same.
func (p plan) content() []byte {
	seed := sha256.Sum256(append([]byte(p.id), p.seed))
	b := make([]byte, p.size)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// answer is an answer that has been read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// check returns what is wrong with the app's answer.
func (p plan) check(app string, a answer) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d: %.200s", a.status, bytes.TrimSpace(a.body))
	}
	if pod := a.header.Get("X-App"); !strings.HasPrefix(pod, app+"-") {
		return fmt.Errorf("it comes from %q, which is no pod of %s", pod, app)
	}
	switch {
	case p.method == http.MethodHead:
		if len(a.body) > 0 {
			return errors.New("the answer to a HEAD has a body")
		}
		return nil
	case strings.HasPrefix(p.path, "/download"):
		return checkPattern(a.body, 0, p.size)
	case strings.HasPrefix(p.path, "/slow"):
		if !bytes.Contains(a.body, []byte(" took ")) {
			return fmt.Errorf("the body is %.100q", a.body)
		}
		return nil
	}
	var got struct {
		Method     string
		Path       string
		BodyBytes  int
		BodySha256 string
		Headers    http.Header
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		return fmt.Errorf("reading what was echoed: %w", err)
	}
	var sent []byte
	if p.body {
		sent = p.content()
	}
	sum := sha256.Sum256(sent)
	if got.Method != p.method || got.Headers.Get("X-Drive") != p.id {
		return fmt.Errorf("it answers %s %s, number %q", got.Method, got.Path, got.Headers.Get("X-Drive"))
	}
	if got.BodyBytes != len(sent) || got.BodySha256 != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("the app got %d bytes with hash %.8s, %d bytes with hash %x were sent", got.BodyBytes, got.BodySha256, len(sent),
			sum[:4])
	}
	return nil
}

// checkPattern compares b with the bytes that the app's /download sends from an offset on. Their number should be size.
func checkPattern(b []byte, offset, size int) error {
	if len(b) != size {
		return fmt.Errorf("%d bytes came of %d", len(b), size)
	}
	for i, c := range b {
		if c != 'a'+byte((offset+i)%26) {
			return fmt.Errorf("byte %d is %q", offset+i, c)
		}
	}
	return nil
}
