// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

const (
	// maxChunkLine bounds the line with a chunk's size. extraFraming is by how many bytes the extensions of a body may exceed its data.
	// Extensions are used only in attacks that make others read much for little.
	maxChunkLine = 4 << 10
	extraFraming = 16 << 10
	// maxTrailer bounds all trailer fields together.
	maxTrailer = 64 << 10
	// maxChunkDigits keeps a chunk's size below 2^60.
	maxChunkDigits = 15
)

// chunkState is the position of the next byte in a chunked body.
type chunkState uint8

const (
	atSize         chunkState = iota // in the digits of a chunk's size
	atPadding                        // in the space after them (RFC 9112, 7.1.1)
	atExtension                      // in extensions
	atSizeLF                         // before the LF of that line
	atData                           // in a chunk's data
	atDataCR                         // before the CR after the data
	atDataLF                         // before the LF after the data
	atTrailer                        // at the beginning of a trailer line
	atTrailerName                    // in a trailer field's name
	atTrailerValue                   // in its value
	atTrailerLF                      // before the LF of that line
	atEndLF                          // before the last LF
	atEnd
)

// Kind says what some bytes of a chunked body are.
type Kind uint8

// The kinds of bytes.
const (
	Framing Kind = iota
	Data
	// Padding is space after a chunk's size. It has no meaning, and is not passed on, because other readers refuse it.
	Padding
	// BareLF ends a line without a CR. A CR is added when it is passed on.
	BareLF
)

// Chunked follows a chunked body. The zero value is at the first chunk of a request's body.
type Chunked struct {
	// Lenient allows what apps send but no client does: lines that end in LF alone, control bytes in values, and trailer fields that
	// belong in the header.
	Lenient bool

	state chunkState
	left  int64 // data bytes still to come in this chunk
	count int   // of digits, bytes of this line, or bytes of the trailer
	extra int64 // how many bytes of extensions are still allowed
	name  fieldName
}

// Done reports whether the body has ended.
func (c *Chunked) Done() bool { return c.state == atEnd }

// Left returns how many bytes of data come next; 0 if the next byte is not data.
func (c *Chunked) Left() int64 {
	if c.state == atData {
		return c.left
	}
	return 0
}

// Skip advances by n bytes of data, at most Left, that did not pass through Next.
func (c *Chunked) Skip(n int64) {
	if c.left -= n; c.left == 0 {
		c.state = atDataCR
	}
}

// Next advances over the first bytes of b that are of one kind. It returns their number and the kind. The number is 0 only if b is
// empty or the body has ended. The error is a MalformedError.
func (c *Chunked) Next(b []byte) (n int, kind Kind, err error) {
	if c.state == atData && len(b) > 0 {
		n = int(min(c.left, int64(len(b))))
		c.Skip(int64(n))
		return n, Data, nil
	}
	for n < len(b) && c.state != atEnd && c.state != atData {
		kind := c.kind(b[n])
		if kind != Framing && n > 0 {
			break
		}
		if err := c.framing(b[n]); err != nil {
			return n, kind, err
		}
		n++
		if kind != Framing {
			return n, kind, nil
		}
	}
	return n, Framing, nil
}

// kind returns the kind of a byte outside of data.
func (c *Chunked) kind(b byte) Kind {
	switch {
	case b > ' ' || b == '\r':
		return Framing
	case isSpace(b) && (c.state == atSize || c.state == atPadding):
		return Padding
	case b == '\n' && c.state != atSizeLF && c.state != atDataLF && c.state != atTrailerLF && c.state != atEndLF:
		return BareLF
	default:
		return Framing
	}
}

// Feed advances over the bytes of b that belong to the body. It returns their number, and the bytes to pass on: the same bytes, or a
// copy without padding and with complete line ends if that differs. The error is a MalformedError.
func (c *Chunked) Feed(b []byte) (pass []byte, n int, err error) {
	same := true
	for n < len(b) && !c.Done() {
		m, kind, err := c.Next(b[n:])
		if err != nil {
			return nil, n + m, err
		}
		if same && (kind == Padding || kind == BareLF) {
			same = false
			pass = append(make([]byte, 0, len(b)+len(b)/8), b[:n]...)
		}
		switch {
		case same, kind == Padding:
		case kind == BareLF:
			pass = append(pass, '\r', '\n')
		default:
			pass = append(pass, b[n:n+m]...)
		}
		n += m
	}
	if same {
		pass = b[:n]
	}
	return pass, n, nil
}

