// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"

	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// tunnel carries the bytes of both directions until both have ended, or everything is cut, and closes both connections. Early is
// what the client has sent already. The end of one direction is passed on while the other goes on.
func (s *Server) tunnel(client, up *wire.Sock, early []byte, talk *talk) error {
	shut := func() {
		_ = client.Close()
		_ = up.Close()
	}
	defer shut()
	stop := context.AfterFunc(s.base, shut)
	defer stop()
	client.Large, up.Large = true, true
	half := func(dst, src *wire.Sock, early []byte) error {
		counting := talk.of(src == client)
		if len(early) > 0 {
			counting.Writing()
		}
		_, err := dst.Write(early)
		if err == nil && src == client && talk.watch != nil {
			err = talk.watch.Pass(dst, src, counting, talk.podSpoke.Load)
		}
		if err == nil {
			f := wire.Flow{Src: src, Dst: dst, Waits: counting}
			err = f.Copy(&wire.Body{Left: wire.UntilEnd})
		}
		talk.end(src == client)
		if err != nil {
			shut()
			return err
		}
		return dst.CloseWrite()
	}
	sent := make(chan error, 1)
	go func() {
		err := errRescued
		defer func() { sent <- err }()
		defer rescue(s.log, shut)
		err = half(up, client, early)
	}()
	return errors.Join(half(client, up, nil), <-sent)
}
