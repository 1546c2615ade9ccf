// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// ErrNothing is returned, wrapped, for a report without a fault in it: valgrind makes a file for each process.
var ErrNothing = errors.New("no fault is reported")

// MaxReport is what of a report is read.
const MaxReport = 64 << 10

// What of a report is kept: it is stored with each loop, and shown.
const (
	maxLine    = 240
	maxLines   = 60
	maxSummary = 200
)

// Report is what an oracle said when it aborted. All of its text is printable, whoever wrote it.
type Report struct {
	Kind     string    `json:"kind"`               // "asan", "ubsan", "valgrind", "glibc", "audit-python" …, "unknown"
	Summary  string    `json:"summary"`            // one line, for instance "stack-buffer-overflow, WRITE of size 61"
	Location string    `json:"location,omitempty"` // the first frame that is not the runtime's
	PID      int       `json:"pid,omitempty"`      // in the container
	Time     time.Time `json:"time,omitzero"`      // when it was found; the reader of the file sets it
	Text     string    `json:"text"`
}

// ReadReport reads a file of ReportDir, or what a container logged. name is the file's, for the pid in it. Whatever is in
// it was written inside the container. The error is ErrNothing, wrapped, when no fault is reported.
func ReadReport(name string, r io.Reader) (Report, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxReport))
	if err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		lines = append(lines, workload.Printable(strings.TrimRight(line, "\r\n"), 4*maxLine))
	}
	report, ok := classify(data, lines)
	if !ok {
		return Report{}, fmt.Errorf("read report %s: %w", workload.Printable(name, 64), ErrNothing)
	}
	if report.PID == 0 {
		report.PID = pidIn(name)
	}
	report.Summary = workload.Printable(report.Summary, maxSummary)
	report.Location = workload.Printable(report.Location, maxSummary)
	return report, nil
}

// pidIn the name of a report: "report.123".
func pidIn(name string) int {
	return number(name[strings.LastIndexByte(name, '.')+1:])
}

// number of a process, or 0.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<22 { // PID_MAX_LIMIT
		return 0
	}
	return n
}

// classify tries the formats from the one that says most to the one that says least.
func classify(data []byte, lines []string) (Report, bool) {
	for line := range strings.Lines(string(data)) {
		// Where the hook cannot write its file, the line is in the log.
		if !strings.HasPrefix(line, `{"whittle":`) {
			continue
		}
		if r, ok := audited([]byte(line)); ok {
			return r, true
		}
	}
	for _, read := range []func(string, []string) (Report, bool){sanitizer, undefined, memcheck, library} {
		for i, line := range lines {
			if r, ok := read(line, lines[i+1:]); ok {
				r.Text = text(lines[i:])
				return r, true
			}
		}
	}
	for i, line := range lines {
		if strings.TrimSpace(line) != "" && !quietLine(line) {
			return Report{Kind: "unknown", Summary: strings.TrimSpace(line), Text: text(lines[i:])}, true
		}
	}
	return Report{}, false
}

func text(lines []string) string {
	var b strings.Builder
	for _, line := range lines[:min(len(lines), maxLines)] {
		b.WriteString(workload.Printable(line, maxLine))
		b.WriteByte('\n')
	}
	return b.String()
}

var (
	sanitizerLine = regexp.MustCompile(`^(?:==(\d+)==)?\s*(?:ERROR|WARNING): (Address|HWAddress|Memory|Thread|Leak|MemProf|UndefinedBehavior)Sanitizer:? ?(.*)$`)
	accessLine    = regexp.MustCompile(`^(?:==\d+==)?\s*(?:The signal is caused by a )?((?:READ|WRITE) (?:of size \d+|memory access))`)
	// "#0 0x55 in f file.c:1", "#0 0x55  (/usr/bin/x+0x1317)"
	frameLine     = regexp.MustCompile(`^\s*#\d+ 0x[0-9a-f]+\s+(?:in )?(.*?)\s*$`)
	moduleIn      = regexp.MustCompile(`\(([^()]*?)(?:\+0x[0-9a-f]+)?\)`)
	undefinedLine = regexp.MustCompile(`^(\S+?:\d+(?::\d+)?|<unknown>|\S+\+0x[0-9a-f]+): runtime error: (.*)$`)
	memcheckLine  = regexp.MustCompile(`^(?:==|\*\*)(\d+)(?:==|\*\*) ?(.*)$`)
	memcheckFrame = regexp.MustCompile(`^\s+(?:at|by) 0x[0-9A-F]+: (.*)$`)
	addressText   = regexp.MustCompile(` on (?:unknown )?address.*$| \(pc 0x.*$`)
)

var sanitizerKinds = map[string]string{
	"Address": "asan", "HWAddress": "hwasan", "Memory": "msan", "Thread": "tsan", "Leak": "lsan", "UndefinedBehavior": "ubsan",
}

