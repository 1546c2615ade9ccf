// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// service is a directory that does not lie in /tmp: the hooks distrust what does.
func service(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := ""
	home, _ := os.UserHomeDir()
	for _, parent := range []string{".", home, "/var/lib"} {
		abs, err := filepath.Abs(parent)
		if err != nil || parent == "" || strings.HasPrefix(abs+"/", "/tmp/") || strings.HasPrefix(abs+"/", "/var/tmp/") ||
			strings.HasPrefix(abs+"/", "/run/") || strings.HasPrefix(abs+"/", "/dev/") {
			continue
		}
		if dir, err = os.MkdirTemp(abs, ".whittle-hooks-"); err == nil {
			break
		}
	}
	if dir == "" {
		t.Fatal("no directory outside /tmp can be written")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runAudited runs a command under a hook, and gives its output, its exit code and what was reported.
func runAudited(t *testing.T, env []string, reports string, command ...string) (out string, code int, _ []Report) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), append(env, "WHITTLE_REPORTS="+reports, "PYTHONDONTWRITEBYTECODE=1")...)
	data, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode(), reportsIn(t, reports)
}

func reportsIn(t *testing.T, dir string) (got []Report) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "report.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ReadReport(filepath.Base(file), f)
		if err != nil {
			t.Error(err)
		}
		f.Close()
		got = append(got, r)
	}
	return got
}

const pythonService = `import collections, ctypes, dataclasses, multiprocessing, os, pickle, socket, subprocess, threading
import sitecustomize
assert sitecustomize.mine == 1 and not hasattr(sitecustomize, "_install"), sitecustomize
P = collections.namedtuple("P", "a b")
@dataclasses.dataclass
class Job:
    x: int = 1
    def __post_init__(self): subprocess.run(["true"], check=True)
def double(x): return 2 * x
if __name__ == "__main__":
    Job()
    os.system("true")
    if os.fork() == 0: os._exit(0)
    os.wait()
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.close()
    t = threading.Thread(target=lambda: subprocess.check_output("true", shell=True)); t.start(); t.join()
    with multiprocessing.get_context("spawn").Pool(1) as pool: assert pool.map(double, [1, 2]) == [2, 4]
    assert pickle.loads(pickle.dumps(P(1, 2))).b == 2
    ctypes.CDLL(None).getpid()
    assert eval("1+1") == 2
    with open("/proc/self/oom_score_adj", "r+") as f: f.write(f.read())
    exec("with open(os.devnull, 'w') as f: f.write('x')")
    os.execvp("echo", ["echo", "served"])
`

// A service does all that is looked at, from its own files, and its own sitecustomize is there.
func TestPythonServes(t *testing.T) {
	testenv.NeedTool(t, "python3")
	hook := service(t, map[string]string{"sitecustomize.py": string(pythonHook)})
	dir := service(t, map[string]string{"app.py": pythonService, "sitecustomize.py": "mine = 1\n"})
	reports := t.TempDir()
	out, code, got := runAudited(t, []string{"PYTHONPATH=" + hook + ":" + dir}, reports, "python3", filepath.Join(dir, "app.py"))
	if code != 0 || len(got) != 0 || !strings.Contains(out, "served\n") {
		t.Errorf("exit code %d, reports %+v, output:\n%s", code, got, out)
	}
	if loaded, _ := filepath.Glob(filepath.Join(reports, "loaded.*")); len(loaded) == 0 {
		t.Error("nothing says that the hook was there")
	}
}

