// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// tunnel carries the bytes of both directions until both have ended or everything is cut, and then closes both connections. early was
// already read from the client. When one direction ends, tunnel passes the end on, and the other direction goes on.
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
		if errors.Is(err, wire.ErrLateHTTP) {
			_ = up.SetLinger(0) // an end in order might be the end of a request for the app
			refuseLate(client, talk)
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

// refuseLate answers a client whose bytes have turned out to be HTTP, unless the app has said something already.
func refuseLate(client *wire.Sock, talk *talk) {
	if talk.podSpoke.Load() {
		return
	}
	_, err := client.Write(answers.Append(nil, answers.For(http1.ErrLateLine), true, false))
	// As in conn.linger, closing the connection while bytes come would reset it, and take the answer back.
	if err == nil && client.CloseWrite() == nil && client.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, client, maxRefused)
	}
}
