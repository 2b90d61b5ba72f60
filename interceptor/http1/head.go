// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

// Name is a field name that matters to a proxy.
type Name uint8

// The names. Other is every other name.
const (
	Other Name = iota
	Connection
	ContentLength
	Expect
	Host
	HTTP2Settings
	KeepAlive
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	ScaleToZeroWait
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	XForwardedFor
	XForwardedHost
	XForwardedProto
)

// longestName is the length of the longest of these names.
const longestName = len("proxy-authorization")

// fieldName is a field name. It keeps only as many bytes as the longest of the names has.
type fieldName struct {
	lower  [longestName]byte
	length int
}

// add adds the next byte, which must be allowed in a token.
func (n *fieldName) add(c byte) {
	if n.length < longestName {
		n.lower[n.length] = lowered[c]
	}
	n.length++
}

func (n *fieldName) name() Name {
	if n.length > longestName {
		return Other
	}
	return nameOf(n.lower[:n.length])
}

// NameOf returns the Name of a field from its name in any case.
func NameOf(name string) Name {
	var n fieldName
	for i := range len(name) {
		n.add(name[i])
	}
	return n.name()
}

// nameOf returns the Name of a field from its name in lower case.
func nameOf(lower []byte) Name {
	switch string(lower) {
	case "connection":
		return Connection
	case "content-length":
		return ContentLength
	case "expect":
		return Expect
	case "host":
		return Host
	case "http2-settings":
		return HTTP2Settings
	case "keep-alive":
		return KeepAlive
	case "proxy-authenticate":
		return ProxyAuthenticate
	case "proxy-authorization":
		return ProxyAuthorization
	case "proxy-connection":
		return ProxyConnection
	case "scale-to-zero-wait":
		return ScaleToZeroWait
	case "te":
		return TE
	case "trailer":
		return Trailer
	case "transfer-encoding":
		return TransferEncoding
	case "upgrade":
		return Upgrade
	case "user-agent":
		return UserAgent
	case "x-forwarded-for":
		return XForwardedFor
	case "x-forwarded-host":
		return XForwardedHost
	case "x-forwarded-proto":
		return XForwardedProto
	default:
		return Other
	}
}

// Field is one line of a head, as positions in the parsed buffer. Start is where the name starts, End is after the CRLF, and the
// value is without surrounding space.
type Field struct {
	Name                                      Name
	Start, NameEnd, ValueStart, ValueEnd, End int32
}

// Head is the common part of requests and responses. Its positions refer to the parsed buffer.
type Head struct {
	// Fields are the header fields in their order.
	Fields []Field
	// FirstLine is the length of the first line, including its end.
	FirstLine int
	// Minor is the minor version, 0 or 1.
	Minor int
	// Length is the Content-Length, or -1 if there is none.
	Length int64
	// Chunked is set if the body is chunked.
	Chunked bool
	// Close and KeepAlive are set if Connection has these words, and UpgradeAllowed if it has "upgrade".
	Close, KeepAlive, UpgradeAllowed bool
	// Nominated is set if Connection names other fields.
	Nominated bool
	// HasUpgrade is set if there is an Upgrade field.
	HasUpgrade bool
	// Waits is set if there is a ScaleToZeroWait field.
	Waits bool
}

// Has reports whether there is a field with that name, which must not be Other.
func (h *Head) Has(n Name) bool {
	_, ok := h.find(n)
	return ok
}

// Value returns the value of the first field with that name in b, the parsed buffer, or nil.
func (h *Head) Value(b []byte, n Name) []byte {
	f, ok := h.find(n)
	if !ok {
		return nil
	}
	return b[f.ValueStart:f.ValueEnd]
}

// Tokens calls yield with each element of the list that all fields with that name form together (RFC 9110, 5.3), until yield returns
// false.
func (h *Head) Tokens(b []byte, n Name, yield func([]byte) bool) {
	more := true
	for _, f := range h.Fields {
		if !more {
			return
		}
		if f.Name == n {
			Tokens(b[f.ValueStart:f.ValueEnd], func(t []byte) bool {
				more = yield(t)
				return more
			})
		}
	}
}

func (h *Head) find(n Name) (Field, bool) {
	for _, f := range h.Fields {
		if f.Name == n {
			return f, true
		}
	}
	return Field{}, false
}

// IsNominated reports whether Connection names the field f of b.
func (h *Head) IsNominated(b []byte, f Field) bool {
	found := false
	h.Tokens(b, Connection, func(token []byte) bool {
		found = sameFold(token, b[f.Start:f.NameEnd])
		return !found
	})
	return found
}

func sameFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && (lowered[a[i]] == 0 || lowered[a[i]] != lowered[b[i]]) {
			return false
		}
	}
	return true
}

// maxConnection is the maximum length of all Connection fields together: they are read again for each of the other fields. The text
// of ErrConnectionTooLong has the number too.
const maxConnection = 512

// parse reads everything after the first line, which ends at at. It returns the length of the head, or 0 if more bytes are needed.
func (h *Head) parse(b []byte, at int, answer bool) (int, error) {
	h.FirstLine = at
	at, err := h.parseFields(b, at, answer)
	if err != nil || at == 0 {
		return 0, err
	}
	if err := h.interpret(b, answer); err != nil {
		return 0, err
	}
	return at, nil
}

