// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "net/http"

// Malformed says what is wrong with a message. It is an error, and a byte in size, so that returning it costs nothing.
type Malformed uint8

// What can be wrong.
const (
	_ Malformed = iota
	BadStartLine
	ManyEmptyLines
	BadMethod
	BadTarget
	ConnectMethod
	BadVersion
	BadStatus
	BadFieldName
	BadFieldValue
	BadLineEnd
	FoldedField
	MissingHost
	RepeatedHost
	BadHost
	BadContentLength
	RepeatedContentLength
	RepeatedTransferEncoding
	BadTransferEncoding
	UnknownTransferEncoding
	LengthAndEncoding
	EncodingInHTTP10
	HeadTooLarge
	ConnectionTooLong
	BadChunkSize
	BadChunkLine
	BadChunkEnd
	ChunkLineTooLong
	TrailerTooLarge
	BadTrailer
)

// Error implements error. It never looks like the beginning of an answer, since it is sent to whom an answer within an
// answer could be of use.
func (m Malformed) Error() string {
	texts := [...]string{
		BadStartLine:   "the first line is not a method, a target and a version with one space between each",
		ManyEmptyLines: "more than four empty lines come before the first line",
		BadMethod:      "the method is not a token",
		BadTarget: "the request target is neither a path, nor *, nor an absolute http URL, " +
			"or has bytes that are not allowed in one",
		ConnectMethod:            "CONNECT asks for a tunnel, which only a port of protocol tcp passes on",
		BadVersion:               "the version is neither 1.1 nor 1.0",
		BadStatus:                "the status is not a number of three digits",
		BadFieldName:             "a header field's name is not a token with a colon right behind it",
		BadFieldValue:            "a header field's value has a control character",
		BadLineEnd:               "a line does not end in CR and LF",
		FoldedField:              "a header field goes on in a second line",
		MissingHost:              "the Host field is missing",
		RepeatedHost:             "there are several Host fields",
		BadHost:                  "the Host field is not a host",
		BadContentLength:         "Content-Length is not a number of bytes",
		RepeatedContentLength:    "there are several Content-Length fields",
		RepeatedTransferEncoding: "there are several Transfer-Encoding fields",
		BadTransferEncoding:      "Transfer-Encoding is no list of codings, or has chunked and something else",
		UnknownTransferEncoding:  "Transfer-Encoding is a coding other than chunked",
		LengthAndEncoding:        "there are both Content-Length and Transfer-Encoding",
		EncodingInHTTP10:         "version 1.0 has no Transfer-Encoding",
		HeadTooLarge:             "the header is too large",
		ConnectionTooLong:        "the Connection field is longer than 512 bytes",
		BadChunkSize:             "the size of a chunk is not a hexadecimal number",
		BadChunkLine:             "the line with a chunk's size has bytes that are not allowed in it",
		BadChunkEnd:              "a chunk's data does not end in CR and LF where its size says",
		ChunkLineTooLong:         "the line with a chunk's size is too long",
		TrailerTooLarge:          "the trailer is too large",
		BadTrailer:               "the trailer has a field that belongs into the header",
	}
	if int(m) < len(texts) && texts[m] != "" {
		return texts[m]
	}
	return "the message is malformed"
}

// Status is what a client that sent such a request is answered.
func (m Malformed) Status() int {
	switch m {
	case BadVersion:
		return http.StatusHTTPVersionNotSupported
	case UnknownTransferEncoding, ConnectMethod:
		return http.StatusNotImplemented
	case HeadTooLarge, ConnectionTooLong, TrailerTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	default:
		return http.StatusBadRequest
	}
}
