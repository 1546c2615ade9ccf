// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// WrapperPrefix begins the names under which whittle is an OCI runtime: whittle-runc, whittle-crun. Engines take the path of a
// runtime, and no arguments with it.
const WrapperPrefix = "whittle-"

// WrapperConfig lies beside the name under which whittle is called as a runtime, with ".json" at its end.
type WrapperConfig struct {
	Runtime string `json:"runtime"` // absolute path of the runtime that does the work
	Socket  string `json:"socket"`  // of the agent
}

const maxWrapperConfig = 64 << 10

// ReadWrapperConfig for the name that whittle was called by. Without a file the runtime is the one that the name tells, and
// the socket is empty: the default.
func ReadWrapperConfig(called string) (WrapperConfig, error) {
	name := filepath.Base(called)
	var c WrapperConfig
	if filepath.IsAbs(called) {
		data, err := readUnder(filepath.Dir(called), name+".json", maxWrapperConfig)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return c, fmt.Errorf("read the wrapper's configuration: %w", err)
		}
		if err == nil {
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&c); err != nil {
				return c, fmt.Errorf("read the wrapper's configuration %s.json: %w", called, err)
			}
		}
	}
	if c.Runtime == "" {
		c.Runtime = strings.TrimPrefix(name, WrapperPrefix)
	}
	found, err := RealRuntime(c.Runtime)
	c.Runtime = found
	return c, err
}

// RealRuntime is the path of the runtime to execute: never this program itself, under whatever name.
func RealRuntime(said string) (string, error) {
	if said == "" {
		return "", errors.New("no runtime is named")
	}
	r := engine.ResolveRuntime(said)
	if r.Path == "" {
		return "", hint.Add(fmt.Errorf("there is no OCI runtime %s", said), "install it, or run `whittle install` again")
	}
	if sameFile(r.Path, "/proc/self/exe") {
		return "", hint.Add(fmt.Errorf("the OCI runtime %s is whittle itself", said), "name runc or crun: `whittle install` does")
	}
	// Not the resolved path: runc and busybox-like programs may look at the name that they were called by.
	if filepath.IsAbs(said) {
		return said, nil
	}
	return r.Path, nil
}

// loopVar holds the pid of a wrapper that has executed its runtime. A process that finds its own in there was executed by
// itself, through a script that calls the wrapper again.
const loopVar = "WHITTLE_RUNTIME_PID"

// NoteExec returns the environment for the runtime, or an error when this process was there before.
func NoteExec(environ []string) ([]string, error) {
	mine := fmt.Sprintf("%s=%d", loopVar, os.Getpid())
	out := make([]string, 0, len(environ)+1)
	for _, v := range environ {
		if v == mine {
			return nil, errors.New("the OCI runtime calls whittle again")
		}
		if !strings.HasPrefix(v, loopVar+"=") {
			out = append(out, v)
		}
	}
	return append(out, mine), nil
}
