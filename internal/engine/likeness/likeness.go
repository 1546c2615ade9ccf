// SPDX-License-Identifier: Apache-2.0

// Package likeness tells whether a container that was made like another is like it. It compares what Docker and Podman
// answer to an inspection, whose documents have one shape, and everything in their two configurations but what is named
// here: a field that some later version adds counts. It asks nobody anything.
package likeness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/workload"
)

// most differences are told, and each at this length.
const (
	most   = 8
	length = 120
)

// Engine is what one engine's documents have of their own.
type Engine struct {
	Same  []string // besides Config, HostConfig and Mounts: "Path", "OCIRuntime"
	Apart []string // of each container, not of the service: "Config.CreateCommand", "HostConfig.LogConfig.Path"
	Env   []string // variables that the engine sets by itself
}

// Differences of two documents, none of which the changes ask for. An error means that a document is not one.
func Differences(like, made json.RawMessage, c engine.Changes, e Engine) ([]string, error) {
	a, err := parse(like)
	if err != nil {
		return nil, err
	}
	b, err := parse(made)
	if err != nil {
		return nil, err
	}
	if c.Image != "" {
		ownVolumes(a, b)
	}
	out := changed(a, b, c)
	for _, doc := range []map[string]any{a, b} {
		normalize(doc, e)
	}
	apart := e.Apart
	if c.Image != "" {
		apart = slices.Concat(apart, ofImage)
	}
	for _, part := range append([]string{"Config", "HostConfig", "Mounts", "Networks"}, e.Same...) {
		out = append(out, compare(part, a[part], b[part], apart)...)
	}
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more", len(out)-most))
	}
	return out, nil
}

func parse(text json.RawMessage) (doc map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // sizes have 64 bits
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("compare containers: %w: %w", engine.ErrIncompatible, err)
	}
	return doc, nil
}

// ofImage is what an image may say, where nobody said otherwise.
var ofImage = []string{
	"Image", "ImageDigest", "Path", "Args", "Config.Image", "Config.Cmd", "Config.Entrypoint", "Config.Env", "Config.Labels",
	"Config.WorkingDir", "Config.User", "Config.StopSignal", "Config.Volumes", "Config.Healthcheck", "Config.ExposedPorts",
	"Config.Shell", "Config.OnBuild",
}

// unordered lists are compared as sets.
var unordered = []string{
	"Config.Env", "EffectiveCaps", "BoundingCaps", "Dependencies", "HostConfig.Binds", "HostConfig.CapAdd", "HostConfig.CapDrop",
	"HostConfig.SecurityOpt", "HostConfig.GroupAdd", "HostConfig.Ulimits", "HostConfig.Mounts", "HostConfig.Devices", "Mounts",
}

// normalize takes out what differs between any two containers.
func normalize(doc map[string]any, e Engine) {
	settings, _ := doc["NetworkSettings"].(map[string]any)
	networks, _ := settings["Networks"].(map[string]any)
	var names []any
	for _, name := range slices.Sorted(maps.Keys(networks)) { // what is in them is there while it runs
		names = append(names, name)
	}
	doc["Networks"] = names
	mountOptions(doc)
	config, _ := doc["Config"].(map[string]any)
	hostname(doc, config)
	env, ok := config["Env"].([]any)
	if !ok {
		return
	}
	config["Env"] = slices.DeleteFunc(env, func(v any) bool {
		name, _, _ := strings.Cut(fmt.Sprint(v), "=")
		return slices.Contains(e.Env, name)
	})
}

// hostname: the beginning of the id, or the name of whose network it has, is of each container.
func hostname(doc, config map[string]any) {
	id, _ := doc["Id"].(string)
	name, _ := config["Hostname"].(string)
	host, _ := doc["HostConfig"].(map[string]any)
	mode, _ := host["NetworkMode"].(string)
	if len(name) >= 12 && strings.HasPrefix(id, name) || strings.HasPrefix(mode, "container:") {
		delete(config, "Hostname")
		delete(config, "Domainname")
	}
}

// compare two values at a path. Nothing, an empty list and a zero are one: versions differ in which they write.
func compare(at string, a, b any, apart []string) []string {
	if slices.Contains(apart, at) || empty(a) && empty(b) {
		return nil
	}
	mapA, okA := a.(map[string]any)
	mapB, okB := b.(map[string]any)
	if okA && (okB || b == nil) || okB && a == nil {
		keys := slices.Collect(maps.Keys(mapA))
		for key := range mapB {
			if _, ok := mapA[key]; !ok {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		var out []string
		for _, key := range keys {
			out = append(out, compare(at+"."+key, mapA[key], mapB[key], apart)...)
		}
		return out
	}
	listA, okA := a.([]any)
	listB, okB := b.([]any)
	if (okA || okB) && slices.Contains(unordered, at) {
		return sets(at, listA, listB)
	}
	if text(a) == text(b) {
		return nil
	}
	return []string{fmt.Sprintf("%s was %s and is %s", name(at), show(text(a)), show(text(b)))}
}

// sets tells what only one of two lists has.
func sets(at string, a, b []any) (out []string) {
	count := make(map[string]int)
	for _, v := range a {
		count[text(v)]++
	}
	for _, v := range b {
		count[text(v)]--
	}
	for _, v := range slices.Sorted(maps.Keys(count)) {
		switch n := count[v]; {
		case n > 0:
			out = append(out, fmt.Sprintf("%s lacks %s", name(at), secret(at, v)))
		case n < 0:
			out = append(out, fmt.Sprintf("%s has %s besides", name(at), secret(at, v)))
		}
	}
	return out
}

// secret keeps the values of variables out of messages.
func secret(at, v string) string {
	if at == "Config.Env" {
		v, _, _ = strings.Cut(v, "=")
	}
	return show(v)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case json.Number:
		return v == "0"
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, inside := range v {
			if !empty(inside) {
				return false
			}
		}
		return true
	}
	return false
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	out, err := json.Marshal(v) // map keys are sorted
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(out)
}

func name(at string) string { return workload.Printable(at, length) }
func show(v string) string  { return "`" + workload.Printable(v, length) + "`" }
