// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine"
)

// ParentRuntime is the OCI runtime that started this hook, and the "sha256:…" of the executable that it runs.
func ParentRuntime() (engine.Runtime, string, error) { return runtimeOf(os.Getppid()) }

func runtimeOf(pid int) (engine.Runtime, string, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	// crun, and runc from 1.2 on, run a sealed copy of themselves (CVE-2019-5736), whose link leads nowhere. It has the
	// same contents, so it has the same digest as the file.
	said := firstArg(proc + "/cmdline")
	if link, err := os.Readlink(proc + "/exe"); err == nil && sameFile(link, proc+"/exe") {
		said = link
	}
	runtime := engine.ResolveRuntime(said)
	digest, err := hashed(digests, runtime.Path, proc+"/exe")
	if err != nil {
		return engine.Runtime{}, "", err
	}
	return runtime, digest, nil
}

func firstArg(cmdline string) string {
	f, err := os.Open(cmdline)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	arg, _, _ := strings.Cut(string(data), "\x00")
	if !filepath.IsAbs(arg) {
		return filepath.Base(arg)
	}
	return arg
}

func sameFile(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}
