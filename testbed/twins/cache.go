// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir is where a checkout keeps what is built: .cache/twins beside its go.mod, above the working directory.
func CacheDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache", "twins"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find the checkout: no go.mod in the working directory or above it")
		}
	}
}

// alone builds while no other process builds in the directory: what both want is then built once.
func alone(ctx context.Context, dir string, build func(context.Context, string) (Twin, error)) (Twin, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Twin{}, fmt.Errorf("build twins: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Twin{}, fmt.Errorf("build twins: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return Twin{}, fmt.Errorf("build twins: %w", err)
	}
	defer f.Close() // and with it the lock
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return build(ctx, dir)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return Twin{}, fmt.Errorf("build twins: lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return Twin{}, fmt.Errorf("build twins: wait for who builds in %s: %w", dir, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// cached makes a file below the directory unless it was made before from the same: what it is made from is in its name. It is
// written under another name first, so that who is killed leaves nothing that looks whole.
func cached(dir, name string, from []string, make func(path string) error) (string, error) {
	sum := sha256.New()
	for _, part := range from {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	path := filepath.Join(dir, name+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	work, err := os.MkdirTemp(dir, name+".")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, name)
	if err := make(made); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := os.Rename(made, path); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, nil
}
