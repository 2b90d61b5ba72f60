// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package answers

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const grpcType = "application/grpc"

// Write sends a as the answer by HTTP/2.
func Write(w http.ResponseWriter, a Answer) {
	h := w.Header()
	for _, f := range a.all() {
		h.Set(f.Name, f.Value)
	}
	w.WriteHeader(a.Status)
	if a.Text != "" {
		_, _ = io.WriteString(w, a.Text+"\n") // it fails only if the client has gone
	}
}

// WriteTo sends a, the answer to err, over HTTP/2 to the client of the request asked. A gRPC client gets a gRPC answer, because it
// would take any other answer for an unknown failure.
func WriteTo(w http.ResponseWriter, asked *http.Request, a Answer, err error) {
	switch {
	case !strings.HasPrefix(asked.Header.Get("Content-Type"), grpcType):
		Write(w, a)
	case a.Status == http.StatusOK && asked.URL.Path == route.HealthCheck:
		writeHealthy(w)
	default:
		writeGRPC(w, a, err)
	}
}

func writeGRPC(w http.ResponseWriter, a Answer, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	for _, f := range a.Fields {
		h.Set(f.Name, f.Value)
	}
	h.Set("Content-Type", grpcType)
	h.Set("Grpc-Status", strconv.Itoa(int(grpcCode(err, a))))
	h.Set("Grpc-Message", strings.TrimPrefix(a.Text, "# "))
	w.WriteHeader(http.StatusOK)
}

// writeHealthy answers gRPC's health check for a sleeping app with "serving", just as a plain probe gets 200. A load balancer that
// considered the app broken would send it no request that wakes it.
func writeHealthy(w http.ResponseWriter) {
	message, err := proto.Marshal(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING})
	if err != nil {
		panic(err) // it cannot fail: the only field is valid
	}
	h := w.Header()
	h.Set("Content-Type", grpcType)
	h.Set("Trailer", "Grpc-Status")
	w.WriteHeader(http.StatusOK)
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) //nolint:gosec // two bytes
	_, _ = w.Write(append(frame, message...))
	h.Set("Grpc-Status", "0")
}

// EndGRPC ends the answer to a gRPC call that the app has broken off with err. The call gets the status that its client would have
// seen without us. EndGRPC returns false if the answer with the header answered does not belong to a gRPC call.
func EndGRPC(w http.ResponseWriter, answered http.Header, err error) bool {
	if !isGRPC(answered) {
		return false
	}
	h := w.Header()
	h[http.TrailerPrefix+"Grpc-Status"] = []string{strconv.Itoa(int(grpcCode(err, For(err))))}
	h[http.TrailerPrefix+"Grpc-Message"] = []string{"scale-to-zero: the app's pod broke off its answer."}
	return true
}

// isGRPC reports whether header belongs to a gRPC call. A gRPC-Web call is none, because it has its trailers in the body.
func isGRPC(header http.Header) bool {
	rest, ok := strings.CutPrefix(header.Get("Content-Type"), grpcType)
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcCode returns the status of a call that could not be forwarded, from err and the answer to it. Calls that the app itself has
// given up do not get Unavailable, because that invites the client to try again.
func grpcCode(err error, a Answer) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	if stream, ok := errors.AsType[xhttp2.StreamError](err); ok {
		return resetCode(stream.Code)
	}
	if a.Status == ClientGone {
		return codes.Canceled
	}
	return codes.Unavailable
}

// resetCode returns the status that a gRPC client derives from a reset of its stream, by gRPC's own table.
func resetCode(reset xhttp2.ErrCode) codes.Code {
	switch reset {
	case xhttp2.ErrCodeCancel:
		return codes.Canceled
	case xhttp2.ErrCodeRefusedStream:
		return codes.Unavailable
	case xhttp2.ErrCodeEnhanceYourCalm:
		return codes.ResourceExhausted
	case xhttp2.ErrCodeInadequateSecurity:
		return codes.PermissionDenied
	default:
		return codes.Internal
	}
}
