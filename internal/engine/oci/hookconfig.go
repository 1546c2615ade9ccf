// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"fmt"
)

// hookTimeout is when the runtime kills the hook and refuses the container, in seconds. The hook's own limit (HookTime) is far
// below.
const hookTimeout = 10

// hookConfig is the format of oci-hooks(5).
type hookConfig struct {
	Version string `json:"version"`
	Hook    struct {
		Path    string   `json:"path"`
		Args    []string `json:"args"`
		Timeout int      `json:"timeout"`
	} `json:"hook"`
	When struct {
		Always bool `json:"always"`
	} `json:"when"`
	Stages []string `json:"stages"`
}

// HookConfig makes the files, by name, of a directory for `podman --hooks-dir`: a hook is called with the same arguments at each
// of its stages, so each stage has a file of its own. whittle is the absolute path of the executable, which must
// stay there: a hook that is missing makes every container fail.
func HookConfig(whittle, socket string) map[string][]byte {
	files := make(map[string][]byte)
	for _, stage := range []string{Precreate, CreateRuntime, Poststop} {
		c := hookConfig{Version: "1.0.0", Stages: []string{stage}}
		c.Hook.Path = whittle
		c.Hook.Args = []string{"whittle", "hook", stage, "--socket", socket}
		c.Hook.Timeout = hookTimeout
		c.When.Always = true
		text, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			panic(fmt.Sprintf("write a hook's configuration: %v", err)) // strings and numbers only
		}
		files["whittle-"+stage+".json"] = append(text, '\n')
	}
	return files
}
