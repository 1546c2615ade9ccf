// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// object is JSON of which most is passed on: newer Dockers have fields that this version has never heard of.
type object map[string]any

func (o object) object(key string) object {
	inside, _ := o[key].(map[string]any)
	return inside
}

func (o object) list(key string) []any {
	inside, _ := o[key].([]any)
	return inside
}

func (o object) text(key string) string {
	inside, _ := o[key].(string)
	return inside
}

func decode(text []byte) (o object, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // sizes have 64 bits
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("understand docker's answer: %w: %w", engine.ErrIncompatible, err)
	}
	return o, nil
}

// problems say why a container cannot be made again.
type problems []string

func (p problems) Error() string { return strings.Join(p, "; ") }

// draft is what Docker is asked to create.
type draft struct {
	body    object
	connect map[string]object // to these networks afterwards: Docker takes one at first
	ask     map[string]object // the same of some networks, with the predecessor's addresses
	like    json.RawMessage   // the document that the new one's is to be like
}

// draft of a successor, of the document that Docker has of its predecessor. An error may be problems.
func (d *Docker) draft(ctx context.Context, in inspection, text json.RawMessage, c engine.Changes) (draft, error) {
	doc, err := decode(text)
	if err != nil {
		return draft{}, err
	}
	config, host := doc.object("Config"), doc.object("HostConfig")
	if config == nil || host == nil {
		return draft{}, fmt.Errorf("the answer has no configuration: %w", engine.ErrIncompatible)
	}
	if in.Config.Labels["com.docker.swarm.task.id"] != "" {
		return draft{}, problems{"it belongs to a swarm service, which makes its containers itself"}
	}
	// What is left to chance is fixed, in the document, too.
	if published := in.published(); len(published) > 0 {
		bindings := make(map[string]any, len(published))
		for key, list := range published {
			var said []any
			for _, b := range list {
				said = append(said, map[string]any{"HostIp": b.HostIP, "HostPort": b.HostPort})
			}
			bindings[key] = said
		}
		host["PortBindings"] = bindings
	}
	out := draft{}
	if out.like, err = json.Marshal(doc); err != nil {
		return draft{}, fmt.Errorf("draft: %w", err)
	}
	if err := d.image(ctx, in, config, c); err != nil {
		return draft{}, err
	}
	names(in, config, host)
	anonymous(in, host)
	if err := change(config, host, c); err != nil {
		return draft{}, err
	}
	first, rest, ask := endpoints(in, doc, c.Address)
	out.body, out.connect, out.ask = config, rest, ask
	out.body["HostConfig"] = map[string]any(host)
	out.body["NetworkingConfig"] = map[string]any{"EndpointsConfig": first}
	return out, nil
}

// image: the very same, even if its name means another by now. Of another image, what came from the first is left out.
func (d *Docker) image(ctx context.Context, in inspection, config object, c engine.Changes) error {
	old, err := d.picture(ctx, in.Image)
	if errors.Is(err, engine.ErrUnknownContainer) {
		if c.Image == "" {
			return problems{"its image is not there any more"}
		}
	} else if err != nil {
		return err
	}
	if c.Image == "" {
		if named, err := d.picture(ctx, in.Config.Image); err != nil || named.text("Id") != in.Image {
			config["Image"] = in.Image
		}
		return nil
	}
	if _, err := d.picture(ctx, c.Image); errors.Is(err, engine.ErrUnknownContainer) {
		return hint.Add(fmt.Errorf("there is no image %s", printable(c.Image)), "load or pull the image first: whittle pulls none")
	} else if err != nil {
		return err
	}
	config["Image"] = c.Image
	without(config, old.object("Config"))
	return nil
}

// picture is Docker's document of an image.
func (d *Docker) picture(ctx context.Context, name string) (object, error) {
	if name == "" || strings.HasPrefix(name, "-") || strings.Trim(name, "./") == "" {
		return nil, fmt.Errorf("no image is called %s: %w", printable(name), engine.ErrUnknownContainer)
	}
	var text json.RawMessage
	if err := d.client.Get(ctx, "/images/"+url.PathEscape(name)+"/json", nil, &text); err != nil {
		return nil, fmt.Errorf("ask docker for the image %s: %w", printable(name), err)
	}
	return decode(text)
}

// without takes out of a container's configuration what its image says.
func without(config, image object) {
	for _, key := range []string{"Cmd", "Entrypoint", "WorkingDir", "User", "StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped"} {
		if same(config[key], image[key]) {
			delete(config, key)
		}
	}
	for _, key := range []string{"Labels", "Volumes", "ExposedPorts"} {
		mine := config.object(key)
		for name, value := range image.object(key) {
			if same(mine[name], value) {
				delete(mine, name)
			}
		}
	}
	said := image.list("Env")
	config["Env"] = slices.DeleteFunc(config.list("Env"), func(v any) bool { return slices.ContainsFunc(said, func(w any) bool { return same(v, w) }) })
}

func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// names that are of one container only, and what Docker adds to those that share a network.
func names(in inspection, config, host object) {
	name := config.text("Hostname")
	shares := strings.HasPrefix(in.HostConfig.NetworkMode, "container:")
	if shares || host.text("UTSMode") == "host" || len(name) >= 12 && strings.HasPrefix(in.ID, name) {
		delete(config, "Hostname")
	}
	if shares {
		delete(config, "Domainname")
		delete(config, "ExposedPorts") // its image's, or refused at first
	}
	host["ContainerIDFile"] = ""
	// Docker writes "/target:/self/alias" of what it was told as "target:alias".
	links := host.list("Links")
	for i, v := range links {
		s, _ := v.(string)
		target, alias, ok := strings.Cut(s, ":")
		if at := strings.LastIndex(alias, "/"); ok && at >= 0 {
			links[i] = strings.TrimPrefix(target, "/") + ":" + alias[at+1:]
		}
	}
}
