// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// maxIndex bounds an index of containers/storage: a container takes 1 KB, an image 2.
const maxIndex = 64 << 20

// errNotStored means that an index has no such entry.
var errNotStored = errors.New("not in Podman's storage")

// graph is a directory of containers/storage: "/var/lib/containers/storage", with the driver that the names below it begin
// with.
type graph struct{ dir, driver string }

// graphDir takes Podman's bundle apart: GRAPHROOT/DRIVER-containers/ID/userdata.
func graphDir(bundle, id string) (graph, error) {
	rest, userdata := path.Split(bundle)
	containers, last := path.Split(path.Clean(rest))
	dir, name := path.Split(path.Clean(containers))
	driver, ok := strings.CutSuffix(name, "-containers")
	if userdata != "userdata" || last != id || !ok || driver == "" {
		return graph{}, fmt.Errorf("the bundle of container %s is not where Podman puts it", id)
	}
	return graph{dir: path.Clean(dir), driver: driver}, nil
}

// stored is an entry of containers.json.
type stored struct {
	ID       string   `json:"id"`
	Names    []string `json:"names"`
	Image    string   `json:"image"`
	Metadata string   `json:"metadata"` // JSON in a string
}

func (s stored) imageName() string {
	var metadata struct {
		ImageName string `json:"image-name"`
	}
	if json.Unmarshal([]byte(s.Metadata), &metadata) != nil || metadata.ImageName == "" {
		return s.Image
	}
	return metadata.ImageName
}

// storedContainer looks into the index, and into the one of containers that need not survive a reboot, which newer versions
// of containers/storage keep apart (`podman run --rm`).
func storedContainer(g graph, id string) (stored, error) {
	for _, name := range []string{"containers.json", "volatile-containers.json"} {
		found, err := lookUp(g, g.driver+"-containers/"+name, func(s stored) bool { return s.ID == id })
		if err == nil || !errors.Is(err, errNotStored) {
			return found, err
		}
	}
	return stored{}, fmt.Errorf("look up container %s: %w", id, errNotStored)
}

// storedDigest is the digest of the image's manifest, as `podman inspect` tells it; the id of its configuration when the
// index has none. It is empty for an empty id.
func storedDigest(g graph, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	type image struct{ ID, Digest string }
	found, err := lookUp(g, g.driver+"-images/images.json", func(i image) bool { return i.ID == id })
	if err != nil && !errors.Is(err, errNotStored) { // not there: it is in an additional, read-only store
		return "", err
	}
	if found.Digest == "" {
		return "sha256:" + id, nil
	}
	return found.Digest, nil
}

// lookUp reads an index up to the entry that is wanted. Podman replaces these files by renaming, so half-written ones are
// not seen. No index means no entry.
func lookUp[T any](g graph, name string, wanted func(T) bool) (found T, err error) {
	f, err := openUnder(g.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return found, fmt.Errorf("look into %s: %w", name, errNotStored)
	}
	if err != nil {
		return found, fmt.Errorf("look into Podman's storage: %w", err)
	}
	defer f.Close()
	found, err = scan(io.LimitReader(f, maxIndex), wanted)
	if err != nil {
		return found, fmt.Errorf("look into %s: %w", f.Name(), err)
	}
	return found, nil
}

// scan decodes a JSON array one entry at a time.
func scan[T any](r io.Reader, wanted func(T) bool) (found T, err error) {
	decoder := json.NewDecoder(r)
	opening, err := decoder.Token()
	if err != nil {
		return found, err
	}
	if opening != json.Delim('[') {
		return found, errors.New("not a JSON array")
	}
	for decoder.More() {
		var entry T
		if err := decoder.Decode(&entry); err != nil {
			return found, err
		}
		if wanted(entry) {
			return entry, nil
		}
	}
	return found, errNotStored
}
