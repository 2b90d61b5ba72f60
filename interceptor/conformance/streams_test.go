// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// framePod is an app that answers each HTTP/2 stream by a script, frame by frame. The script runs when the first DATA of the stream,
// or its end, has arrived.
type framePod struct {
	addr  string
	ended chan uint32 // gets the streams that are reset

	mu    sync.Mutex // protects all below
	asked []string   // the requested paths
}

// frameConn is one connection of a framePod.
type frameConn struct {
	*net.TCPConn
	*http2.Framer
	paths map[uint32]string // by stream
}

func newFramePod(t *testing.T, script func(c *frameConn, stream uint32)) *framePod {
	t.Helper()
	p := &framePod{ended: make(chan uint32, 100)}
	p.addr = rawPod(t, func(c net.Conn) {
		defer c.Close()
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		conn := &frameConn{c.(*net.TCPConn), http2.NewFramer(c, c), map[uint32]string{}}
		conn.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if conn.WriteSettings() != nil {
			return
		}
		p.serve(conn, script)
	})
	return p
}

func (p *framePod) serve(c *frameConn, script func(c *frameConn, stream uint32)) {
	began := map[uint32]bool{}
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return
		}
		id, ended := f.Header().StreamID, f.Header().Flags.Has(http2.FlagDataEndStream)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			c.paths[id] = f.PseudoValue("path")
			p.mu.Lock()
			p.asked = append(p.asked, c.paths[id])
			p.mu.Unlock()
			if ended {
				script(c, id)
			}
		case *http2.DataFrame:
			if !began[id] {
				began[id] = true
				script(c, id)
			}
		case *http2.RSTStreamFrame:
			p.ended <- id
		}
	}
}

// times returns how often a path was requested.
func (p *framePod) times(path string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, asked := range p.asked {
		if asked == path {
			n++
		}
	}
	return n
}

// head sends a header or a trailer.
func (c *frameConn) head(stream uint32, end bool, fields ...string) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
}

// begin answers a call with its header and a message.
func (c *frameConn) begin(stream uint32) {
	c.head(stream, false, ":status", "200", "content-type", "application/grpc")
	_ = c.WriteData(stream, false, []byte("\x00\x00\x00\x00\x04\x0a\x02hi"))
}

func (c *frameConn) resetConn() { reset(c.TCPConn) }

// ends returns the ways in which an app can end a stream whose client says nothing more.
func ends() map[string]func(c *frameConn, stream uint32) {
	all := map[string]func(c *frameConn, stream uint32){
		"closes its connection": func(c *frameConn, _ uint32) { _ = c.Close() },
		"resets its connection": func(c *frameConn, _ uint32) { c.resetConn() },
		"goes away and closes": func(c *frameConn, stream uint32) {
			_ = c.WriteGoAway(stream, http2.ErrCodeNo, nil)
			_ = c.Close()
		},
		"goes away before the call": func(c *frameConn, _ uint32) {
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
			_ = c.Close()
		},
		"goes away for an error": func(c *frameConn, stream uint32) {
			_ = c.WriteGoAway(stream, http2.ErrCodeInternal, []byte("why"))
			_ = c.Close()
		},
	}
	for _, code := range []http2.ErrCode{
		http2.ErrCodeInternal, http2.ErrCodeCancel, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeInadequateSecurity,
	} {
		all["resets the stream: "+code.String()] = func(c *frameConn, stream uint32) { _ = c.WriteRSTStream(stream, code) }
	}
	return all
}

// bidi opens a call that streams both ways, sends one message, and then nothing more. It returns the call's status, and how many
// answers came before that.
func bidi(ctx context.Context, addr string) (messages int, _ error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Bidi")
	if err != nil {
		return 0, err
	}
	if err := s.SendMsg(wrapperspb.String("hello")); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for {
		if err := s.RecvMsg(new(wrapperspb.StringValue)); err != nil {
			return messages, err
		}
		messages++
	}
}

// A gRPC call ends for its client as soon as the app ends it in any way, even if the client's side is open and quiet. The client gets
// the status that it would have seen without us.
func TestQuietCallEnds(t *testing.T) {
	for name, end := range ends() {
		for when, begins := range map[string]bool{"at once": false, "after a message": true} {
			t.Run(name+"/"+when, func(t *testing.T) {
				t.Parallel()
				p := newFramePod(t, func(c *frameConn, stream uint32) {
					if begins {
						c.begin(stream)
					}
					end(c, stream)
				})
				n, listen := serving(t, api.ProtocolAuto, p.addr)
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				_, directly := bidi(ctx, p.addr)
				messages, err := bidi(ctx, fmt.Sprintf("127.0.0.1:%d", listen))
				if got, want := status.Code(err), status.Code(directly); got != want {
					t.Errorf("got %v, want as without us %v", err, directly)
				}
				if begins && messages != 1 && name != "resets its connection" { // a reset may overtake the message
					t.Errorf("got %d messages", messages)
				}
				n.idle()
			})
		}
	}
}

