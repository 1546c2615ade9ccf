// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/jsonedit"
)

// Call is a command line of an OCI runtime, as far as it matters to a wrapper around one.
type Call struct {
	Command string // "create", "run", "state" …
	ID      string
	Bundle  string // as it was given; "" is the working directory
	// Log and LogFormat are where and how the runtime writes what it has to say.
	Log, LogFormat string
}

// Creates tells whether the call makes a container.
func (c Call) Creates() bool { return (c.Command == "create" || c.Command == "run") && c.ID != "" }

// valued are the flags of runc 1.1–1.5 and crun 1.8–1.20 that take a value, without their dashes. An unknown flag is taken for
// one without: at worst the call is not understood and goes through as it is.
var valued = []string{
	"root", "log", "log-format", "criu", "rootless", "cgroup-manager",
	"bundle", "b", "console-socket", "pid-file", "pidfd-socket", "preserve-fds", "config", "f",
}

// ParseCall understands a runtime's arguments, without its name.
func ParseCall(args []string) Call {
	var c Call
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			switch {
			case c.Command == "":
				c.Command = arg
			case c.ID == "":
				c.ID = arg
			}
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !given && slices.Contains(valued, name) && i+1 < len(args) {
			i++
			value = args[i]
		}
		switch name {
		case "log":
			c.Log = value
		case "log-format":
			c.LogFormat = value
		case "bundle", "b":
			c.Bundle = value
		case "config", "f": // crun's other name for config.json, which no engine uses: not understood
			return Call{}
		}
	}
	return c
}

// Wrapper changes bundles before a runtime reads them.
type Wrapper struct {
	// Whittle is this executable, and Socket the agent's: what the hooks are told.
	Whittle, Socket string
	// Runtime is the path of the one that does the work.
	Runtime string
	Prepare Prepare
}

// ErrNoAgent is returned by a Prepare, wrapped, when there is nobody to ask: the bundle is left as it is.
var ErrNoAgent = errors.New("no agent runs")

// Rewrite a bundle for a Call that creates a container: its seccomp section becomes what the agent wants, and hooks tell the
// agent of the container's beginning and end, for engines that cannot be told to call hooks. After an error the
// bundle is as it was. It returns within HookTime.
func (w Wrapper) Rewrite(ctx context.Context, c Call) error {
	ctx, cancel := context.WithTimeout(ctx, HookTime)
	defer cancel()
	bundle, err := filepath.Abs(c.Bundle)
	if err != nil {
		return fmt.Errorf("find the bundle: %w", err)
	}
	old, err := readUnder(bundle, "config.json", maxSpec)
	if err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	asked := false
	config, err := prepared(ctx, old, c.ID, func(ctx context.Context, d Draft) (json.RawMessage, error) {
		asked, d.Runtime = true, engine.ResolveRuntime(w.Runtime)
		return w.Prepare(ctx, d)
	})
	switch {
	case errors.Is(err, ErrNoAgent):
		return nil
	case err != nil:
		return err
	case !asked: // it wants to be left alone
		return nil
	}
	if config, err = w.withHooks(config); err != nil {
		return err
	}
	return replace(bundle, "config.json", config)
}

// withHooks adds the hooks that are not there. Podman may have added them from its directory of hooks.
func (w Wrapper) withHooks(config []byte) ([]byte, error) {
	for _, stage := range []string{CreateRuntime, Poststop} {
		present, err := jsonedit.Get(config, "hooks", stage)
		if err != nil {
			return nil, fmt.Errorf("add a hook: %w", err)
		}
		var hooks []json.RawMessage
		if present != nil {
			if err := json.Unmarshal(present, &hooks); err != nil {
				return nil, fmt.Errorf("add a hook: %w", err)
			}
		}
		if slices.ContainsFunc(hooks, ours) {
			continue
		}
		timeout := hookTimeout
		hook, err := json.Marshal(specs.Hook{
			Path: w.Whittle, Args: []string{"whittle", "hook", stage, "--socket", w.Socket}, Timeout: &timeout,
		})
		if err != nil {
			return nil, fmt.Errorf("add a hook: %w", err)
		}
		list, err := json.Marshal(append(hooks, hook))
		if err != nil {
			return nil, fmt.Errorf("add a hook: %w", err)
		}
		if config, err = jsonedit.Set(config, list, "hooks", stage); err != nil {
			return nil, fmt.Errorf("add a hook: %w", err)
		}
	}
	return config, nil
}

func ours(hook json.RawMessage) bool {
	var h specs.Hook
	return json.Unmarshal(hook, &h) == nil && len(h.Args) > 1 && path.Base(h.Args[0]) == "whittle" && h.Args[1] == "hook"
}

// replace a file that openUnder would open by one with the same owner and permissions, so that a reader sees the old or the new
// one.
func replace(dir, name string, data []byte) (err error) {
	old, err := openUnder(dir, name)
	if err != nil {
		return err
	}
	defer old.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return fmt.Errorf("replace %s: %w", old.Name(), err)
	}
	f, err := os.CreateTemp(dir, "."+name+"-whittle-*")
	if err != nil {
		return fmt.Errorf("replace %s: %w", old.Name(), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("replace %s: %w", old.Name(), err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = f.Chmod(fs.FileMode(st.Mode).Perm())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), old.Name())
}
