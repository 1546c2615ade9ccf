// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"errors"
	"os"
	"path/filepath"
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
