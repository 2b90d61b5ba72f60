# The image of scale-to-zero: one static binary. For several platforms at once:
#
#     docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v1.2.3 -t registry.example.com/scale-to-zero:v1.2.3 --push .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /scale-to-zero .
# The licences of the linked modules, each in a folder named after its module.
RUN mkdir /licenses && cp LICENSE NOTICE /licenses && modules=$(go env GOMODCACHE) && \
    go list -deps -f '{{with .Module}}{{if not .Main}}{{.Dir}}{{end}}{{end}}' . | sort -u | while read -r dir; do \
        to=/licenses/${dir#"$modules"/} && mkdir -p "$to" && \
        find "$dir" -maxdepth 1 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' \) -exec cp {} "$to" \; ; \
    done

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /licenses /licenses
COPY --from=build /scale-to-zero /scale-to-zero
USER 65532:65532
ENTRYPOINT ["/scale-to-zero"]
