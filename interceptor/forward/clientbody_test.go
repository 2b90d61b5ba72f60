// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// A body can be sent again as long as no part of it is lost.
func TestClientBodyAgain(t *testing.T) {
	small, large := strings.Repeat("x", maxSmallBody), strings.Repeat("x", maxSmallBody+1)
	for name, tc := range map[string]struct {
		body  string
		keep  bool
		read  int // how many bytes the first attempt reads at most
		again bool
	}{
		"nothing read":            {small, false, 0, true},
		"read":                    {small, false, 5, false},
		"read whole":              {small, false, -1, false},
		"kept, not whole":         {small, true, 5, false},
		"kept":                    {small, true, -1, true},
		"kept, empty":             {"", true, -1, true},
		"too large":               {large, true, -1, false},
		"too large, nothing read": {large, true, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newClientBody(io.NopCloser(strings.NewReader(tc.body)), tc.keep)
			first := b.next()
			switch tc.read {
			case 0:
			case -1:
				if got, err := io.ReadAll(first); string(got) != tc.body || err != nil {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
			default:
				_, _ = io.ReadFull(first, make([]byte, tc.read))
			}
			_ = first.Close()
			if _, err := first.Read(make([]byte, 1)); err == nil {
				t.Error("the first attempt reads on")
			}
			if b.complete() != tc.again {
				t.Fatalf("complete is %v", !tc.again)
			}
			second, err := b.again()
			if !tc.again {
				if !errors.Is(err, errBodyUsed) {
					t.Errorf("got %v", err)
				}
				return
			}
			if got, err := io.ReadAll(second); string(got) != tc.body || err != nil {
				t.Errorf("then got %d bytes, %v", len(got), err)
			}
		})
	}
	if b := newClientBody(nil, true); b != nil || !b.complete() {
		t.Error("no body is not complete")
	}
}

// Closing a body ends a read that waits for the client. The body cannot be read again afterwards.
func TestClientBodyCloseEndsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, _ := io.Pipe()
		b := newClientBody(from, true)
		body := b.next()
		done := make(chan error, 1)
		go func() {
			_, err := body.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		if err := body.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("the read got something")
		}
		if b.complete() {
			t.Error("the body is still complete")
		}
	})
}
