// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "net/http"

// MalformedError says what is wrong with a message. It is an error of one byte, so returning it costs nothing.
type MalformedError uint8

// What can be wrong with a message.
const (
	_ MalformedError = iota
	ErrBadStartLine
	ErrManyEmptyLines
	ErrLateLine
	ErrBadMethod
	ErrBadTarget
	ErrConnectMethod
	ErrBadVersion
	ErrBadStatus
	ErrBadFieldName
	ErrBadFieldValue
	ErrBadLineEnd
	ErrFoldedField
	ErrMissingHost
	ErrRepeatedHost
	ErrBadHost
	ErrBadContentLength
	ErrRepeatedContentLength
	ErrRepeatedTransferEncoding
	ErrBadTransferEncoding
	ErrUnknownTransferEncoding
	ErrLengthAndEncoding
	ErrEncodingInHTTP10
	ErrHeadTooLarge
	ErrConnectionTooLong
	ErrBadChunkSize
	ErrBadChunkLine
	ErrBadChunkEnd
	ErrChunkLineTooLong
	ErrTrailerTooLarge
	ErrBadTrailer
)

// Error implements error. The text never looks like the beginning of an answer, because it may be sent to an attacker who could use
// an answer within an answer.
func (m MalformedError) Error() string {
	texts := [...]string{
		ErrBadStartLine:   "the first line is not a method, a target and a version with one space between each",
		ErrLateLine:       "the first line came in pieces, and is no request's or took longer than two seconds",
		ErrManyEmptyLines: "more than four empty lines come before the first line",
		ErrBadMethod:      "the method is not a token",
		ErrBadTarget: "the request target is neither a path, nor *, nor an absolute http URL, " +
			"or has bytes that are not allowed in one",
		ErrConnectMethod:            "CONNECT asks for a tunnel, which only a port of protocol tcp passes on",
		ErrBadVersion:               "the version is neither 1.1 nor 1.0",
		ErrBadStatus:                "the status is not a number of three digits",
		ErrBadFieldName:             "a header field's name is not a token with a colon right after it",
		ErrBadFieldValue:            "a header field's value has a control character",
		ErrBadLineEnd:               "a line does not end in CR and LF",
		ErrFoldedField:              "a header field continues on a second line",
		ErrMissingHost:              "the Host field is missing",
		ErrRepeatedHost:             "there are several Host fields",
		ErrBadHost:                  "the Host field is not a host",
		ErrBadContentLength:         "Content-Length is not a number of bytes",
		ErrRepeatedContentLength:    "there are several Content-Length fields",
		ErrRepeatedTransferEncoding: "there are several Transfer-Encoding fields",
		ErrBadTransferEncoding:      "Transfer-Encoding is not a list of codings, or has chunked and something else",
		ErrUnknownTransferEncoding:  "Transfer-Encoding is a coding other than chunked",
		ErrLengthAndEncoding:        "there are both Content-Length and Transfer-Encoding",
		ErrEncodingInHTTP10:         "version 1.0 has no Transfer-Encoding",
		ErrHeadTooLarge:             "the header is too large",
		ErrConnectionTooLong:        "the Connection field is longer than 512 bytes",
		ErrBadChunkSize:             "the size of a chunk is not a hexadecimal number",
		ErrBadChunkLine:             "the line with a chunk's size has bytes that are not allowed in it",
		ErrBadChunkEnd:              "a chunk's data does not end in CR and LF where its size says",
		ErrChunkLineTooLong:         "the line with a chunk's size is too long",
		ErrTrailerTooLarge:          "the trailer is too large",
		ErrBadTrailer:               "the trailer has a field that belongs in the header",
	}
	if int(m) < len(texts) && texts[m] != "" {
		return texts[m]
	}
	return "the message is malformed"
}

// Status returns the status of the answer to a client that sent such a request.
func (m MalformedError) Status() int {
	switch m {
	case ErrBadVersion:
		return http.StatusHTTPVersionNotSupported
	case ErrUnknownTransferEncoding, ErrConnectMethod:
		return http.StatusNotImplemented
	case ErrHeadTooLarge, ErrConnectionTooLong, ErrTrailerTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	default:
		return http.StatusBadRequest
	}
}
