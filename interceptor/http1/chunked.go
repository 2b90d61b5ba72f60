// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

const (
	// maxChunkLine bounds the line with a chunk's size, and extraFraming what the extensions of a body may have more
	// bytes than its data. Nobody uses them, but for making others read much for little.
	maxChunkLine = 4 << 10
	extraFraming = 16 << 10
	// maxTrailer bounds the trailer fields together.
	maxTrailer = 64 << 10
	// maxChunkDigits leaves a chunk's size below 2^60.
	maxChunkDigits = 15
)

// chunkState is where in a chunked body the next byte stands.
type chunkState uint8

const (
	atSize         chunkState = iota // in the digits of a chunk's size
	atPadding                        // in the space behind them (RFC 9112, 7.1.1)
	atExtension                      // in extensions
	atSizeLF                         // before the LF of that line
	atData                           // in a chunk's data
	atDataCR                         // before the CR behind it
	atDataLF                         // before the LF behind it
	atTrailer                        // at the beginning of a trailer line
	atTrailerName                    // in a trailer field's name
	atTrailerValue                   // in its value
	atTrailerLF                      // before the LF of that line
	atEndLF                          // before the last LF
	atEnd
)

// Kind is what the bytes of a chunked body are.
type Kind uint8

// The kinds.
const (
	Framing Kind = iota
	Data
	// Padding is space behind a chunk's size. It means nothing, and is not passed on: other readers refuse it.
	Padding
	// BareLF ends a line without a CR. It is passed on with one.
	BareLF
)

// Chunked follows a chunked body. The zero value stands before the first chunk of a request's.
type Chunked struct {
	// Lenient allows what apps send and no client does: lines that end in LF alone, control bytes in values, and trailer
	// fields that belong into the header.
	Lenient bool

	state chunkState
	left  int64 // data bytes still to come in this chunk
	count int   // digits, bytes of this line, or bytes of the trailer
	extra int64 // bytes of extensions that there may still be
	name  fieldName
}

// Done says that the body has ended.
func (c *Chunked) Done() bool { return c.state == atEnd }

// Left is the number of bytes of data that come next, 0 if something else does.
func (c *Chunked) Left() int64 {
	if c.state == atData {
		return c.left
	}
	return 0
}

// Skip goes on by n bytes of data, at most Left, that did not pass through Next.
func (c *Chunked) Skip(n int64) {
	if c.left -= n; c.left == 0 {
		c.state = atDataCR
	}
}

// Next goes on by as many bytes of b as are of one kind, and returns their number and the kind. It is 0 only if b is empty
// or the body has ended. The error is a MalformedError.
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

// kind is that of a byte outside of data.
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

// Feed goes on by as many bytes of b as belong to the body. It returns their number, and what they go on as: themselves, or,
// where they have padding or bare LFs, a copy without them. The error is a MalformedError.
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

// sizeLine takes a byte of the line with a chunk's size.
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

// endSizeLine goes on behind the line with a chunk's size.
func (c *Chunked) endSizeLine() {
	c.state, c.count = atData, 0
	c.extra += min(c.left, extraFraming)
	if c.left == 0 {
		c.state = atTrailer
	}
}

// mayHave says that b, which ends no line, may stand in a value.
func (c *Chunked) mayHave(b byte) bool {
	if c.Lenient {
		return b != 0
	}
	return (b >= ' ' || b == '\t') && b != 0x7f
}

// trailer takes a byte of what follows the last chunk.
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

// trailerValue takes a byte of a trailer field's value, or the beginning of its line's end.
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
