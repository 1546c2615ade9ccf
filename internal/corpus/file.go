// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/whittle-sec/whittle/internal/assoc"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/observe"
)

// A corpus file is one line, "whittle corpus VERSION SHA256 of the rest", and gzip'd: the length of what was recorded, 4 bytes,
// little endian; what was recorded, as JSON; the rules that were mined from it, see packRules. Equal corpora give equal
// bytes.
const (
	magic   = "whittle corpus"
	version = 1
)

// What a file may have at most: a corpus of a hundred services has a tenth of it.
const (
	maxPacked   = 4 << 20
	maxText     = 16 << 20
	maxServices = 64 // a rule knows its sources by a bit each
	maxCalls    = 1024
	maxRoles    = 512
	maxBursts   = 50_000
	maxMembers  = 512
	maxName     = 200
)

type file struct {
	Calls    []string      `json:"calls"` // names, sorted; others have indexes of it
	Services []fileService `json:"services"`
}

type fileService struct {
	Name     string      `json:"name"`
	Packages []string    `json:"packages,omitempty"`
	Arch     string      `json:"arch,omitempty"`
	Kernel   string      `json:"kernel,omitempty"`
	Ops      []string    `json:"ops,omitempty"`
	Failed   []string    `json:"failed,omitempty"`
	Seconds  float64     `json:"seconds,omitempty"`
	Roles    []fileRole  `json:"roles"`
	Bursts   []fileBurst `json:"bursts"`
}

type fileRole struct {
	Exe        string        `json:"e"`
	Generation uint8         `json:"g,omitempty"`
	Stage      observe.Stage `json:"s,omitempty"`
	Calls      []int         `json:"c"`
}

type fileBurst struct {
	Stage observe.Stage `json:"s,omitempty"`
	Calls []int         `json:"c"`
	Count uint64        `json:"n"`
}

// Write the corpus, and the rules mined from it.
func Write(w io.Writer, c *Corpus) error {
	text, err := json.Marshal(c.file())
	if err != nil {
		return fmt.Errorf("write a corpus: %w", err)
	}
	text = slices.Concat(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text, c.Rules().pack())
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(text)
	if err := errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("write a corpus: %w", err)
	}
	if packed.Len() > maxPacked || len(text) > maxText {
		return fmt.Errorf("write a corpus: it has %d bytes packed and %d unpacked, and nobody would read it", packed.Len(), len(text))
	}
	if _, err = fmt.Fprintf(w, "%s %d %x\n", magic, version, sha256.Sum256(packed.Bytes())); err == nil {
		_, err = w.Write(packed.Bytes())
	}
	if err != nil {
		return fmt.Errorf("write a corpus: %w", err)
	}
	return nil
}

func (c *Corpus) file() (f file) {
	index := map[string]int{}
	each := func(do func(calls []string)) {
		for _, s := range c.services {
			for _, r := range s.Roles {
				do(r.Calls)
			}
			for _, b := range s.Bursts {
				do(b.Calls)
			}
		}
	}
	each(func(calls []string) {
		for _, name := range calls {
			index[name] = 0
		}
	})
	f.Calls = make([]string, 0, len(index))
	for name := range index {
		f.Calls = append(f.Calls, name)
	}
	slices.Sort(f.Calls)
	for i, name := range f.Calls {
		index[name] = i
	}
	indexes := func(calls []string) []int {
		out := make([]int, 0, len(calls))
		for _, name := range calls {
			out = append(out, index[name])
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	f.Services = make([]fileService, 0, len(c.services))
	for _, s := range c.services {
		fs := fileService{
			Name: s.Name, Packages: s.Packages, Arch: s.Arch, Kernel: s.Kernel, Ops: s.Ops, Failed: s.Failed, Seconds: s.Seconds,
			Roles: []fileRole{}, Bursts: []fileBurst{},
		}
		for _, r := range s.Roles {
			fs.Roles = append(fs.Roles, fileRole{r.Exe, r.Generation, r.Stage, indexes(r.Calls)})
		}
		for _, b := range s.Bursts {
			fs.Bursts = append(fs.Bursts, fileBurst{b.Stage, indexes(b.Calls), b.Count})
		}
		f.Services = append(f.Services, fs)
	}
	return f
}

// Read a corpus that Write wrote. It is bounded in memory and time whatever the bytes are.
func Read(r io.Reader) (*Corpus, error) {
	c, err := read(r)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("read a corpus: %w", err), "make it again with `make corpus`, or use the one of this program's version")
	}
	return c, nil
}

