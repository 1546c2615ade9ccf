// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestHandOver(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	client := dial(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	k := next(t, client)
	if k.Container != "one" || k.PID != 4711 || k.Metadata != "meta" || k.Bundle != "/bundle" || k.Annotations["a"] != "b" ||
		k.UID != 0 || k.Exec || k.Injected || k.ID == 0 || k.Received.IsZero() {
		t.Errorf("got %+v", k)
	}
	box.call()
	answer(t, k.FD)
	box.wants(t, letThrough)

	second := newContainer(t)
	second.give(t, c.Listener, "one")
	if k := next(t, client); !k.Exec {
		t.Errorf("the second listener of a container: got %+v, want Exec", k)
	}
}

// A container that is restarted under its id is no exec into itself.
func TestRestartIsNoExec(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	client := dial(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	next(t, client)
	box.end()
	box = newContainer(t)
	box.give(t, c.Listener, "one")
	if k := next(t, client); k.Exec {
		t.Errorf("got %+v", k)
	}
	eventually(t, "the dead listener is dropped", func() bool {
		_, list := listeners(t, c, 1)
		return len(list) == 1
	})
}

func TestAgentDies(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	agent := agentProcess(t, c)
	box.call()
	kill(agent, unix.SIGKILL)
	client, list := listeners(t, c, 1)
	if !client.Unclean() || client.Agents() != 1 {
		t.Errorf("unclean %v, agents %d; want true, 1", client.Unclean(), client.Agents())
	}
	answer(t, list[0].FD)
	box.wants(t, letThrough)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if client = dial(t, c); client.Unclean() || client.Agents() != 2 || len(client.Refused()) != 0 {
		t.Errorf("after Close: unclean %v, agents %d, refused %v", client.Unclean(), client.Agents(), client.Refused())
	}
}

func TestRefusesAfterWait(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	c.Wait = 50 * time.Millisecond
	serve(t, c)
	client := dial(t, c)
	box, other := newContainer(t), newContainer(t)
	box.give(t, c.Listener, "one")
	other.give(t, c.Listener, "two")
	next(t, client)
	next(t, client)
	box.call() // held before the agent goes
	client.Close()
	box.wants(t, unix.EPERM)
	box.call() // and while it is away
	box.wants(t, unix.EPERM)

	// An agent that dies before it asks for the counts leaves them to the next.
	kill(agentProcess(t, c), unix.SIGKILL)
	eventually(t, "the counts are told", func() bool {
		client = dial(t, c)
		return len(client.refused) == 1 && client.refused[0].Count == 2
	})
	native, _ := syscalls.Native("amd64")
	want := syscalls.Call{ABI: native, Nr: unix.SYS_MKDIRAT}
	if r := client.Refused()[0]; r.Container != "one" || r.Call != want || r.Last.Before(r.Since) {
		t.Errorf("got %+v", r)
	}
	// While an agent is there nothing is refused, and what was told is forgotten.
	box.call()
	for _, k := range client.Listeners() {
		if k.Container == "one" {
			answer(t, k.FD)
		}
		unix.Close(k.FD)
	}
	box.wants(t, letThrough)
	client.Close()
	if client = dial(t, c); len(client.Refused()) != 0 {
		t.Errorf("told twice: %+v", client.Refused())
	}
}

// Users who hold refusers up do so for themselves.
func TestRefusersAreShared(t *testing.T) {
	s := &server{refusersOf: map[uint32]int{}}
	start := func(uid uint32) bool {
		ok := s.mayRefuse(uid)
		if ok {
			s.refusers++
			s.refusersOf[uid]++
		}
		return ok
	}
	for uid := range uint32(100) {
		for range 100 {
			start(uid + 1)
		}
		if n := s.refusersOf[uid+1]; n > maxRefusersByUser {
			t.Fatalf("uid %d has %d", uid+1, n)
		}
	}
	if s.refusers != maxRefusers/2 {
		t.Errorf("users have %d of %d", s.refusers, maxRefusers)
	}
	for range maxRefusers / 2 {
		if !start(0) {
			t.Fatal("root gets none")
		}
	}
	if start(0) {
		t.Error("there is no limit")
	}
}

func TestNewestAgentWins(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	old := dial(t, c)
	client := dial(t, c)
	<-old.Lost()
	if err := old.Err(); !errors.Is(err, ErrReplaced) || !errors.Is(err, ErrLost) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := old.Next(t.Context()); !errors.Is(err, ErrReplaced) {
		t.Errorf("Next of the old one: %v", err)
	}
	box := newContainer(t)
	if _, err := old.Keep(Kept{Container: "one", FD: box.fd}); !errors.Is(err, ErrReplaced) {
		t.Errorf("Keep of the old one: %v", err)
	}
	if !client.Unclean() {
		t.Error("the new one is not told that the old one may have taken calls along")
	}
}

func TestKeepAndDrop(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	client := dial(t, c)
	box := newContainer(t)
	id, err := client.Keep(Kept{Container: "one", Injected: true, FD: box.fd})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := client.Keep(Kept{Container: "one", FD: box.fd}); err != nil || again != id {
		t.Errorf("kept again: %d, %v; want %d", again, err, id)
	}
	for name, k := range map[string]Kept{
		"no listener":     {Container: "one", FD: 0},
		"no container":    {FD: box.fd},
		"a long name":     {Container: strings.Repeat("x", 300), FD: box.fd},
		"much metadata":   {Container: "one", Metadata: strings.Repeat("x", maxMetadata+1), FD: box.fd},
		"very much of it": {Container: "one", Metadata: strings.Repeat("x", maxMessage), FD: box.fd},
	} {
		if _, err := client.Keep(k); err == nil {
			t.Errorf("%s: kept", name)
		}
	}
	client.Close()
	client, list := listeners(t, c, 1)
	if len(list) != 1 || !list[0].Injected || list[0].ID != id || !Same(list[0].FD, box.fd) {
		t.Errorf("got %+v", list)
	}
	if err := client.Drop(id); err != nil {
		t.Error(err)
	}
	if _, list := listeners(t, c, 0); len(list) != 0 {
		t.Errorf("after Drop: %+v", list)
	}
}

// The holder is killed: the agent's own duplicates keep the calls held, and the next holder gets them.
func TestHolderDies(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	c.Linger = 3 * time.Second // somebody is there again within that, on a busy machine too
	first := process(t, c)
	client := dial(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	k := next(t, client)
	box.call()
	kill(first, unix.SIGKILL)
	<-client.Lost()
	if err := client.Err(); !errors.Is(err, ErrLost) || errors.Is(err, ErrReplaced) {
		t.Errorf("Err: %v", err)
	}
	client, err := Start(t.Context(), self(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Keep(k); err != nil {
		t.Fatal(err)
	}
	unix.Close(k.FD)
	client.Close()
	client, list := listeners(t, c, 1)
	answer(t, list[0].FD)
	box.wants(t, letThrough)
	box.end()
	client.Close()
	// It keeps nothing, and nobody asks: it goes, and leaves nothing.
	eventually(t, "the holder has gone", func() bool {
		_, err := os.Stat(c.Control + ".lock")
		return errors.Is(err, os.ErrNotExist)
	})
	for _, path := range []string{c.Control, c.Listener, logFile(c.Control)} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

func TestBothDie(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	holder := process(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	agent := agentProcess(t, c)
	box.call()
	kill(agent, unix.SIGKILL)
	kill(holder, unix.SIGKILL)
	box.wants(t, unix.ENOSYS)
}

// SIGTERM without a store is the same, and said.
func TestHolderEnds(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	log, stop := serve(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	box.call()
	_, list := listeners(t, c, 1)
	for _, k := range list {
		unix.Close(k.FD)
	}
	stop()
	box.wants(t, unix.ENOSYS)
	if !strings.Contains(log.String(), "ENOSYS") {
		t.Errorf("its log does not say so: %s", log)
	}
}

func TestStartTogether(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	c.Linger = 2 * time.Second
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			client, err := Start(t.Context(), self(t), c)
			if err != nil {
				t.Error(err)
				return
			}
			client.Close()
		})
	}
	wg.Wait()
	eventually(t, "the holder has gone", func() bool { return lockText(c) == "" })
}

func TestSecondHolderIsPolite(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	out, err := exec.Command(os.Args[0], append([]string{"holder"}, c.Args()...)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "pid="+strconv.Itoa(os.Getpid())) {
		t.Errorf("%v: %s", err, out)
	}
	if !reachable(c.Control+"x") && !reachable(c.Listener) {
		t.Error("it has taken the first one's socket")
	}
}

func TestManyContainers(t *testing.T) {
	testenv.NeedRoot(t)
	const many = 200
	c := config(t)
	serve(t, c)
	client := dial(t, c)
	boxes := make([]*container, many)
	for i := range boxes {
		boxes[i] = newContainer(t)
	}
	var wg sync.WaitGroup
	for i, box := range boxes {
		wg.Go(func() { box.give(t, c.Listener, fmt.Sprint("box-", i)) })
	}
	for range many {
		k := next(t, client)
		var i int
		if _, err := fmt.Sscanf(k.Container, "box-%d", &i); err != nil {
			t.Fatal(err)
		}
		boxes[i].call()
		answer(t, k.FD)
		boxes[i].wants(t, letThrough)
	}
	wg.Wait()
	client.Close()
	if _, list := listeners(t, c, many); len(list) != many {
		t.Errorf("the next agent gets %d, want %d", len(list), many)
	}
	for _, box := range boxes {
		box.end()
	}
	eventually(t, "all are dropped", func() bool {
		_, list := listeners(t, c, 0)
		return len(list) == 0
	})
}

// More containers than refusers: each call is refused, and counted once.
func TestRefusesMany(t *testing.T) {
	testenv.NeedRoot(t)
	const many = maxRefusers + 20
	c := config(t)
	c.Wait = 100 * time.Millisecond
	serve(t, c)
	boxes := make([]*container, many)
	for i := range boxes {
		boxes[i] = newContainer(t)
		boxes[i].give(t, c.Listener, fmt.Sprint("box-", i))
		boxes[i].call()
	}
	for _, box := range boxes {
		box.wants(t, unix.EPERM)
	}
	told := map[string]uint64{}
	eventually(t, "all are told", func() bool {
		client := dial(t, c) // what a refuser finishes after the greeting is told to the next agent
		defer client.Close()
		for _, r := range client.Refused() {
			told[r.Container] += r.Count
		}
		return len(told) == many
	})
	for name, count := range told {
		if count != 1 {
			t.Errorf("%s was refused %d times", name, count)
		}
	}
}

// An agent that reads nothing keeps nobody waiting.
func TestAgentThatDoesNotRead(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	agent := agentProcess(t, c)
	if err := agent.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	box := newContainer(t)
	for i := range 600 {
		handOver(t, c.Listener, state(fmt.Sprint("box-", i)), box.fd)
	}
	if _, list := listeners(t, c, 600); len(list) != 600 {
		t.Errorf("the next agent gets %d", len(list))
	}
}

func TestSocketIsMadeAgain(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	if err := os.Remove(c.Listener); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket is back", func() bool { return reachable(c.Listener) })
}

func TestDialNobody(t *testing.T) {
	if _, err := Dial(context.Background(), config(t).Control); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}