func (c *Chunked) framing(b byte) error {
	switch {
	case c.state < atData:
		return c.sizeLine(b)
	case c.state == atDataCR && b == '\r':
		c.state = atDataLF
		return nil
	case c.state <= atDataLF:
		if b != '\n' || c.state == atDataCR && !c.Lenient {
			return ErrBadChunkEnd
		}
		c.state, c.count, c.left = atSize, 0, 0
		return nil
	default:
		return c.trailer(b)
	}
}

// sizeLine reads a byte of the line with a chunk's size.
func (c *Chunked) sizeLine(b byte) error {
	if c.state == atSizeLF {
		if b != '\n' {
			return ErrBadLineEnd
		}
		c.endSizeLine()
		return nil
	}
	if c.state == atSize {
		if digit := hexDigit(b); digit >= 0 {
			if c.count++; c.count > maxChunkDigits {
				return ErrBadChunkSize
			}
			c.left = c.left<<4 | int64(digit)
			return nil
		}
		if c.count == 0 {
			return ErrBadChunkSize
		}
	}
	if c.extra--; c.extra < -extraFraming {
		return ErrChunkLineTooLong
	}
	if c.count++; c.count > maxChunkLine {
		return ErrChunkLineTooLong
	}
	switch {
	case b == '\r':
		c.state = atSizeLF
	case b == '\n' && c.Lenient:
		c.endSizeLine()
	case c.state == atExtension:
		if !c.mayHave(b) {
			return ErrBadChunkLine
		}
	case b == ';':
		c.state = atExtension
	case isSpace(b):
		c.state = atPadding
	default:
		return ErrBadChunkSize
	}
	return nil
}

// endSizeLine advances past the line with a chunk's size.
func (c *Chunked) endSizeLine() {
	c.state, c.count = atData, 0
	c.extra += min(c.left, extraFraming)
	if c.left == 0 {
		c.state = atTrailer
	}
}

// mayHave reports whether b, which ends no line, may be in a value.
func (c *Chunked) mayHave(b byte) bool {
	if c.Lenient {
		return b != 0
	}
	return (b >= ' ' || b == '\t') && b != 0x7f
}

// trailer reads a byte after the last chunk.
func (c *Chunked) trailer(b byte) error {
	if c.count++; c.count > maxTrailer {
		return ErrTrailerTooLarge
	}
	switch c.state {
	case atTrailer:
		if b == '\r' {
			c.state = atEndLF
			return nil
		}
		if b == '\n' && c.Lenient {
			c.state = atEnd
			return nil
		}
		if lowered[b] == 0 {
			return badName(b, 0, b)
		}
		c.state, c.name = atTrailerName, fieldName{}
		c.name.add(b)
	case atTrailerName:
		switch {
		case b == ':':
			if n := c.name.name(); n != Other && n != UserAgent && !c.Lenient {
				return ErrBadTrailer
			}
			c.state = atTrailerValue
		case lowered[b] == 0:
			return ErrBadFieldName
		default:
			c.name.add(b)
		}
	case atTrailerValue:
		return c.trailerValue(b)
	default: // atTrailerLF, atEndLF
		if b != '\n' {
			return ErrBadLineEnd
		}
		if c.state == atEndLF {
			c.state = atEnd
			return nil
		}
		c.state = atTrailer
	}
	return nil
}

// trailerValue reads a byte of a trailer field's value, or the first byte of the line's end.
func (c *Chunked) trailerValue(b byte) error {
	switch {
	case b == '\r':
		c.state = atTrailerLF
	case b == '\n' && c.Lenient:
		c.state = atTrailer
	case b == '\n':
		return ErrBadLineEnd
	case !c.mayHave(b):
		return ErrBadFieldValue
	}
	return nil
}

func hexDigit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	default:
		return -1
	}
}
