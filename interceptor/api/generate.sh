#!/bin/sh
# Writes the Go stubs of the .proto files here anew. It needs protoc (Debian: protobuf-compiler) and builds
# the two plugins at the versions named here, so that everybody's output is the same.
set -eu

cd "$(dirname "$0")"
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
GOBIN=$plugins go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$plugins go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

for name in externalscaler peer reach; do
	mkdir -p "$name"
	PATH=$plugins:$PATH protoc --proto_path=. \
		--go_out="$name" --go_opt=paths=source_relative \
		--go-grpc_out="$name" --go-grpc_opt=paths=source_relative \
		"$name.proto"
	# The compiler's version is the machine's and would differ from one to the next.
	sed -i -E '/^\/\/ (- )?[\t ]*protoc +v[0-9.]+$/d' "$name"/*.pb.go
done
