// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"path"

	"github.com/whittle-sec/whittle/internal/engine/oci"
)

// wrapperPath is what an engine is told that its OCI runtime is. Each engine has its own: the real one may differ.
func wrapperPath(engine string) string {
	return path.Join(stateDir, "runtime", engine, oci.WrapperPrefix+"runc")
}

// wrapper is whittle under that name, and its configuration beside it.
func (o Options) wrapper(runtime string) []target {
	text, err := json.MarshalIndent(oci.WrapperConfig{Runtime: runtime, Socket: o.Socket}, "", "  ")
	if err != nil {
		panic("write the wrapper's configuration: " + err.Error()) // two strings
	}
	name := wrapperPath(o.Engine)
	return []target{
		ownTarget(name+".json", false, append(text, '\n')),
		ownTarget(name, true, []byte(o.Whittle)),
	}
}

// wrapped is the runtime that the wrapper in place stands for; empty when there is none.
func (o Options) wrapped() (string, error) {
	now, err := o.read(wrapperPath(o.Engine) + ".json")
	if err != nil || !now.exists() {
		return "", err
	}
	var c oci.WrapperConfig
	if json.Unmarshal(now.contents, &c) != nil {
		return "", nil // it will be written again
	}
	return c.Runtime, nil
}
