// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// group is the sockets of one address. Its methods run in a thread that is in their namespace.
type group struct {
	address
	sockets [3][]*socket // by side; ours is not among them
	inodes  [3][]uint64
	hold    int // our socket, in which connections wait, or -1
	slots   *slots
	order   *order // when a socket cannot be steered by slots
	aimed   side

	// strangers listened at the address before, and are of another group: bound to another device.
	strangers []uint64
}

// groups that the sockets form.
func groupsOf(l *Listeners) ([]*group, error) {
	var out []*group
	err := l.open(func(s *socket) error {
		at := slices.IndexFunc(out, func(g *group) bool { return g.address == s.address })
		if at < 0 {
			at = len(out)
			out = append(out, &group{address: s.address, hold: -1})
		}
		out[at].sockets[owner] = append(out[at].sockets[owner], s)
		out[at].inodes[owner] = append(out[at].inodes[owner], s.inode)
		return nil
	})
	return out, err
}

// form the group around the owner's sockets. New connections go to them before and after.
func (g *group) form() error {
	var err error
	if g.strangers, err = g.present(); err != nil {
		return err
	}
	g.strangers = slices.DeleteFunc(g.strangers, func(inode uint64) bool { return slices.Contains(g.inodes[owner], inode) })
	if g.slots, err = newSlots(); err != nil {
		return err
	}
	if slices.ContainsFunc(g.sockets[owner], byOrder) {
		g.order, err = newOrder(g.inodes[owner])
		if err != nil {
			return err
		}
		return g.aim(owner)
	}
	// What a killed process left goes first, while the owner is alone.
	for _, s := range g.sockets[owner] {
		if err := detach(s.fd); err != nil {
			return err
		}
	}
	// The first socket that joins makes the group, and until the program is attached the kernel's hash gives it its
	// share of the connections. So it goes again at once, which moves them to the owner.
	err = g.join(func(fd int) error {
		return errors.Join(g.slots.put(owner, fds(g.sockets[owner])), g.slots.aim(owner), g.slots.attach(fd))
	})
	if err != nil {
		return err
	}
	return g.open()
}

// byOrder says whether a socket cannot be in an array of sockets: the kernel takes no MPTCP ones, which Go's standard
// library listens with since 1.24.
func byOrder(s *socket) bool { return s.mptcp }

func fds(sockets []*socket) []int {
	var out []int
	for _, s := range sockets {
		out = append(out, s.fd)
	}
	return out
}

// listen with a socket of ours, which joins the group.
func (g *group) listen() (int, error) {
	like := -1
	if all := g.sockets[owner]; len(all) > 0 {
		like = all[0].fd
	}
	return g.address.listen(like)
}

// join with a socket for as long as f runs. What arrived in it goes to those who are aimed at.
func (g *group) join(f func(fd int) error) error {
	fd, err := g.listen()
	if err != nil {
		return err
	}
	err = f(fd)
	settle()
	return errors.Join(err, unix.Close(fd), g.wake())
}

// settle lets the handshakes end that began before connections went elsewhere. When a socket closes at the moment that
// another processor completes one (inet_csk_reqsk_queue_add finds a socket that listens no more), that connection is
// reset, though its group could have had it; over the loopback device that is within microseconds of the first packet.
func settle() {
	const pause = 5 * time.Millisecond
	time.Sleep(pause)
}

// member calls f with a plain TCP socket of the group.
func (g *group) member(f func(fd int) error) error {
	if g.hold >= 0 {
		return f(g.hold)
	}
	return g.join(f)
}

// open our socket.
func (g *group) open() error {
	if g.hold >= 0 {
		return nil
	}
	if err := g.follow(); err != nil {
		return err
	}
	fd, err := g.listen()
	if err != nil {
		return err
	}
	g.hold = fd
	if g.order != nil {
		g.order.members = append(g.order.members, inodeOf(fd))
	}
	return g.slots.put(ours, []int{fd})
}

// follow who joined and left where order counts.
func (g *group) follow() error {
	if g.order == nil {
		return nil
	}
	now, err := g.present()
	if err != nil {
		return err
	}
	return g.order.update(now)
}

// present are the sockets that listen at the address, but for strangers.
func (g *group) present() ([]uint64, error) {
	rows, err := listening()
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, r := range rows {
		if r.local == withoutZone(g.local) && !slices.Contains(g.strangers, r.inode) {
			out = append(out, r.inode)
		}
	}
	return out, nil
}

// drop our socket: the kernel moves what waits in it to those who are aimed at, and they are woken.
func (g *group) drop() error {
	if g.hold < 0 {
		return nil
	}
	err := unix.Close(g.hold)
	g.hold, g.slots.count[ours] = -1, 0
	return errors.Join(err, g.wake())
}

// wake those who are aimed at.
func (g *group) wake() error {
	var failed error
	for _, s := range g.sockets[g.aimed] {
		if s.fd >= 0 {
			failed = errors.Join(failed, s.wake())
		}
	}
	return failed
}

func (g *group) aim(at side) error {
	if at == ours {
		if err := g.open(); err != nil {
			return err
		}
	}
	if err := g.steer(at); err != nil {
		return err
	}
	g.aimed = at
	return nil
}

