// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Warn says what a wrapper could not do where the runtime's engine looks for it: in the runtime's log file, in its format, or
// on stderr when there is none. Engines show stderr, and parse the file: containerd takes the last line of level "error"
// for the reason of a failure, so this is a warning.
func (c Call) Warn(stderr io.Writer, now time.Time, problem error) {
	f, err := os.OpenFile(c.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644) // as runc does
	if c.Log == "" || err != nil {
		warn(stderr, problem)
		return
	}
	defer f.Close()
	text := "whittle: " + problem.Error() + "; the container starts without"
	line := fmt.Sprintf("time=%s level=warning msg=%s\n", strconv.Quote(now.Format(time.RFC3339)), strconv.Quote(text))
	if c.LogFormat == "json" {
		entry, err := json.Marshal(map[string]string{"level": "warning", "msg": text, "time": now.Format(time.RFC3339)})
		if err != nil {
			panic(fmt.Sprintf("write a log entry: %v", err)) // strings only
		}
		line = string(entry) + "\n"
	}
	if _, err := io.WriteString(f, line); err != nil {
		warn(stderr, problem)
	}
}