func read(r io.Reader) (*Corpus, error) {
	in := bufio.NewReader(io.LimitReader(r, maxPacked+256))
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, errors.New("it is empty, or no corpus")
	}
	var made int
	var sum string
	if _, err := fmt.Sscanf(string(line), magic+" %d %64s\n", &made, &sum); err != nil {
		return nil, errors.New("it does not begin as a corpus does")
	}
	if made != version {
		return nil, fmt.Errorf("it has version %d; this program reads version %d", made, version)
	}
	packed, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	if len(packed) > maxPacked {
		return nil, fmt.Errorf("it is larger than %d bytes", maxPacked)
	}
	if got := sha256.Sum256(packed); hex.EncodeToString(got[:]) != sum {
		return nil, errors.New("it is corrupt or truncated: its checksum is another")
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(z, maxText+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("it is larger than %d bytes unpacked", maxText)
	}
	if len(text) < 4 || uint64(binary.LittleEndian.Uint32(text)) > uint64(len(text)-4) {
		return nil, errors.New("it ends before what was recorded does")
	}
	end := 4 + int(binary.LittleEndian.Uint32(text))
	decoder := json.NewDecoder(bytes.NewReader(text[4:end]))
	decoder.DisallowUnknownFields()
	var f file
	if err := decoder.Decode(&f); err != nil {
		return nil, err
	}
	c, err := f.corpus()
	if err != nil {
		return nil, err
	}
	stored, err := unpackRules(text[end:])
	if err != nil {
		return nil, err
	}
	c.rules = sync.OnceValue(func() *Rules {
		// Calls that are one item in this program may have been two in the one that mined.
		if it := itemsOf(c.services, assoc.MaxItems); slices.Equal(it.names, stored.items) {
			return stored.rules(c.services, it)
		}
		return mine(c.services)
	})
	return c, nil
}

func (f file) corpus() (*Corpus, error) {
	if len(f.Calls) > maxCalls || len(f.Services) > maxServices {
		return nil, fmt.Errorf("it has %d calls and %d services; the most are %d and %d", len(f.Calls), len(f.Services), maxCalls, maxServices)
	}
	for _, name := range f.Calls {
		if !callName(name) {
			return nil, fmt.Errorf("%.80q is no name of a call", name)
		}
	}
	seen := map[string]bool{}
	var services []Service
	for _, fs := range f.Services {
		if !printable(fs.Name) || seen[fs.Name] {
			return nil, fmt.Errorf("the service %.80q has no good name, or is there twice", fs.Name)
		}
		seen[fs.Name] = true
		s, err := f.service(fs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fs.Name, err)
		}
		services = append(services, s)
	}
	return New(services), nil
}

func (f file) service(fs fileService) (Service, error) {
	s := Service{
		Name: fs.Name, Packages: fs.Packages, Arch: fs.Arch, Kernel: fs.Kernel, Ops: fs.Ops, Failed: fs.Failed, Seconds: fs.Seconds,
	}
	for _, text := range slices.Concat([]string{s.Arch, s.Kernel}, s.Packages, s.Ops, s.Failed) {
		if text != "" && !printable(text) {
			return Service{}, fmt.Errorf("%.80q is no text of a corpus", text)
		}
	}
	if len(fs.Roles) > maxRoles || len(fs.Bursts) > maxBursts {
		return Service{}, fmt.Errorf("%d roles and %d bursts; the most are %d and %d", len(fs.Roles), len(fs.Bursts), maxRoles, maxBursts)
	}
	for _, r := range fs.Roles {
		calls, err := f.names(r.Calls, r.Stage)
		if err == nil && !printable(r.Exe) {
			err = errors.New("its name is no text of a corpus")
		}
		if err != nil {
			return Service{}, fmt.Errorf("role %.80q: %w", r.Exe, err)
		}
		s.Roles = append(s.Roles, Role{r.Exe, r.Generation, r.Stage, calls})
	}
	for _, b := range fs.Bursts {
		calls, err := f.names(b.Calls, b.Stage)
		if err != nil {
			return Service{}, fmt.Errorf("a burst: %w", err)
		}
		s.Bursts = append(s.Bursts, Burst{b.Stage, calls, b.Count})
	}
	return s, nil
}

func (f file) names(indexes []int, stage observe.Stage) ([]string, error) {
	if len(indexes) == 0 || len(indexes) > maxMembers || stage > observe.StageStop {
		return nil, fmt.Errorf("%d calls in stage %d", len(indexes), stage)
	}
	out := make([]string, 0, len(indexes))
	for n, i := range indexes {
		if i < 0 || i >= len(f.Calls) || n > 0 && i <= indexes[n-1] {
			return nil, fmt.Errorf("call %d is not there, or not in order", i)
		}
		out = append(out, f.Calls[i])
	}
	slices.Sort(out) // the table need not be
	return out, nil
}

func callName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
