// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/docker"
	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/hint"
)

// makers are the engines that can be asked to make containers.
type makers struct {
	engine         string // the only one that is asked; "" all
	podman, docker string // their sockets
}

func (m *makers) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.engine, "engine", "", "podman or docker; without it, whichever has the container")
	cmd.Flags().StringVar(&m.podman, "podman", podman.DefaultSocket, "`PATH` of Podman's socket")
	cmd.Flags().StringVar(&m.docker, "docker", docker.DefaultSocket, "`PATH` of Docker's socket")
	completeFlag(cmd, "engine", "podman", "docker")
}

// all of them; done closes them.
func (m *makers) all() (list []engine.Maker, done func(), err error) {
	p, d := podman.New(m.podman), docker.New(m.docker)
	done = func() { p.Close(); d.Close() }
	for _, e := range []engine.Engine{p, d} {
		if m.engine != "" && m.engine != e.Name() {
			continue
		}
		if maker, ok := e.(engine.Maker); ok {
			list = append(list, maker)
		}
	}
	if len(list) == 0 {
		done()
		return nil, nil, usageError{hint.Add(fmt.Errorf("unknown engine %q", m.engine), "--engine is podman or docker")}
	}
	return list, done, nil
}

// of a container: the engine that has it.
func (m *makers) of(ctx context.Context, container string) (engine.Maker, func(), error) {
	list, done, err := m.all()
	if err != nil {
		return nil, nil, err
	}
	var found engine.Maker
	var unknown, failed error
	for _, e := range list {
		_, err := e.Inspect(ctx, container)
		switch {
		case err == nil && found != nil:
			done()
			return nil, nil, hint.Add(fmt.Errorf("both %s and %s have a container %s", found.Name(), e.Name(), oneLine(container)), "say which with --engine")
		case err == nil:
			found = e
		case errors.Is(err, engine.ErrUnknownContainer):
			unknown = err
		default:
			failed = errors.Join(failed, err)
		}
	}
	if found != nil {
		return found, done, nil
	}
	done()
	if unknown != nil { // an engine that is not there is no news then
		return nil, nil, unknown
	}
	return nil, nil, failed
}
