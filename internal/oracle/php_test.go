// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/services"
)

// php is a directory with the hook's files as they are mounted, and the environment that makes PHP read them.
type php struct {
	reports string
	env     []string
}

// hooked gives what Changes says for a twin, with directories of the test for the container's. image is what its
// PHP_INI_SCAN_DIR has, "" for none.
func hooked(t *testing.T, image, leave string) php {
	t.Helper()
	hooks := everybodys(t)
	p := php{reports: everybodys(t)}
	if err := os.Chmod(p.reports, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	production := Production{Env: map[string]string{}}
	if image != "" {
		production.Env["PHP_INI_SCAN_DIR"] = image
	}
	start, err := Spec{Kind: AuditPHP, Env: map[string]string{PHPLeave: leave}}.Changes(production, "/unused")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer(ReportDir, p.reports, HookDir, hooks)
	for _, f := range start.Files {
		if err := os.WriteFile(filepath.Join(hooks, filepath.Base(f.Name)), []byte(here.Replace(string(f.Content))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range start.Env {
		p.env = append(p.env, name+"="+here.Replace(value))
	}
	return p
}

// armed says what the agent would, of a program that serves and what is in the directory of reports.
func (p php) armed(t *testing.T, program string) error {
	t.Helper()
	entries, err := os.ReadDir(p.reports)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	line := "55d0-55d1 r-xp 00000000 08:01 1    " + program + "\n"
	return Spec{Kind: AuditPHP}.Armed(strings.NewReader(line), names)
}

// everybodys is a directory that php-fpm's processes can read, too.
func everybodys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func script(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(everybodys(t), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// What the image has set is still there: its directories of settings, what it runs first, what it has taken out of PHP. So is
// what the service needs.
func TestPHPServes(t *testing.T) {
	testenv.NeedTool(t, "php")
	first := script(t, "its first.php", "<?php $mine = 1;")
	settings := filepath.Dir(script(t, "zz.ini", "auto_prepend_file = \""+first+"\"\ndisable_functions = symlink,passthru\n"))
	p := hooked(t, ":"+settings, "exec,shell_exec")
	app := script(t, "app.php", `<?php
if ($mine !== 1 || array_keys(array_diff_key(get_defined_vars(), $GLOBALS)) !== []) exit('not run first');
if (function_exists('symlink') || function_exists('passthru')) exit('its own disable_functions are gone');
if (!function_exists('system')) exit('system is not there');
if (getenv('COLUMNS') !== '80') exit('a terminal is asked for');
if (exec('echo of exec') !== 'of exec' || `+"`echo of a shell`"+` !== "of a shell\n") exit('what was left is not there');
if (eval('return 1;') !== 1) exit('eval');
try { symlink('/a', '/b'); } catch (Error $e) { echo 'served'; }
`)
	for range 2 { // there is a mark, or not
		out, code, got := runAudited(t, p.env, p.reports, "php", app)
		if code != 0 || len(got) != 0 || out != "served" {
			t.Errorf("exit code %d, reports %+v, output:\n%s", code, got, out)
		}
		if err := p.armed(t, "/usr/bin/php8.2"); err != nil {
			t.Error(err)
		}
	}
}

func TestPHPAborts(t *testing.T) {
	testenv.NeedTool(t, "php")
	attack := "system('echo PWNED');"
	for _, tc := range []struct{ name, code, want string }{
		{"system", attack, "system echo PWNED: a script starts a program"},
		{"exec", "exec('echo PWNED', $out, $status); echo $out[0];", "exec echo PWNED"},
		{"backticks", "echo `echo PWNED`;", "shell_exec echo PWNED"},
		{"passthru", "passthru('echo PWNED');", "passthru echo PWNED"},
		{"popen", "fpassthru(popen('echo PWNED', 'r'));", "popen echo PWNED"},
		{"proc_open", "proc_open('echo PWNED', [], $pipes);", "proc_open echo PWNED"},
		{"proc_open without a shell", "proc_open(['echo', 'PWNED'], [], $pipes);", "proc_open echo PWNED"},
		{"proc_open by names", "proc_open(command: 'echo PWNED', descriptor_spec: [], pipes: $pipes, options: []);", "proc_open echo PWNED"},
		{"pcntl_exec", "pcntl_exec('/bin/echo', ['PWNED']);", "pcntl_exec /bin/echo PWNED"},
		{"mail", "mail('a@b', 's', 'm', '', '-X/tmp/PWNED');", "mail a@b -X/tmp/PWNED: a script starts sendmail"},
		{"dl", "dl('/tmp/evil.so');", "dl /tmp/evil.so: a script loads foreign code"},
		{"FFI", "FFI::cdef('int system(const char *);')->system('echo PWNED');", "FFI : a script loads foreign code"},
		{"FFI with a header", "FFI::load('/tmp/x.h');", "FFI"},
		{"in a namespace", "namespace app; \\call_user_func(function () { " + attack + " });", "system"},
		{"by name", "$f = 'sys' . 'tem'; $f('echo PWNED');", "system"},
		{"by a callback", "array_map('system', ['echo PWNED']);", "system"},
		{"by reflection", "(new ReflectionFunction('system'))->invoke('echo PWNED');", "system"},
		{"at the end", "register_shutdown_function(fn () => system('echo PWNED'));", "system"},
		{"in a fiber", "(new Fiber(fn () => system('echo PWNED')))->start();", "system"},
		{"whoever catches", "try { " + attack + " } catch (Throwable $e) {} finally { echo 'PWNED'; }", "system"},
		{"whoever handles", "set_error_handler(function () { throw new Exception; }); file_put_contents(get_cfg_var('whittle.reports') . '/report.' . getmypid(), 'x'); " + attack, "system"},
		{"not a text", "system(new class { function __toString() { echo 'PWNED'; return ''; } });", "system <object>"},
		{"no text of this world", `system("echo PWNED \xff\e[2J\n");`, "system echo PWNED ??[2J?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := hooked(t, "", "")
			out, code, got := runAudited(t, p.env, p.reports, "php", script(t, "app.php", "<?php "+tc.code))
			if code != -1 && code != AbortCode || strings.Contains(out, "PWNED\n") { // -1: it ends by a signal
				t.Errorf("exit code %d, output:\n%s", code, out)
			}
			got = slices.DeleteFunc(got, func(r Report) bool { return r.Kind == "unknown" }) // a test's own
			if len(got) != 1 || got[0].Kind != "audit-php" || !strings.HasPrefix(got[0].Summary, tc.want) {
				t.Fatalf("reports %+v, want one with %q", got, tc.want)
			}
			if got[0].PID == 0 || !strings.Contains(got[0].Text, "app.php:1") {
				t.Errorf("%+v", got[0])
			}
		})
	}
}

// Whoever calls by name or by reference calls what PHP has.
func TestPHPFunctionsAreLikePHPs(t *testing.T) {
	testenv.NeedTool(t, "php")
	p := hooked(t, "", "")
	show := script(t, "show.php", `<?php
foreach (['exec', 'shell_exec', 'system', 'passthru', 'popen', 'proc_open', 'pcntl_exec', 'mail', 'mb_send_mail', 'dl'] as $name) {
	if (!function_exists($name)) continue;
	$f = new ReflectionFunction($name);
	echo "\n", $name, ':';
	foreach ($f->getParameters() as $p) echo ' ', $p->isPassedByReference() ? '&' : '', $p->getName(), $p->isOptional() ? '?' : '';
}
`)
	want, err := exec.Command("php", show).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	out, code, _ := runAudited(t, p.env, p.reports, "php", show)
	if code != 0 || out != string(want) || !strings.Contains(out, "proc_open: command") {
		t.Errorf("exit code %d, functions:\n%s\nwant:\n%s", code, out, want)
	}
}

// Where the hook's settings do not count, nothing is vouched for.
func TestPHPNotArmed(t *testing.T) {
	testenv.NeedTool(t, "php")
	app := script(t, "app.php", "<?php echo 'served';")
	for _, options := range [][]string{
		{"-n"}, {"-d", "auto_prepend_file="}, {"-d", "disable_functions="}, {"-d", "disable_functions=system"}, {"-d", "ffi.enable=1"},
		{"-d", "disable_functions=exec,shell_exec,system,passthru,popen,proc_open,pcntl_exec,mail,mb_send_mail,dl,json_encode"},
	} {
		p := hooked(t, "", "")
		out, code, got := runAudited(t, p.env, p.reports, append(append([]string{"php"}, options...), app)...)
		if code != 0 || out != "served" || len(got) != 0 {
			t.Errorf("php %s: exit code %d, %+v, output:\n%s", options, code, got, out)
		}
		if err := p.armed(t, "/usr/bin/php8.2"); err == nil {
			t.Errorf("php %s is armed", options)
		}
	}
}

// What was seen of one kind of PHP says nothing of another.
func TestPHPArmed(t *testing.T) {
	for _, tc := range []struct {
		program, file string
		want          bool
	}{
		{"/usr/sbin/php-fpm8.2", "loaded.fpm-fcgi", true}, {"/usr/sbin/php-fpm8.2", "loaded.cli", false},
		{"/usr/bin/php8.2", "loaded.cli", true}, {"/usr/local/bin/php", "loaded.cli-server", true}, {"/usr/bin/php", "loaded.fpm-fcgi", false},
		{"/usr/lib/cgi-bin/php-cgi8.2", "loaded.cgi-fcgi", true}, {"/usr/lib/apache2/modules/libphp8.2.so", "loaded.apache2handler", true},
		{"/usr/sbin/nginx", "loaded.fpm-fcgi", true}, {"/usr/sbin/nginx", "loaded.cli", false}, {"/usr/bin/phpize", "loaded.cli", false},
		{"/usr/sbin/php-fpm8.2", "report.1", false}, {"", "", false},
	} {
		err := Spec{Kind: AuditPHP}.Armed(strings.NewReader("1-2 r-xp 0 0 0 [heap]\n3-4 r-xp 0 0 0 "+tc.program+"\n"), []string{"report.9", tc.file})
		if (err == nil) != tc.want {
			t.Errorf("%s with %s: %v, want %v", tc.program, tc.file, err, tc.want)
		}
	}
}

const phpService = `<?php
if (isset($_GET['host'])) { echo 'pinged ', system('echo ' . $_GET['host']); }
elseif (isset($_GET['eval'])) { eval($_GET['eval']); }
else { file_put_contents('/dev/null', 'x'); echo 'hello ', PHP_SAPI; }
`

// served is one of PHP's servers with phpService: ask gives its answer.
type served func(t *testing.T, query url.Values) string

// webServer is PHP's own.
func webServer(t *testing.T, p php) served {
	testenv.NeedTool(t, "php")
	address := freeAddress(t)
	begin(t, exec.Command("php", "-S", address, "-t", filepath.Dir(script(t, "index.php", phpService))), p, address)
	return func(t *testing.T, query url.Values) string {
		resp, err := http.Get("http://" + address + "/?" + query.Encode())
		if err != nil {
			return "" // a process that was ended answers nobody
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
}

// fpm is a master whose processes see nothing of its environment, and one pool's settings besides the hook's.
func fpm(t *testing.T, p php) served {
	found, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if len(found) == 0 {
		testenv.NeedTool(t, "php-fpm")
		found = []string{"php-fpm"}
	}
	address, index := freeAddress(t), script(t, "index.php", phpService)
	conf := script(t, "fpm.conf", fmt.Sprintf(`[global]
error_log = %s
[www]
user = www-data
group = www-data
listen = %s
pm = static
pm.max_children = 2
clear_env = yes
php_admin_value[disable_functions] = link
php_admin_flag[display_errors] = on
`, filepath.Join(t.TempDir(), "log"), address))
	begin(t, exec.Command(found[0], "-F", "-y", conf), p, address)
	return func(t *testing.T, query url.Values) string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		out, err := services.FastCGI(conn, map[string]string{
			"SCRIPT_FILENAME": index, "SCRIPT_NAME": "/index.php", "REQUEST_METHOD": "GET", "QUERY_STRING": query.Encode(),
		})
		_, body, _ := strings.Cut(out, "\r\n\r\n")
		return fmt.Sprint(body, err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// begin a server, and wait until it listens.
func begin(t *testing.T, cmd *exec.Cmd, p php, address string) {
	t.Helper()
	cmd.Env = append(os.Environ(), p.env...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // php-fpm ends its processes
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for range 400 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("it does not listen")
}

// The servers of PHP: each request is served as without the hook until somebody injects a command, or code.
func TestPHPServers(t *testing.T) {
	for _, tc := range []struct {
		name          string
		serve         func(*testing.T, php) served
		sapi, program string
		ends          bool // with its first attack, as it has one process
	}{
		{"its own", webServer, "cli-server", "/usr/bin/php", true},
		{"php-fpm", fpm, "fpm-fcgi", "/usr/sbin/php-fpm8.2", false},
	} {
		for _, attack := range []struct {
			name, want string
			query      url.Values
		}{
			{"command", "system echo x; echo PWNED", url.Values{"host": {"x; echo PWNED"}}},
			{"code", "shell_exec echo PWNED", url.Values{"eval": {"echo `echo PWNED`;"}}},
			{"FFI", "FFI : a script", url.Values{"eval": {"FFI::cdef('int puts(const char *);')->puts('PWNED');"}}},
		} {
			t.Run(tc.name+" "+attack.name, func(t *testing.T) {
				p := hooked(t, "", "")
				ask := tc.serve(t, p)
				if err := p.armed(t, tc.program); err == nil {
					t.Error("it is armed before a script has run")
				}
				for range 8 {
					if got := ask(t, nil); !strings.HasPrefix(got, "hello "+tc.sapi) {
						t.Fatal(got)
					}
				}
				if err := p.armed(t, tc.program); err != nil {
					t.Error(err)
				}
				if got := ask(t, attack.query); strings.Contains(got, "PWNED") || strings.Contains(got, "pinged") {
					t.Errorf("it answers %q", got)
				}
				got := reportsIn(t, p.reports)
				if len(got) != 1 || got[0].Kind != "audit-php" || !strings.HasPrefix(got[0].Summary, attack.want) {
					t.Errorf("reports %+v, want one with %q", got, attack.want)
				}
				if got := ask(t, nil); strings.HasPrefix(got, "hello ") == tc.ends {
					t.Errorf("after an attack it answers %q", got)
				}
			})
		}
	}
}