// sanitizer reads "==123==ERROR: AddressSanitizer: heap-use-after-free on address 0x… at pc …".
func sanitizer(line string, after []string) (Report, bool) {
	m := sanitizerLine.FindStringSubmatch(line)
	if m == nil {
		return Report{}, false
	}
	kind := sanitizerKinds[m[2]]
	if kind == "" {
		kind = "unknown"
	}
	// Addresses differ each time; what happened does not.
	r := Report{Kind: kind, PID: number(m[1]), Summary: addressText.ReplaceAllString(m[3], "")}
	for _, line := range after[:min(len(after), maxLines)] {
		if access := accessLine.FindStringSubmatch(line); access != nil {
			r.Summary += ", " + access[1]
			break
		}
	}
	r.Location = location(after)
	return r, true
}

// location is the first frame of a stack that is not the runtime's own.
func location(lines []string) string {
	for _, line := range lines[:min(len(lines), maxLines)] {
		m := frameLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if module := moduleIn.FindStringSubmatch(m[1]); module != nil && OwnCall(module[1]) {
			continue
		}
		return strings.TrimSpace(m[1])
	}
	return ""
}

// undefined reads "a.c:8:50: runtime error: signed integer overflow: …".
func undefined(line string, after []string) (Report, bool) {
	m := undefinedLine.FindStringSubmatch(line)
	if m == nil {
		return Report{}, false
	}
	r := Report{Kind: "ubsan", Summary: m[2], Location: m[1]}
	if m[1] == "<unknown>" {
		r.Location = location(after)
	}
	return r, true
}

// memcheckFaults begin what memcheck reports.
var memcheckFaults = []string{
	"Invalid ", "Mismatched ", "Jump to the invalid address", "Source and destination overlap", "Conditional jump ", "Use of uninit",
	"Syscall param ", "Process terminating with default action of signal", "Argument '", "Illegal memory pool", "Unaddressable byte",
	"Uninitialised byte", "valgrind: the 'impossible' happened",
}

// memcheck reads "==123== Invalid read of size 4".
func memcheck(line string, after []string) (Report, bool) {
	m := memcheckLine.FindStringSubmatch(line)
	if m == nil {
		return Report{}, false
	}
	summary := strings.TrimSpace(m[2])
	for _, fault := range memcheckFaults {
		if !strings.HasPrefix(summary, fault) {
			continue
		}
		r := Report{Kind: "valgrind", PID: number(m[1]), Summary: summary}
		for _, line := range after[:min(len(after), maxLines)] {
			next := memcheckLine.FindStringSubmatch(line)
			if next == nil {
				break
			}
			frame := memcheckFrame.FindStringSubmatch(" " + next[2])
			if frame == nil {
				continue
			}
			if _, in, _ := strings.Cut(frame[1], "(in "); OwnCall(strings.TrimSuffix(in, ")")) {
				continue
			}
			r.Location = frame[1]
			break
		}
		return r, true
	}
	return Report{}, false
}

// quietLine is one that valgrind writes whether or not there is a fault, or a rule.
func quietLine(line string) bool {
	return memcheckLine.MatchString(line) || strings.Trim(line, "=- ") == ""
}

// libraryFaults are what glibc prints before it aborts.
var libraryFaults = regexp.MustCompile(`\*\*\* [a-z %-]+ \*\*\*|` +
	`\b(?:free|malloc|calloc|realloc|memalign|munmap_chunk|mremap_chunk|malloc_consolidate|malloc_check_get_size|tcache_thread_shutdown|_int_free|_int_malloc)\(\): [^"]{3,80}|` +
	`double free or corruption[^"]{0,20}|corrupted size vs\. prev_size[^"]{0,40}|corrupted double-linked list[^"]{0,20}|` +
	`malloc_check_get_size: memory corruption|invalid pointer\b|Fatal glibc error: [^"]{3,120}|` +
	`break adjusted to free malloc space|chunk is smaller than header size|fatal allocator error: [^"]{3,80}`)

// library reads "free(): invalid pointer", wherever in a log it is.
func library(line string, _ []string) (Report, bool) {
	fault := libraryFaults.FindString(line)
	if fault == "" {
		return Report{}, false
	}
	return Report{Kind: "glibc", Summary: strings.Trim(fault, "* ")}, true
}

// audited reads the line that one of our hooks wrote. "whittle" in it names the hook.
func audited(data []byte) (Report, bool) {
	var line struct {
		Whittle string   `json:"whittle"`
		Event   string   `json:"event"`
		What    string   `json:"what"`
		Why     string   `json:"why"`
		PID     int      `json:"pid"`
		Frames  []string `json:"frames"`
	}
	if json.Unmarshal(data, &line) != nil {
		return Report{}, false
	}
	if !Kind(line.Whittle).audits() {
		return Report{}, false
	}
	r := Report{Kind: line.Whittle, PID: number(strconv.Itoa(line.PID))}
	r.Summary = workload.Printable(line.Event, 60) + " " + workload.Printable(line.What, 80) + ": " + workload.Printable(line.Why, 80)
	if len(line.Frames) > 0 {
		r.Location = line.Frames[0]
	}
	var frames []string
	for _, frame := range line.Frames {
		frames = append(frames, workload.Printable(frame, maxLine))
	}
	r.Text = text(append([]string{r.Summary}, frames...))
	return r, true
}