func (g *group) steer(at side) error {
	if g.order == nil {
		return g.slots.aim(at)
	}
	if at == ours {
		// Ours can be in the array, so that this is exact whoever joins or leaves.
		return errors.Join(g.slots.aim(ours), g.slots.attach(g.hold))
	}
	if g.hold >= 0 && at == successor && g.aimed == owner {
		// Two at once, and nobody waits: without ours their places stay as they are when the owner's closes.
		if err := g.drop(); err != nil {
			return err
		}
	}
	return g.program(at, netip.AddrPort{})
}

// program the order of the group: new connections to a side, a knock to the successor.
func (g *group) program(at side, knock netip.AddrPort) error {
	// Before a socket joins for a moment only: when it leaves, the places are as they were.
	if err := g.follow(); err != nil {
		return err
	}
	return g.member(func(fd int) error {
		to, ok := g.order.place(g.inode(at))
		if !ok {
			return fmt.Errorf("nobody listens at %s for whom connections could be", g.shown())
		}
		next, _ := g.order.place(g.inode(successor))
		return attachOrder(fd, to, next, knock)
	})
}

// inode of the only socket that a side has, where order counts.
func (g *group) inode(who side) uint64 {
	if who == ours {
		return inodeOf(g.hold)
	}
	if len(g.inodes[who]) == 0 {
		return 0
	}
	return g.inodes[who][0]
}

func inodeOf(fd int) uint64 {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		return 0
	}
	return stat.Ino
}

// admit the successor's sockets of this address.
func (g *group) admit(next []*socket) error {
	if len(next) == 0 {
		return fmt.Errorf("the successor does not listen at %s", g.shown())
	}
	g.sockets[successor], g.inodes[successor] = next, nil
	for _, s := range next {
		g.inodes[successor] = append(g.inodes[successor], s.inode)
	}
	if g.order == nil && slices.ContainsFunc(next, byOrder) {
		if err := g.convert(); err != nil {
			return err
		}
	}
	if g.order != nil {
		if len(next) > 1 {
			return fmt.Errorf("%d sockets listen at %s, one of them with MPTCP: only one can be steered", len(next), g.shown())
		}
		return nil
	}
	return g.slots.put(successor, fds(next))
}

// convert from slots to order.
func (g *group) convert() error {
	if len(g.inodes[owner]) > 1 {
		return fmt.Errorf("the successor listens at %s with MPTCP, and the owner with %d sockets", g.shown(), len(g.inodes[owner]))
	}
	g.order = &order{members: append(slices.Clone(g.inodes[owner]), inodeOf(g.hold))}
	return g.steer(g.aimed)
}

func (g *group) knock(from netip.AddrPort) error {
	if g.order == nil {
		return g.slots.knock(from)
	}
	return g.program(g.aimed, from)
}

func (g *group) quiet() error {
	if g.order == nil {
		return g.slots.quiet()
	}
	return g.steer(g.aimed)
}

// others says how many listen at the address beside those who are aimed at.
func (g *group) others() (int, error) {
	if g.slots == nil {
		return 0, nil // never formed
	}
	now, err := g.present()
	if err != nil {
		return 0, err
	}
	held := inodeOf(g.hold)
	return len(slices.DeleteFunc(now, func(inode uint64) bool {
		return inode == held || slices.Contains(g.inodes[g.aimed], inode)
	})), nil
}

// leave the sockets that are aimed at as they would be had we not been here.
func (g *group) leave() error {
	left := slices.DeleteFunc(slices.Clone(g.sockets[g.aimed]), func(s *socket) bool { return s.fd < 0 })
	if len(left) == 0 {
		return nil // they have ended, and the group and its program with them
	}
	var failed error
	switch {
	case g.slots == nil: // never formed
	case byOrder(left[0]):
		failed = errors.Join(g.member(detach), g.slots.empty())
	default:
		failed = errors.Join(detach(left[0].fd), g.slots.empty())
	}
	// What waited in the other side's sockets came when these closed, which nobody here was told.
	failed = errors.Join(failed, g.wake())
	for _, s := range left {
		if like := g.sockets[owner]; g.aimed == successor && len(like) > 0 {
			// Whether the successor set them itself nobody can tell. It is the same service.
			s.reuseport, s.reuseaddr = like[0].reuseport, like[0].reuseaddr
		}
		failed = errors.Join(failed, s.restore())
	}
	return failed
}

func detach(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("detach from the listening sockets: %w", err)
	}
	return nil
}

func (s *socket) restore() error {
	return errors.Join(s.set(unix.SO_REUSEPORT, s.reuseport), s.set(unix.SO_REUSEADDR, s.reuseaddr))
}

func (s *socket) set(option, to int) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, to); err != nil {
		return fmt.Errorf("set option %d of a listening socket: %w", option, err)
	}
	return nil
}

func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// close what is ours. The kernel keeps what is attached.
func (g *group) close() error {
	err := g.drop()
	if g.slots != nil {
		err = errors.Join(err, g.slots.close())
		g.slots = nil
	}
	return err
}
