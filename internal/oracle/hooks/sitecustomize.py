# SPDX-License-Identifier: Apache-2.0
#
# The audit hook of Whittle's oracle for Python (3.8 and later). Python imports this file at its start, because PYTHONPATH
# names its directory. From then on every event that an intruder needs (a program, a shared library, a connection) is
# looked at: when a frame on the stack runs code that is in no file of the image, a report is written and the process ends
# before the event happens.
#
# What it does not see: code that was injected and lets code of the image do the rest later (a timer, a callback).
#
# All that the hook needs is bound to locals of one function: what it would look up by name could be replaced. An exception
# in an audit hook, even one that a signal handler raises here, makes the event not happen, so nothing is caught.


def _install():
    import errno
    import posix
    import stat
    import sys
    import time

    getframe, pid, end = sys._getframe, posix.getpid, posix._exit
    posix_stat, posix_open, posix_write, posix_close = posix.stat, posix.open, posix.write, posix.close
    regular, os_error, value_error = stat.S_ISREG, OSError, ValueError
    string, binary, number, text, kind, size, is_a, id_of = str, bytes, int, repr, type, len, isinstance, id
    code_type = kind(_install.__code__)
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    writing = posix.O_WRONLY | posix.O_RDWR
    missing = (errno.ENOENT, errno.ENOTDIR)
    reports = posix.environ.get(b"WHITTLE_REPORTS", b"/run/whittle-oracle").decode("utf-8", "surrogateescape")
    here = posix.getcwd()
    began = time.time()

    # Events that need every frame to be the image's.
    watched = {
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "os.startfile/2",
        "subprocess.Popen", "pty.spawn", "whittle.fork_exec",
        "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
        "ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle", "ctypes.call_function", "ctypes.string_at",
        "ctypes.wstring_at", "ctypes.cdata", "ctypes.cdata/buffer", "ctypes.addressof", "ctypes.PyObj_FromPtr",
        # Ways to get at this hook, or to where it is not.
        "gc.get_objects", "gc.get_referrers", "gc.get_referents", "cpython.PyInterpreterState_New",
        "cpython._PySys_ClearAuditHooks", "sys.remote_exec", "cpython.remote_debugger_script",
        "marshal.loads", "_thread.start_new_thread", "_thread.start_joinable_thread",
    }
    # Where code is compiled under a name of somebody's choice.
    named = {"compile", "exec", "code.__new__"}
    # Unpickled data that names these is an attack, whoever unpickles it.
    never_pickled = {
        "os": None, "posix": None, "nt": None, "subprocess": None, "_posixsubprocess": None, "pty": None, "ctypes": None,
        "runpy": None, "code": None, "socket": {"create_connection"}, "sys": {"_getframe", "settrace", "modules"},
        "builtins": {"eval", "exec", "compile", "__import__", "open", "breakpoint"},
        "__builtin__": {"eval", "exec", "compile", "__import__", "open", "execfile"},
    }
    pickled_allowed = {("os", "stat_result"), ("posix", "stat_result"), ("os", "terminal_size"), ("os", "_make_stat_result"),
                       ("os", "fspath"), ("subprocess", "CompletedProcess"), ("subprocess", "CalledProcessError"),
                       ("subprocess", "TimeoutExpired")}
    # Anybody may write there; nothing of an image is meant to run from there.
    writable = ("/tmp/", "/var/tmp/", "/dev/", "/run/", "/var/run/", "/proc/")
    # Modules that make methods from text; the text is of names that they checked.
    makers = ("/dataclasses.py", "/collections/__init__.py", "/attr/_make.py", "/decorator.py")
    # What is written to a file of /proc may be the memory of this process: what is done with it then has no event.
    try:
        proc = posix_stat("/proc").st_dev
    except OSError:
        proc = None
    # All that the commands of multiprocessing's own processes name.
    workers = (("multiprocessing.spawn", "spawn_main"), ("multiprocessing.resource_tracker", "main"),
               ("multiprocessing.forkserver", "main"))
    known = {_install.__code__.co_filename: ""}  # file name -> "" or why it is not trusted
    forged = {}  # file names under which other code was compiled
    made = {}    # id of code that a maker made -> the code, which keeps the id taken

    def of_image(name):
        """"" when name is a regular file that was there when the service started, else why not."""
        if name[:8] == "<frozen ":
            return ""
        if not name or name[0] == "<":
            return "code that is in no file"
        path = name if name[0] == "/" else here + "/" + name
        if path.startswith(writable):
            return "a file in a directory for everybody"
        while True:
            try:
                st = posix_stat(path)
            except os_error as e:
                # A module in an archive has the archive's path before its own.
                path = path.rpartition("/")[0]
                if e.errno not in missing or size(path) < 2:
                    return "code that is in no file"
                continue
            except value_error:
                return "code that is in no file"
            if not regular(st.st_mode):
                return "code that is in no file"
            if st.st_ctime > began:
                return "a file that was written after the service had started"
            return ""

    def trust(name):
        why = known.get(name)
        if why is None:
            why = of_image(name)
            if size(known) < 100000:
                known[name] = why
        return why

    def distrust(frame):
        """The first frame that is not the image's, and why; None when all are."""
        while frame is not None:
            code = frame.f_code
            name = code.co_filename
            if name in forged:
                return frame, "code that was compiled under the name of another file"
            why = trust(name)
            if why and made.get(id_of(code)) is not code:
                return frame, why
            frame = frame.f_back
        return None

    def quote(s):
        out = ""
        for c in s[:300]:
            out += c if " " <= c <= "~" and c not in '"\\' else "?"
        return '"' + out + '"'

    def show(value):
        if is_a(value, string):
            return value
        if is_a(value, binary):
            return value[:400].decode("ascii", "replace")
        # Not repr of just anything: that would run the intruder's code.
        if kind(value) in (number, kind(None), kind(True)):
            return text(value)
        if kind(value) in (kind([]), kind(())):
            return " ".join([show(v) for v in value[:8]])
        return "<" + kind(value).__name__ + ">"

    def report(event, args, why, frame):
        what = show(args)
        frames = []
        while frame is not None and size(frames) < 12:
            frames.append(quote("%s:%d %s" % (frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)))
            frame = frame.f_back
        line = '{"whittle":"audit-python","event":%s,"what":%s,"why":%s,"pid":%d,"frames":[%s]}\n' % (
            quote(event), quote(what), quote(why), pid(), ",".join(frames))
        data = line.encode("ascii", "replace")
        fd = 2
        for suffix in ("", ".1", ".2", ".3"):
            try:
                fd = posix_open("%s/report.%d%s" % (reports, pid(), suffix), flags, 0o644)
                break
            except os_error:
                continue
        try:
            posix_write(fd, data)
        except os_error:
            pass
        end(66)

    def keep(code):
        made[id_of(code)] = code
        for const in code.co_consts:
            if is_a(const, code_type):
                keep(const)

    def names(event, args, frame):
        """Code gets a name. An intruder must not lend it the name of a file of the image."""
        if event == "exec":
            code = args[0]
            if not is_a(code, code_type) or code.co_filename != "<string>" or size(made) > 100000:
                return
            if frame is None:
                # python -c: the service's own command, a worker of multiprocessing's, or an intruder's.
                if pid() == 1 or code.co_names in workers:
                    keep(code)
            elif frame.f_code.co_filename.endswith(makers) and distrust(frame) is None:
                keep(code)
            return
        name = args[1]
        if not is_a(name, string):
            name = name.decode("utf-8", "surrogateescape") if is_a(name, binary) else ""
        # The image's code may: imports do, and templates.
        if name not in forged and trust(name) == "" and distrust(frame) is not None and size(forged) < 100000:
            forged[name] = True

    def kernels(path):
        """True when an open for writing may be of the kernel's own files."""
        if is_a(path, number):
            return False
        if not is_a(path, (string, binary)):
            return True
        name = path if is_a(path, string) else path.decode("utf-8", "surrogateescape")
        # Where it is looked for from (dir_fd) is not told.
        if name.rpartition("/")[2] == "mem":
            return True
        try:
            return posix_stat(path).st_dev == proc
        except (os_error, value_error):
            return False

    def hook(event, args):
        if event == "open":
            if is_a(args[2], number) and args[2] & writing and kernels(args[0]):
                frame = getframe(0).f_back
                found = distrust(frame)
                if found is not None:
                    report(event, args[:1], found[1], found[0])
            return
        if event in watched:
            frame = getframe(0).f_back
            # An import that any code asks for reads the image's files.
            if event == "marshal.loads" and frame is not None and "<frozen importlib._bootstrap_external>" not in forged \
                    and frame.f_code.co_filename == "<frozen importlib._bootstrap_external>":
                return
            found = distrust(frame)
            if found is not None:
                report(event, args, found[1], found[0])
        elif event in named:
            names(event, args, getframe(0).f_back)
        elif event == "pickle.find_class":
            module, name = show(args[0]), show(args[1])
            if module in never_pickled and (module, name) not in pickled_allowed:
                only = never_pickled[module]
                if only is None or name.partition(".")[0] in only:
                    report(event, args, "unpickled data names what no data should", getframe(0).f_back)

    sys.addaudithook(hook)

    # It has no event of its own before 3.14.
    try:
        import _posixsubprocess
        inner = _posixsubprocess.fork_exec

        def fork_exec(*args):
            hook("whittle.fork_exec", args[:1])
            return inner(*args)

        _posixsubprocess.fork_exec = fork_exec
    except (ImportError, AttributeError):
        pass

    # Who started this twin looks for it: without the hook the twin vouches for nothing.
    try:
        posix_close(posix_open(reports + "/loaded.%d" % pid(), flags, 0o644))
    except os_error:
        pass


def _others():
    """The sitecustomize that would have been imported without this one."""
    import sys
    mine = __file__.rpartition("/")[0]
    sys.path[:] = [p for p in sys.path if p.rstrip("/") != mine]
    sys.path_importer_cache.pop(mine, None)
    own = sys.modules.pop(__name__)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as e:
        if e.name != "sitecustomize":
            raise
    finally:
        # The import of this file ends by looking itself up.
        if __name__ not in sys.modules:
            own.__dict__.pop("_install", None)
            own.__dict__.pop("_others", None)
            sys.modules[__name__] = own


_install()
_others()
