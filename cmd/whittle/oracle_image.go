// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/oracle"
)

const (
	podmanTime   = time.Minute
	maxPodmanOut = 4 << 20
)

// imageFacts of an executable, a running container or an image, whichever it is.
func imageFacts(ctx context.Context, name string, m *makers) (oracle.ImageFacts, error) {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") {
		abs, err := filepath.Abs(name)
		if err != nil {
			return oracle.ImageFacts{}, err
		}
		if _, err := os.Stat(abs); err != nil {
			return oracle.ImageFacts{}, fmt.Errorf("read the executable: %w", err)
		}
		return factsBelow("/", started{argv: []string{abs}, path: os.Getenv("PATH")})
	}
	if name == "" || strings.HasPrefix(name, "-") {
		return oracle.ImageFacts{}, usageError{fmt.Errorf("%q is no name of an image", oneLine(name))}
	}
	maker, done, err := m.of(ctx, name)
	if err == nil {
		defer done()
		return containerFacts(ctx, maker, name)
	}
	facts, imageErr := podmanImageFacts(ctx, name)
	if imageErr == nil {
		return facts, nil
	}
	return facts, hint.Add(fmt.Errorf("find %q: as a container: %w; as an image: %w", oneLine(name), err, imageErr),
		"of an image of Docker start a container and name that, or name an executable of this host by its path")
}

func factsBelow(dir string, s started) (oracle.ImageFacts, error) {
	root, err := openRoot(dir)
	if err != nil {
		return oracle.ImageFacts{}, err
	}
	defer root.Close()
	return root.facts(s)
}

// containerFacts of one that runs: its root is that of its first process.
func containerFacts(ctx context.Context, e engine.Engine, name string) (oracle.ImageFacts, error) {
	c, err := e.Inspect(ctx, name)
	if err != nil {
		return oracle.ImageFacts{}, err
	}
	if c.PID == 0 {
		return oracle.ImageFacts{}, hint.Add(fmt.Errorf("container %s does not run", oneLine(c.Name)), "start it, or name its image")
	}
	proc := "/proc/" + strconv.Itoa(c.PID)
	s := started{argv: c.Workload.Command}
	if environ, err := os.ReadFile(proc + "/environ"); err == nil {
		for v := range bytes.SplitSeq(environ[:min(len(environ), maxPodmanOut)], []byte{0}) {
			if text, ok := bytes.CutPrefix(v, []byte("PATH=")); ok {
				s.path = string(text)
			}
		}
	}
	return factsBelow(proc+"/root", s)
}

// podmanImageFacts mounts the image read-only, as Podman does, and unmounts it.
func podmanImageFacts(ctx context.Context, name string) (facts oracle.ImageFacts, err error) {
	ctx, cancel := context.WithTimeout(ctx, podmanTime)
	defer cancel()
	text, err := runPodman(ctx, "image", "inspect", "--format", "json", "--", name)
	if err != nil {
		return facts, err
	}
	var images []struct {
		ID     string `json:"Id"`
		Config struct {
			Entrypoint, Cmd, Env []string
			WorkingDir           string
		}
	}
	if err := json.Unmarshal(text, &images); err != nil || len(images) != 1 {
		return facts, fmt.Errorf("read what podman says of %s: %d images, %w", oneLine(name), len(images), errors.Join(err))
	}
	image := images[0]
	s := started{argv: append(image.Config.Entrypoint, image.Config.Cmd...), dir: image.Config.WorkingDir}
	for _, v := range image.Config.Env {
		if text, ok := strings.CutPrefix(v, "PATH="); ok {
			s.path = text
		}
	}
	dir, err := runPodman(ctx, "image", "mount", "--", image.ID)
	if err != nil {
		return facts, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), podmanTime)
		defer cancel()
		_, unmount := runPodman(ctx, "image", "unmount", "--", image.ID)
		err = errors.Join(err, unmount)
	}()
	return factsBelow(strings.TrimSpace(string(dir)), s)
}

// runPodman on this host, to its end.
func runPodman(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "podman", args...)
	cmd.WaitDelay = time.Second
	var out, talk limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("podman is not installed")
	}
	if err != nil {
		return nil, fmt.Errorf("podman %s: %w: %s", strings.Join(args[:2], " "), err, oneLine(strings.TrimSpace(talk.String())))
	}
	if out.cut {
		return nil, fmt.Errorf("podman %s: %w", strings.Join(args[:2], " "), io.ErrShortBuffer)
	}
	return out.Bytes(), nil
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct {
	bytes.Buffer
	cut bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	keep := p[:min(len(p), max(0, maxPodmanOut-b.Len()))]
	b.cut = b.cut || len(keep) < len(p)
	b.Buffer.Write(keep)
	return len(p), nil
}
