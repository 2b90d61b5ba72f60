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
	atPadding                        // in the space behind them
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

// Chunked follows a chunked body. The zero value stands before the first chunk of a request's.
type Chunked struct {
	// Lenient allows what old apps send and no client does: space behind a chunk's size, and trailer fields that belong
	// into the header.
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

// Next goes on by as many bytes of b as are of one kind, data or framing, and returns their number and the kind. It is
// 0 only if b is empty or the body has ended. The error is a Malformed.
func (c *Chunked) Next(b []byte) (n int, data bool, err error) {
	if c.state == atData && len(b) > 0 {
		n = int(min(c.left, int64(len(b))))
		c.Skip(int64(n))
		return n, true, nil
	}
	for n < len(b) && c.state != atEnd && c.state != atData {
		if err := c.framing(b[n]); err != nil {
			return n, false, err
		}
		n++
	}
	return n, false, nil
}

// Feed goes on by as many bytes of b as belong to the body and returns their number. The error is a Malformed.
func (c *Chunked) Feed(b []byte) (int, error) {
	at := 0
	for at < len(b) && !c.Done() {
		n, _, err := c.Next(b[at:])
		at += n
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

func (c *Chunked) framing(b byte) error {
	switch {
	case c.state < atData:
		return c.sizeLine(b)
	case c.state == atDataCR:
		if b != '\r' {
			return BadChunkEnd
		}
		c.state = atDataLF
		return nil
	case c.state == atDataLF:
		if b != '\n' {
			return BadChunkEnd
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
			return BadLineEnd
		}
		c.state, c.count = atData, 0
		c.extra += min(c.left, extraFraming)
		if c.left == 0 {
			c.state = atTrailer
		}
		return nil
	}
	if c.state == atSize {
		if digit := hexDigit(b); digit >= 0 {
			if c.count++; c.count > maxChunkDigits {
				return BadChunkSize
			}
			c.left = c.left<<4 | int64(digit)
			return nil
		}
		if c.count == 0 {
			return BadChunkSize
		}
	}
	if c.extra--; c.extra < -extraFraming {
		return ChunkLineTooLong
	}
	if c.count++; c.count > maxChunkLine {
		return ChunkLineTooLong
	}
	switch {
	case b == '\r':
		c.state = atSizeLF
	case c.state == atExtension:
		if b < ' ' && b != '\t' || b == 0x7f {
			return BadChunkLine
		}
	case b == ';':
		c.state = atExtension
	case isSpace(b) && c.Lenient:
		c.state = atPadding
	default:
		return BadChunkSize
	}
	return nil
}

// trailer takes a byte of what follows the last chunk.
func (c *Chunked) trailer(b byte) error {
	if c.count++; c.count > maxTrailer {
		return TrailerTooLarge
	}
	switch c.state {
	case atTrailer:
		if b == '\r' {
			c.state = atEndLF
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
				return BadTrailer
			}
			c.state = atTrailerValue
		case lowered[b] == 0:
			return BadFieldName
		default:
			c.name.add(b)
		}
	case atTrailerValue:
		if b == '\r' {
			c.state = atTrailerLF
		} else if b == '\n' {
			return BadLineEnd
		} else if b < ' ' && b != '\t' || b == 0x7f {
			return BadFieldValue
		}
	default: // atTrailerLF, atEndLF
		if b != '\n' {
			return BadLineEnd
		}
		if c.state == atEndLF {
			c.state = atEnd
			return nil
		}
		c.state = atTrailer
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