// parseFields reads fields from at to the empty line. It returns the position after that line, or 0 if more bytes are needed.
func (h *Head) parseFields(b []byte, at int, answer bool) (int, error) {
	h.Fields = h.Fields[:0]
	for {
		switch {
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at + 2, nil
		case at >= len(b), b[at] == '\r' && at+1 == len(b):
			return 0, nil
		}
		f, err := parseField(b, at, answer)
		if err != nil || f.End == 0 {
			return 0, err
		}
		h.Fields = append(h.Fields, f)
		at = int(f.End)
	}
}

// parseField reads the field that begins at at. Its End is 0 if more bytes are needed.
func parseField(b []byte, at int, answer bool) (Field, error) {
	start := at
	var name fieldName
	for at < len(b) && lowered[b[at]] != 0 {
		name.add(b[at])
		at++
	}
	if at == len(b) {
		return Field{}, nil
	}
	if b[at] != ':' || at == start {
		return Field{}, badName(b[start], at-start, b[at])
	}
	nameEnd := at
	at++
	for at < len(b) && isSpace(b[at]) {
		at++
	}
	end, err := lineEnd(b, at, answer)
	if err != nil || end == 0 {
		return Field{}, err
	}
	valueEnd := end - 2
	for valueEnd > at && isSpace(b[valueEnd-1]) {
		valueEnd--
	}
	return Field{
		Name: name.name(), Start: int32(start), NameEnd: int32(nameEnd), //nolint:gosec // a head is far below 2 GiB
		ValueStart: int32(at), ValueEnd: int32(valueEnd), End: int32(end), //nolint:gosec // so too
	}, nil
}

// badName says what is wrong with a field's name that is length bytes long and is followed by the byte last.
func badName(first byte, length int, last byte) MalformedError {
	switch {
	case length == 0 && isSpace(first):
		return ErrFoldedField
	case last == '\n', last == '\r':
		return ErrBadLineEnd
	default:
		return ErrBadFieldName
	}
}

// lineEnd returns the position after the CRLF that ends the text at at, or 0 if more bytes are needed. The text of an answer may have
// any control byte except NUL: apps write terminal escapes and worse there, and clients read them.
func lineEnd(b []byte, at int, answer bool) (int, error) {
	for {
		at = indexControl(b, at)
		switch {
		case at >= len(b), b[at] == '\r' && at+1 == len(b):
			return 0, nil
		case b[at] == '\t':
			at++
		case b[at] == '\r' && b[at+1] == '\n':
			return at + 2, nil
		case b[at] == '\r', b[at] == '\n':
			return 0, ErrBadLineEnd
		case answer && b[at] != 0:
			at++
		default:
			return 0, ErrBadFieldValue
		}
	}
}

// interpret reads the fields that say where the message ends and what happens to its connection. An answer may state its length twice
// if both are the same.
func (h *Head) interpret(b []byte, answer bool) error {
	h.Length, h.Chunked, h.Close, h.KeepAlive = -1, false, false, false
	h.UpgradeAllowed, h.Nominated, h.HasUpgrade, h.Waits = false, false, false, false
	encoded, options := false, 0
	for _, f := range h.Fields {
		value := b[f.ValueStart:f.ValueEnd]
		switch f.Name {
		case ContentLength:
			length := parseLength(value)
			if length < 0 {
				return ErrBadContentLength
			}
			if h.Length >= 0 && (!answer || h.Length != length) {
				return ErrRepeatedContentLength
			}
			h.Length = length
		case TransferEncoding:
			if encoded {
				return ErrRepeatedTransferEncoding
			}
			encoded = true
			if h.Chunked = EqualFold(value, "chunked"); !h.Chunked {
				return badEncoding(value)
			}
		case Connection:
			if options += len(value) + 1; options > maxConnection {
				return ErrConnectionTooLong
			}
			Tokens(value, h.connectionToken)
		case Upgrade:
			h.HasUpgrade = true
		case ScaleToZeroWait:
			h.Waits = true
		default:
		}
	}
	return nil
}

// badEncoding distinguishes a coding that we do not know from a value that is not a list of codings.
func badEncoding(value []byte) MalformedError {
	chunked, bad := 0, len(value) == 0
	Tokens(value, func(t []byte) bool {
		if EqualFold(t, "chunked") {
			chunked++
		}
		for _, c := range t {
			bad = bad || lowered[c] == 0
		}
		return true
	})
	if bad || chunked > 0 {
		return ErrBadTransferEncoding
	}
	return ErrUnknownTransferEncoding
}

func (h *Head) connectionToken(t []byte) bool {
	switch {
	case EqualFold(t, "close"):
		h.Close = true
	case EqualFold(t, "keep-alive"):
		h.KeepAlive = true
	case EqualFold(t, "upgrade"):
		h.UpgradeAllowed = true
	default:
		h.Nominated = true
	}
	return true
}

// parseLength returns the number in digits, or -1. Nobody has a body whose length needs more than eighteen digits.
func parseLength(digits []byte) int64 {
	if len(digits) == 0 || len(digits) > 18 {
		return -1
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