// Injected code of many kinds is ended before it has its way.
func TestPythonAborts(t *testing.T) {
	testenv.NeedTool(t, "python3")
	hook := service(t, map[string]string{"sitecustomize.py": string(pythonHook)})
	writable := t.TempDir()
	dir := service(t, map[string]string{"app.py": "import sys\nexec(sys.argv[1])\n", "load.py": `import pickle, sys
pickle.loads(sys.argv[1].encode("latin-1"))
`, "drop.py": `import os, sys
open(os.path.join(sys.argv[1], "fresh.py"), "w").write("import os; os.system('echo PWNED')")
sys.path.insert(0, sys.argv[1])
import fresh
`})
	app, attack := filepath.Join(dir, "app.py"), "import os; os.system('echo PWNED')"
	for _, tc := range []struct {
		name    string
		command []string
		want    string
	}{
		{"system", []string{app, attack}, "os.system echo PWNED: code that is in no file"},
		{"subprocess", []string{app, "import subprocess; subprocess.run(['echo', 'PWNED'])"}, "subprocess.Popen echo echo PWNED"},
		{"exec", []string{app, "import os; os.execvp('echo', ['echo', 'PWNED'])"}, "os.exec"},
		{"spawn", []string{app, "import os; os.posix_spawnp('echo', ['echo', 'PWNED'], os.environ)"}, "os.posix_spawn"},
		{"fork_exec", []string{app, "import _posixsubprocess; _posixsubprocess.fork_exec([b'/bin/echo', b'PWNED'])"}, "whittle.fork_exec"},
		{"connect", []string{app, "import socket; socket.socket().connect(('127.0.0.1', 9)); print('PWNED')"}, "socket.connect <socket> 127.0.0.1 9"},
		{"ctypes", []string{app, "import ctypes; ctypes.CDLL(None).system(b'echo PWNED')"}, "ctypes.dlopen"},
		{"the name of a file", []string{app, "exec(compile(\"" + attack + "\", __import__('os').__file__, 'exec'))"}, "under the name of another file"},
		{"the name of this hook", []string{app, "exec(compile(\"" + attack + "\", '" + hook + "/sitecustomize.py', 'exec'))"}, "under the name of another file"},
		{"a frozen name", []string{app, "exec(compile(\"" + attack + "\", '<frozen os>', 'exec'))"}, "under the name of another file"},
		{"a name given later", []string{app, "exec(compile(\"" + attack + "\", 'x', 'exec').replace(co_filename=__import__('os').__file__))"}, "under the name of another file"},
		{"other builtins", []string{app, "import builtins, os\nbuiltins.isinstance = lambda *a: False\nbuiltins.len = lambda *a: 0\nbuiltins.str = None\nos.system('echo PWNED')"}, "os.system"},
		{"no stack left", []string{app, "import os\ndef r():\n  try: r()\n  except RecursionError: os.system('echo PWNED')\nr()"}, "os.system"},
		{"its memory", []string{app, "f = open('/proc/self/mem', 'r+b', buffering=0); print('PWNED')"}, "open /proc/self/mem: code that is in no file"},
		{"its memory by another name", []string{app, "import os, tempfile; d = tempfile.mkdtemp(); os.symlink('/proc/self/mem', d + '/x'); os.open(d + '/x', os.O_RDWR); print('PWNED')"}, "open /tmp"},
		{"its memory from a directory", []string{app, "import os; os.open(b'mem', os.O_RDWR, dir_fd=os.open('/proc/self', os.O_RDONLY)); print('PWNED')"}, "open mem"},
		{"its memory by an object", []string{app, "import os\nclass P:\n  def __fspath__(self): return '/proc/self/mem'\nos.open(P(), os.O_RDWR); print('PWNED')"}, "open "},
		{"the hook itself", []string{app, "import gc; gc.get_objects(); print('PWNED')"}, "gc.get_objects"},
		{"pickle", []string{filepath.Join(dir, "load.py"), "cposix\nsystem\n(S'echo PWNED'\ntR."}, "pickle.find_class posix system"},
		{"a file in /tmp", []string{filepath.Join(dir, "drop.py"), writable}, "a file in a directory for everybody"},
		{"a new file", []string{filepath.Join(dir, "drop.py"), dir}, "a file that was written after the service had started"},
		{"a command line", []string{"-c", attack}, "code that is in no file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, code, got := runAudited(t, []string{"PYTHONPATH=" + hook}, t.TempDir(), append([]string{"python3"}, tc.command...)...)
			if code != AbortCode || strings.Contains(out, "PWNED") {
				t.Errorf("exit code %d, output:\n%s", code, out)
			}
			if len(got) != 1 || got[0].Kind != "audit-python" || !strings.Contains(got[0].Summary, tc.want) {
				t.Errorf("reports %+v, want one with %q", got, tc.want)
			}
		})
	}
}

