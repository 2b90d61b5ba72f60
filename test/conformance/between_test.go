// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"google.golang.org/protobuf/encoding/protowire"
)

// The runner of the suite starts a client or a server, and tells it by messages on its standard input and output where to
// connect, or is told where it listens. Here it starts this program, which starts the real one with an interceptor before
// the server, and changes the addresses in the messages.

// The fields of ServerCompatResponse and ClientCompatRequest that say so.
const (
	serverHost, serverPort protowire.Number = 1, 2
	clientHost, clientPort protowire.Number = 6, 7
)

// between runs the command of a client or server with an interceptor before it, and writes how many requests that has
// seen to a file of its own in the folder counts.
func between(role, counts string, command []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	p, err := startProxy()
	if err != nil {
		return err
	}
	run := runServer
	if role == "client" {
		run = runClient
	}
	err = run(ctx, p, command)
	requests, closing := p.close()
	f, writing := os.CreateTemp(counts, "")
	if writing == nil {
		_, writing = io.WriteString(f, strconv.Itoa(requests))
		writing = errors.Join(writing, f.Close())
	}
	return errors.Join(err, closing, writing)
}

func start(ctx context.Context, command []string, stdin io.Reader, stdout io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, os.Stderr
	return cmd
}

// runServer runs a server until ctx is done.
func runServer(ctx context.Context, p *proxy, command []string) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := start(ctx, command, os.Stdin, in)
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = in.Close()
	message, err := readMessage(out)
	if err == nil {
		if message, err = p.redirect(message, serverHost, serverPort); err == nil {
			err = writeMessage(os.Stdout, message)
		}
	}
	waited := cmd.Wait()
	if ctx.Err() != nil {
		waited = nil // it was told to end
	}
	return errors.Join(err, waited)
}

// runClient runs a client that is given its requests one by one.
func runClient(ctx context.Context, p *proxy, command []string) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := start(ctx, command, in, os.Stdout)
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = in.Close()
	feeding := func() error {
		defer out.Close()
		r := bufio.NewReader(os.Stdin)
		for {
			message, err := readMessage(r)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				message, err = p.redirect(message, clientHost, clientPort)
			}
			if err == nil {
				err = writeMessage(out, message)
			}
			if err != nil {
				return err
			}
		}
	}
	return errors.Join(feeding(), cmd.Wait())
}

// redirect puts the interceptor's port in the place of the server's.
func (p *proxy) redirect(message []byte, host, port protowire.Number) ([]byte, error) {
	var to string
	var at uint64
	var rest []byte
	for b := message; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		length := protowire.ConsumeFieldValue(number, kind, b[n:])
		if length < 0 {
			return nil, protowire.ParseError(length)
		}
		switch number {
		case host:
			to, _ = protowire.ConsumeString(b[n:])
		case port:
			at, _ = protowire.ConsumeVarint(b[n:])
		default:
			rest = append(rest, b[:n+length]...)
		}
		b = b[n+length:]
	}
	if at == 0 {
		return message, nil // a server that could not start
	}
	listen, err := p.before(net.JoinHostPort(to, strconv.FormatUint(at, 10)))
	if err != nil {
		return nil, err
	}
	rest = protowire.AppendString(protowire.AppendTag(rest, host, protowire.BytesType), "127.0.0.1")
	return protowire.AppendVarint(protowire.AppendTag(rest, port, protowire.VarintType), uint64(listen)), nil
}

func readMessage(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, fmt.Errorf("reading a message: %w", err)
	}
	return message, nil
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}
