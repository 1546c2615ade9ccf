# SPDX-License-Identifier: Apache-2.0
# Makes held calls through the C library, as services do, and times them: the program of latency.go.
#   asker.py NUMBER…: the calls that are held, of which the first two are umask and getppid. It prints the listener's descriptor, and
#   obeys "time N" (these two by turns, N times: prints the ns of each), "each" (all others once, with arguments that are
#   wrong: prints the ns of each) and "flood" (umask until it is killed).
import ctypes, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
held = [int(a) for a in sys.argv[1:]]
NOTIFY, ALLOW = 0x7FC00000, 0x7FFF0000
code = [(0x20, 0, 0, 0)]  # the number; the architecture is this program's own
code += [(0x15, len(held) - i, 0, nr) for i, nr in enumerate(held)]
code += [(0x06, 0, 0, ALLOW), (0x06, 0, 0, NOTIFY)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(text)))
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
seccomp = {"x86_64": 317, "aarch64": 277}[__import__("os").uname().machine]
fd = libc.syscall(seccomp, 1, 8, program)  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
if fd < 0:
    sys.exit("no filter: errno %d" % ctypes.get_errno())
print(fd, flush=True)

umask, getppid, clock = libc.umask, libc.getppid, time.perf_counter_ns
for line in sys.stdin:
    words = line.split()
    if words[0] == "flood":
        while True:
            umask(0o22)
    if words[0] == "each":
        took = []
        for nr in held[2:]:
            a = clock()
            libc.syscall(nr, -1, -1, -1, -1, -1, -1)
            took.append(clock() - a)
        print(*took, flush=True)
        continue
    first, second = [], []
    for _ in range(int(words[1])):
        a = clock()
        umask(0o22)
        b = clock()
        getppid()
        c = clock()
        first.append(b - a)
        second.append(c - b)
    print(*first)
    print(*second, flush=True)
