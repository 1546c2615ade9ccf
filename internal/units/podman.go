// SPDX-License-Identifier: Apache-2.0

package units

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Container is one side of a pair as Podman makes it: podman run FLAGS… IMAGE COMMAND….
type Container struct {
	Podman string // its absolute path
	Name   string
	// Flags of podman run, each word apart, without those that say how it is run: Flag tells which.
	Flags       []string
	Image       string
	Command     []string
	Pull        string // when the image is pulled: "never", "missing" …; unset: as podman does
	StopTimeout time.Duration
	StartWithin time.Duration
	Restart     string
}

// managed flags of podman run are systemd's business, or this package's: whether each takes a value.
var managed = map[string]bool{
	"detach": false, "rm": false, "replace": false, "interactive": false, "tty": false, "sig-proxy": false, "detach-keys": true,
	"name": true, "cidfile": true, "conmon-pidfile": true, "sdnotify": true, "cgroups": true, "restart": true, "pull": true,
	"stop-timeout": true, "attach": true, "preserve-fds": true,
}

// Managed tells whether a flag of podman run says how the container is run, and not what it is, and whether it takes a
// value: --name, --rm, --restart. Such flags do not belong into Container.Flags.
func Managed(flag string) (yes, value bool) {
	value, yes = managed[strings.TrimPrefix(flag, "--")]
	return yes, value
}

// Service runs the container in the foreground of its unit, as podman generate systemd --new would: conmon is the unit's main
// process, its status is the container's, and the container tells when it is ready.
func (c Container) Service() (Service, error) {
	if err := c.check(); err != nil {
		return Service{}, err
	}
	stop := strconv.Itoa(int((c.stopTimeout() + time.Second - 1) / time.Second))
	cid := cidFile(c.Name)
	run := []string{c.Podman, "run", "--cidfile=" + cid, "--cgroups=no-conmon", "--rm", "--sdnotify=conmon", "--replace", "--detach",
		"--name=" + c.Name, "--stop-timeout=" + stop}
	run = append(run, c.flags()...)
	return Service{
		Notify: true,
		// Podman refuses to write a file that is there: one that a crash left.
		Before:      [][]string{{"/bin/rm", "-f", cid}},
		Start:       append(append(run, c.Image), c.Command...),
		Stop:        [][]string{{c.Podman, "stop", "--ignore", "--time=" + stop, "--cidfile=" + cid}},
		After:       [][]string{{c.Podman, "rm", "--force", "--ignore", "--time=" + stop, "--cidfile=" + cid}},
		Restart:     c.Restart,
		StartWithin: c.StartWithin,
		StopWithin:  c.stopTimeout() + stopMargin,
	}, nil
}

// cidFile is where the container's ID is while it runs. %t is /run; the name was checked.
func cidFile(name string) string { return "/run/" + name + ".service.ctr-id" }

func (c Container) stopTimeout() time.Duration {
	if c.StopTimeout <= 0 {
		return defaultStop
	}
	return c.StopTimeout
}

func (c Container) flags() []string {
	if c.Pull == "" {
		return c.Flags
	}
	return append([]string{"--pull=" + c.Pull}, c.Flags...)
}

// check what a hostile image or container name could turn into a flag, or into another container.
func (c Container) check() error {
	if err := CheckName(strings.TrimSuffix(c.Name, Suffix)); err != nil {
		return err
	}
	if c.Image == "" || strings.HasPrefix(c.Image, "-") || strings.ContainsAny(c.Image, " \t\r\n") {
		return fmt.Errorf("%.100q is no name of an image", c.Image)
	}
	if c.Pull != "" && !slices.Contains([]string{"always", "missing", "never", "newer"}, c.Pull) {
		return fmt.Errorf("an image is pulled always, missing, never or newer, and not %q", c.Pull)
	}
	for _, f := range c.Flags {
		name, _, _ := strings.Cut(f, "=")
		if yes, _ := Managed(name); yes && strings.HasPrefix(f, "--") {
			return fmt.Errorf("%s is set by the unit", name)
		}
	}
	return nil
}

// Containers are the two sides of a Pair, both as containers. The oracle's name is Production.Name + Suffix.
type Containers struct {
	Production, Oracle Container
	Longest            time.Duration // as in Pair
}

func (c Containers) pair() (p Pair, err error) {
	if c.Oracle.Name != c.Production.Name+Suffix {
		return p, fmt.Errorf("the oracle of %q is called %q, and not %q", c.Production.Name, c.Production.Name+Suffix, c.Oracle.Name)
	}
	p = Pair{Name: c.Production.Name, Longest: c.Longest}
	if p.Production, err = c.Production.Service(); err != nil {
		return p, fmt.Errorf("write production: %w", err)
	}
	if p.Oracle, err = c.Oracle.Service(); err != nil {
		return p, fmt.Errorf("write the oracle: %w", err)
	}
	for _, s := range []*Service{&p.Production, &p.Oracle} {
		s.unit = true
	}
	return p, nil
}

// Units of both: NAME.service and NAME-oracle.service.
func (c Containers) Units() ([]File, error) {
	p, err := c.pair()
	if err != nil {
		return nil, err
	}
	return p.Files()
}