// The app's own status reaches the client while the client's side is open and quiet, with and without a reset after it.
func TestQuietCallIsAnswered(t *testing.T) {
	const code, text = "grpc-status", "grpc-message"
	for name, tc := range map[string]struct {
		script func(c *frameConn, stream uint32)
		want   codes.Code // OK means an end without an error
	}{
		"status alone": {func(c *frameConn, stream uint32) {
			c.head(stream, true, ":status", "200", "content-type", "application/grpc", code, "8", text, "enough")
		}, codes.ResourceExhausted},
		"status alone, and a reset": {func(c *frameConn, stream uint32) {
			c.head(stream, true, ":status", "200", "content-type", "application/grpc", code, "8", text, "enough")
			_ = c.WriteRSTStream(stream, http2.ErrCodeNo)
		}, codes.ResourceExhausted},
		"message and status": {func(c *frameConn, stream uint32) {
			c.begin(stream)
			c.head(stream, true, code, "5")
		}, codes.NotFound},
		"message and success": {func(c *frameConn, stream uint32) {
			c.begin(stream)
			c.head(stream, true, code, "0")
		}, codes.OK},
		"message, success and a reset": {func(c *frameConn, stream uint32) {
			c.begin(stream)
			c.head(stream, true, code, "0")
			_ = c.WriteRSTStream(stream, http2.ErrCodeNo)
		}, codes.OK},
		"message, status and the end of the connection": {func(c *frameConn, stream uint32) {
			c.begin(stream)
			c.head(stream, true, code, "5")
			_ = c.Close()
		}, codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, api.ProtocolAuto, newFramePod(t, tc.script).addr)
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			_, err := bidi(ctx, fmt.Sprintf("127.0.0.1:%d", listen))
			if tc.want == codes.OK && !errors.Is(err, io.EOF) || tc.want != codes.OK && status.Code(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			n.idle()
		})
	}
}

// upload opens an HTTP/2 request that is not gRPC. Its body is open and quiet.
func upload(t *testing.T, listen int32) (*http.Response, error) {
	t.Helper()
	body, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	go func() { _, _ = io.WriteString(w, "hello") }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url(listen, "/"), body)
	if err != nil {
		t.Fatal(err)
	}
	return (&http.Client{Transport: h2cTransport(t), Timeout: within}).Do(req)
}

// Requests that are not gRPC end just as soon: with 502 before the answer, with a reset during the answer, and with the answer if it
// is complete.
func TestQuietUploadEnds(t *testing.T) {
	for name, end := range ends() {
		t.Run(name+"/before the answer", func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, api.ProtocolAuto, newFramePod(t, end).addr)
			resp, err := upload(t, listen)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusBadGateway {
				t.Errorf("got %s", resp.Status)
			}
			n.idle()
		})
		t.Run(name+"/within the answer", func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, api.ProtocolAuto, newFramePod(t, func(c *frameConn, stream uint32) {
				c.head(stream, false, ":status", "200")
				end(c, stream)
			}).addr)
			resp, err := upload(t, listen)
			if err == nil {
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
			}
			if resp != nil && resp.StatusCode != http.StatusBadGateway && !errors.As(err, new(http2.StreamError)) {
				t.Errorf("got %v", err)
			}
			n.idle()
		})
	}
	for _, status := range []string{"200", "404", "500"} {
		t.Run("the answer is complete/"+status, func(t *testing.T) {
			t.Parallel()
			p := newFramePod(t, func(c *frameConn, stream uint32) {
				c.head(stream, false, ":status", status)
				_ = c.WriteData(stream, true, []byte("enough"))
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			resp, err := upload(t, listen)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if string(b) != "enough" || err != nil || !strings.HasPrefix(resp.Status, status) {
				t.Errorf("got %s, %q, %v", resp.Status, b, err)
			}
			<-p.ended // the app need not wait for the rest
			n.idle()
		})
	}
}

// When a client goes while both sides are quiet, its stream to the app ends too.
func TestQuietClientGoes(t *testing.T) {
	for name, begins := range map[string]bool{"before the answer": false, "within the answer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			p := newFramePod(t, func(c *frameConn, stream uint32) {
				if begins {
					c.begin(stream)
				}
				cancel()
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			if _, err := bidi(ctx, fmt.Sprintf("127.0.0.1:%d", listen)); status.Code(err) != codes.Canceled {
				t.Errorf("got %v", err)
			}
			<-p.ended
			n.idle()
		})
	}
}

// The same with HTTP/1.1: a chunked upload that is open and quiet ends when the app ends it.
func TestQuietChunkedUploadEnds(t *testing.T) {
	const early = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
	for name, tc := range map[string]struct {
		answer string
		reset  bool
		want   string // how the answer begins
		whole  bool
	}{
		"closes":                    {"", false, "HTTP/1.1 502 ", true},
		"resets":                    {"", true, "HTTP/1.1 502 ", true},
		"closes within its answer":  {early, false, "HTTP/1.1 200 ", false},
		"resets within its answer":  {early, true, "HTTP/1.1 200 ", false},
		"answers early and closes":  {early + "0\r\n\r\n", false, "HTTP/1.1 200 ", true},
		"refuses early and closes":  {"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", false, "HTTP/1.1 413 ", true},
		"answers until it is ended": {"HTTP/1.1 200 OK\r\n\r\nhi", false, "HTTP/1.1 200 ", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read := make(chan struct{})
			p := newWirePod(t, func(c *wireConn) {
				if _, err := readHead(c.r); err != nil {
					return
				}
				_, _ = io.ReadFull(c.r, make([]byte, len("5\r\nhello\r\n")))
				c.send(tc.answer)
				if tc.answer != "" {
					c.await(read)
				}
				if tc.reset {
					_ = c.SetLinger(0)
				}
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			m := c.head()
			close(read)
			if !strings.HasPrefix(m.start, tc.want) {
				t.Errorf("got %q", m.start)
			}
			if err := readBody(c.r, m, true); (err == nil) != tc.whole || isTimeout(err) {
				t.Errorf("got %q, %v", m.body, err)
			}
			n.idle() // although the client is still there
		})
	}
}
