// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const imageUser = 65532 // the user nonroot of distroless images; a number, so that runAsNonRoot can be checked

// An imageSpec is an image that holds one static binary.
type imageSpec struct {
	name   string
	binary string   // path on this machine
	dest   string   // path in the image
	args   []string // the command's first arguments; the pod's follow
}

// parseImageSpec understands BINARY or BINARY:/dest.
func parseImageSpec(image, binary string, args []string) (imageSpec, error) {
	spec := imageSpec{name: image, binary: binary, args: args}
	if i := strings.LastIndex(binary, ":"); i >= 0 {
		spec.binary, spec.dest = binary[:i], binary[i+1:]
		if !path.IsAbs(spec.dest) || path.Clean(spec.dest) != spec.dest || spec.dest == "/" {
			return spec, fmt.Errorf("image: %q is not a path in an image: use /name or /folder/name", spec.dest)
		}
	} else {
		spec.dest = "/" + filepath.Base(binary)
	}
	if _, err := name.NewTag(image, name.WeakValidation); err != nil {
		return spec, fmt.Errorf("image: %w", err)
	}
	return spec, nil
}

// writeImage writes the image as a tarball that `docker load`, `ctr images import` and our own `load` understand. The
// same binary gives the same bytes.
func writeImage(spec imageSpec, out string) error {
	tag, err := name.NewTag(spec.name, name.WeakValidation)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(spec.binary)
	if err != nil {
		return fmt.Errorf("reading the binary: %w", err)
	}
	if err := checkStatic(content); err != nil {
		return fmt.Errorf("image: %s: %w", spec.binary, err)
	}
	layer, err := writeLayer(spec.dest, content)
	if err != nil {
		return err
	}
	img, err := buildImage(spec, layer)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // already renamed if all went well
	if err := tarball.Write(tag, img, f); err != nil {
		f.Close()
		return fmt.Errorf("writing %s: %w", out, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

// checkStatic refuses a binary that needs a loader. In a container without the loader, the error would claim that the
// binary does not exist.
func checkStatic(binary []byte) error {
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return errors.New("it is not a program for Linux: build it with GOOS=linux")
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it needs libraries that the image does not have: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

func buildImage(spec imageSpec, layer []byte) (v1.Image, error) {
	// not compressed: it stays on this machine, where gzip would only cost time, twice
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		return nil, fmt.Errorf("building the image: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", imageUser, imageUser), WorkingDir: "/", Env: []string{"PATH=/", "HOME=/tmp"},
		Entrypoint: append([]string{spec.dest}, spec.args...),
	}
	return mutate.ConfigFile(img, file)
}

// writeLayer writes the whole file system: the binary, a writable folder, and the files in which libraries look up the
// current user. It leaves out CA certificates, because nothing in the cluster has one that they could verify.
func writeLayer(dest string, binary []byte) ([]byte, error) {
	users := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/tmp:/sbin/nologin\n", imageUser, imageUser)
	groups := fmt.Sprintf("root:x:0:\nnonroot:x:%d:\n", imageUser)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"/": true}
	for _, entry := range []struct {
		path    string
		mode    int64
		content []byte // nil means a folder
	}{
		{"/tmp", 0o1777, nil},
		{"/etc/passwd", 0o644, []byte(users)},
		{"/etc/group", 0o644, []byte(groups)},
		{dest, 0o755, binary},
	} {
		if err := writeParents(w, entry.path, made); err != nil {
			return nil, err
		}
		if err := writeEntry(w, entry.path, entry.mode, entry.content); err != nil {
			return nil, err
		}
		made[entry.path] = true
	}
	return out.Bytes(), w.Close()
}

func writeParents(w *tar.Writer, file string, made map[string]bool) error {
	dir := path.Dir(file)
	if made[dir] {
		return nil
	}
	if err := writeParents(w, dir, made); err != nil {
		return err
	}
	made[dir] = true
	return writeEntry(w, dir, 0o755, nil)
}

func writeEntry(w *tar.Writer, file string, mode int64, content []byte) error {
	header := &tar.Header{
		Name: strings.TrimPrefix(file, "/"), Mode: mode, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: int64(len(content)),
	}
	if content == nil {
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