const nodeService = `const cp = require('child_process'), net = require('net'), { Worker, isMainThread } = require('worker_threads');
if (isMainThread) {
  cp.execSync('true');
  const fs = require('fs'); fs.writeFileSync('/proc/self/oom_score_adj', fs.readFileSync('/proc/self/oom_score_adj'));
  fs.closeSync(fs.openSync('/proc/self/oom_score_adj', 'r+')); eval("fs.closeSync(fs.openSync('/dev/null', 'w')); fs.readFileSync('/proc/self/stat')");
  fs.createWriteStream('/dev/null').end();
  new Function('return 1')(); eval('1'); require('vm').runInNewContext('1');
  const s = net.createServer((c) => c.end()).listen(0, '127.0.0.1', () => {
    net.connect(s.address().port, '127.0.0.1').on('close', () => { s.close();
      [1].map(() => cp.spawn('true').on('exit', () => new Worker(__filename).on('exit', () => console.log('served')))); }).resume();
  });
} else { cp.execFileSync('true'); }
`

func TestNodeServes(t *testing.T) {
	testenv.NeedTool(t, "node")
	hook := service(t, map[string]string{"whittle-audit.js": string(nodeHook)})
	dir := service(t, map[string]string{"app.js": nodeService})
	reports := t.TempDir()
	out, code, got := runAudited(t, []string{"NODE_OPTIONS=--require=" + hook + "/whittle-audit.js"}, reports, "node", filepath.Join(dir, "app.js"))
	if code != 0 || len(got) != 0 || !strings.Contains(out, "served\n") {
		t.Errorf("exit code %d, reports %+v, output:\n%s", code, got, out)
	}
	if loaded, _ := filepath.Glob(filepath.Join(reports, "loaded.*")); len(loaded) == 0 {
		t.Error("nothing says that the module was there")
	}
}

func TestNodeAborts(t *testing.T) {
	testenv.NeedTool(t, "node")
	hook := service(t, map[string]string{"whittle-audit.js": string(nodeHook)})
	dir := service(t, map[string]string{"app.js": "globalThis.require = require;\neval(process.argv[2]);\n"})
	attack := "require('child_process').execSync('echo PWNED', {stdio: 'inherit'})"
	for _, tc := range []struct{ name, code, want string }{
		{"eval", attack, "child_process.execSync echo PWNED: code that is in no file"},
		{"Function", "new Function(\"" + attack + "\")()", "child_process.execSync"},
		{"the name of a file", "require('vm').runInThisContext(\"" + attack + "\", {filename: process.execPath})", "child_process.execSync"},
		{"spawn", "require('child_process').spawn('/bin/echo', ['PWNED'], {stdio: 'inherit'})", "child_process.spawn /bin/echo"},
		{"binding", "process.binding('spawn_sync'); console.log('PWNED')", "process.binding spawn_sync"},
		{"connect", "require('net').connect(9, '127.0.0.1').on('error', () => console.log('PWNED'))", "net.connect 127.0.0.1:9"},
		{"worker", "new (require('worker_threads').Worker)(\"" + attack + "\", {eval: true})", "worker_threads.Worker"},
		{"its memory", "require('fs').openSync('/proc/self/mem', 'r+'); console.log('PWNED')", "fs.openSync /proc/self/mem: code that is in no file"},
		{"its memory by number", "require('fs').open(Buffer.from('/proc/self/mem'), 2, () => console.log('PWNED'))", "fs.open /proc/self/mem"},
		{"its memory in time", "require('fs/promises').open('/proc/self/mem', 'r+').then(() => console.log('PWNED'))", "fs.open /proc/self/mem"},
		{"its memory as a stream", "new (require('fs').WriteStream)('/proc/self/mem', {flags: 'r+', start: 1}).on('open', () => console.log('PWNED'))", "fs.WriteStream"},
		{"other prototypes", "String.prototype.startsWith = () => true; Map.prototype.get = () => ''; Map.prototype.has = () => true; " + attack, "child_process.execSync"},
		{"no stack", "Error.stackTraceLimit = 0; Object.freeze(Error); " + attack, "child_process.execSync"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, code, got := runAudited(t, []string{"NODE_OPTIONS=--require=" + hook + "/whittle-audit.js"}, t.TempDir(), "node", filepath.Join(dir, "app.js"), tc.code)
			if code != AbortCode || strings.Contains(out, "PWNED") {
				t.Errorf("exit code %d, output:\n%s", code, out)
			}
			if len(got) != 1 || got[0].Kind != "audit-node" || !strings.Contains(got[0].Summary, tc.want) {
				t.Errorf("reports %+v, want one with %q", got, tc.want)
			}
		})
	}
}
