// SPDX-License-Identifier: Apache-2.0

// Package image writes container images without an engine and without a registry: one tar that is an OCI image layout and a
// `docker save` archive at the same time, so that Podman, Docker and containerd load it unchanged. The same files
// give the same bytes. It reads no images.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config of an image.
type Config struct {
	Name         string // with a tag: "localhost/redis:7"
	Architecture string // of Go: "amd64"; empty means this machine's
	v1.ImageConfig
}

// epoch is the time of every file: an image depends on its contents only.
var epoch = time.Unix(0, 0).UTC()

// Write an image with one layer.
func Write(w io.Writer, config Config, files []File) error {
	if !strings.Contains(config.Name, ":") {
		return fmt.Errorf("write image: the name %q has no tag", config.Name)
	}
	layer, err := layerOf(files)
	if err != nil {
		return fmt.Errorf("write image %s: %w", config.Name, err)
	}
	blobs, err := assemble(config, layer)
	if err != nil {
		return fmt.Errorf("write image %s: %w", config.Name, err)
	}
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(blobs)) {
		header := &tar.Header{
			Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(blobs[name])), ModTime: epoch, Format: tar.FormatPAX,
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write image %s: %w", config.Name, err)
		}
		if _, err := out.Write(blobs[name]); err != nil {
			return fmt.Errorf("write image %s: %w", config.Name, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write image %s: %w", config.Name, err)
	}
	return nil
}

// assemble makes every file of the archive, by name. The layer is not compressed: its digest is its diff id then, and the
// archive is read once and thrown away.
func assemble(config Config, layer []byte) (map[string][]byte, error) {
	arch := config.Architecture
	if arch == "" {
		arch = runtime.GOARCH
	}
	blobs := make(map[string][]byte)
	layerDescriptor := addBlob(blobs, v1.MediaTypeImageLayer, layer)
	configDescriptor, err := addJSON(blobs, v1.MediaTypeImageConfig, v1.Image{
		Created:  &epoch,
		Platform: v1.Platform{Architecture: arch, OS: "linux"},
		Config:   config.ImageConfig,
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDescriptor.Digest}},
		History:  []v1.History{{Created: &epoch, CreatedBy: "whittle testbed"}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := addJSON(blobs, v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    configDescriptor,
		Layers:    []v1.Descriptor{layerDescriptor},
	})
	if err != nil {
		return nil, err
	}
	manifest.Annotations = map[string]string{
		v1.AnnotationRefName:       config.Name, // read by Podman
		"io.containerd.image.name": config.Name,
	}
	return blobs, addIndexes(blobs, config.Name, manifest, configDescriptor, layerDescriptor)
}

// addIndexes adds the entry points of both formats.
func addIndexes(blobs map[string][]byte, name string, manifest, config, layer v1.Descriptor) error {
	type saved struct { // of `docker save`
		Config   string
		RepoTags []string
		Layers   []string
	}
	for file, value := range map[string]any{
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
		v1.ImageIndexFile: v1.Index{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: v1.MediaTypeImageIndex,
			Manifests: []v1.Descriptor{manifest},
		},
		"manifest.json": []saved{{
			Config: blobName(config.Digest), RepoTags: []string{name}, Layers: []string{blobName(layer.Digest)},
		}},
	} {
		text, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
		blobs[file] = text
	}
	return nil
}

func addJSON(blobs map[string][]byte, mediaType string, v any) (v1.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("write %s: %w", mediaType, err)
	}
	return addBlob(blobs, mediaType, text), nil
}

func addBlob(blobs map[string][]byte, mediaType string, data []byte) v1.Descriptor {
	sum := sha256.Sum256(data)
	d := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
	blobs[blobName(d)] = data
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func blobName(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// layerOf writes the files sorted by path, parents first.
func layerOf(files []File) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for i, f := range files {
		if i > 0 && files[i-1].Path == f.Path {
			return nil, fmt.Errorf("%s is there twice", f.Path)
		}
		if err := f.write(out); err != nil {
			return nil, err
		}
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
