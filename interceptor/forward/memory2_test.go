// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The bytes of bodies are counted however the connection is cut into pieces.
func TestFrameReader(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(clientPreface)
	framer := xhttp2.NewFramer(&b, nil)
	var head bytes.Buffer
	fields := hpack.NewEncoder(&head)
	for range 10 {
		_ = fields.WriteField(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", 100)})
	}
	want := 0
	_ = framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
	for id, size := range []int{0, 1, 9, 100, 16 << 10} {
		stream := uint32(2*id + 1)
		_ = framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true})
		_ = framer.WriteData(stream, false, make([]byte, size))
		_ = framer.WritePing(false, [8]byte{1})
		want += size
	}
	for _, piece := range []int{1, 2, 8, 9, 10, 1000, 4096, b.Len()} {
		var f frameReader
		got := 0
		for rest := b.Bytes(); len(rest) > 0; {
			n := min(piece, len(rest))
			got += f.read(rest[:n])
			rest = rest[n:]
		}
		if got != want {
			t.Errorf("in pieces of %d: %d bytes, want %d", piece, got, want)
		}
	}
}
