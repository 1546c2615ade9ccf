// SPDX-License-Identifier: Apache-2.0
//
// The audit module of Whittle's oracle for Node (16 and later), loaded first by NODE_OPTIONS=--require. Whoever starts a program,
// loads a native module, or asks for a binding of the runtime is looked at: when a frame on the stack runs code that is in
// no file of the image, a report is written and the process ends before it happens.
//
// What it does not see: code that was injected and lets a timer or a promise do the rest, when no frame of it is left.
//
// All that it needs is bound here: what is looked up by name later could have been replaced by then.
'use strict';
(() => {
  const fs = require('fs');
  const cp = require('child_process');
  const url = require('url');
  const { syncBuiltinESMExports } = require('module');

  const bind = Function.prototype.call.bind.bind(Function.prototype.call);
  const startsWith = bind(String.prototype.startsWith);
  const charCode = bind(String.prototype.charCodeAt);
  const has = bind(Map.prototype.has), get = bind(Map.prototype.get), set = bind(Map.prototype.set);
  const apply = Reflect.apply, construct = Reflect.construct, define = Reflect.defineProperty, own = Reflect.getOwnPropertyDescriptor;
  const { statSync, openSync, writeSync, closeSync, constants } = fs;
  const fileURLToPath = url.fileURLToPath;
  const text = String, ErrorType = Error;
  const end = process.reallyExit, target = process, pid = process.pid, here = process.cwd(), began = Date.now();
  const reports = process.env.WHITTLE_REPORTS || '/run/whittle-oracle';
  const known = new Map([[__filename, '']]);
  const writable = ['/tmp/', '/var/tmp/', '/dev/', '/run/', '/var/run/', '/proc/'];

  // '' when name is a regular file that was there when the service started, else why not.
  function ofImage(name) {
    if (startsWith(name, 'node:')) return '';
    let path = name;
    if (startsWith(name, 'file://')) {
      try { path = fileURLToPath(name); } catch { return 'code that is in no file'; }
    }
    if (path[0] !== '/') return 'code that is in no file';
    for (let i = 0; i < writable.length; i++) {
      if (startsWith(path, writable[i])) return 'a file in a directory for everybody';
    }
    let st;
    try { st = statSync(path); } catch { return 'code that is in no file'; }
    if ((st.mode & 0o170000) !== 0o100000) return 'code that is in no file';
    return st.ctimeMs > began ? 'a file that was written after the service had started' : '';
  }

  function trust(name) {
    if (has(known, name)) return get(known, name);
    const why = ofImage(name);
    set(known, name, why);
    return why;
  }

  // The stack as V8 has it. Whoever calls this is ours and trusted.
  let callSite = null;
  function stack() {
    const prepare = own(ErrorType, 'prepareStackTrace'), limit = own(ErrorType, 'stackTraceLimit');
    let sites = null;
    define(ErrorType, 'stackTraceLimit', { value: 200, writable: true, configurable: true, enumerable: true });
    define(ErrorType, 'prepareStackTrace', { value: (_, s) => { sites = s; return ''; }, writable: true, configurable: true });
    // Reading it is what makes V8 call prepareStackTrace.
    void new ErrorType().stack;
    if (prepare) define(ErrorType, 'prepareStackTrace', prepare); else delete ErrorType.prepareStackTrace;
    if (limit) define(ErrorType, 'stackTraceLimit', limit);
    return sites;
  }
  {
    const proto = Object.getPrototypeOf(stack()[0]);
    callSite = {
      isEval: bind(proto.isEval), isNative: bind(proto.isNative), file: bind(proto.getFileName), line: bind(proto.getLineNumber),
      name: bind(proto.getFunctionName),
    };
  }

  function distrust(sites) {
    if (sites === null || sites.length === 0) return { index: 0, why: 'the stack cannot be read' };
    for (let i = 0; i < sites.length; i++) {
      if (callSite.isEval(sites[i])) return { index: i, why: 'code that is in no file' };
      const file = callSite.file(sites[i]);
      // Its script may bear the name of any file.
      if (file === 'node:vm' && i > 0) return { index: i - 1, why: 'code that vm runs' };
      if (typeof file !== 'string' || file === '') {
        // Functions of the engine itself (Array.map …) have no file.
        if (callSite.isNative(sites[i]) || callSite.line(sites[i]) === null) continue;
        return { index: i, why: 'code that is in no file' };
      }
      const why = trust(file);
      if (why !== '') return { index: i, why };
    }
    return null;
  }

  function quote(value) {
    const s = typeof value === 'string' ? value : '<' + typeof value + '>';
    let out = '"';
    for (let i = 0; i < s.length && i < 300; i++) {
      const c = charCode(s, i);
      out += c < 0x20 || c > 0x7e || c === 0x22 || c === 0x5c ? '?' : s[i];
    }
    return out + '"';
  }

  function audit(event, what) {
    const sites = stack();
    const found = distrust(sites);
    if (found === null) return;
    let frames = '';
    for (let i = found.index, n = 0; sites !== null && i < sites.length && n < 12; i++, n++) {
      const name = callSite.name(sites[i]), file = callSite.file(sites[i]);
      frames += (n ? ',' : '') + quote((typeof file === 'string' ? file : '<eval>') + ':' + callSite.line(sites[i]) + ' ' +
        (typeof name === 'string' ? name : '<anonymous>'));
    }
    const line = '{"whittle":"audit-node","event":' + quote(event) + ',"what":' + quote(what) + ',"why":' + quote(found.why) +
      ',"pid":' + pid + ',"frames":[' + frames + ']}\n';
    let fd = 2;
    for (let n = 0; n < 4; n++) {
      try {
        fd = openSync(reports + '/report.' + pid + (n ? '.' + n : ''),
          constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o644);
        break;
      } catch { /* the next name, and at last stderr */ }
    }
    try { writeSync(fd, line); } catch { /* it ends all the same */ }
    apply(end, target, [66]);
  }

  // before calls audit and then what was there; name, length and properties stay as they are.
  function before(object, name, event, describe) {
    const inner = object[name];
    if (typeof inner !== 'function') return;
    const outer = new Proxy(inner, {
      apply(f, self, args) { audit(event, describe(args, self)); return apply(f, self, args); },
      construct(f, args, as) { audit(event, describe(args)); return construct(f, args, as); },
    });
    const had = own(object, name);
    define(object, name, { value: outer, writable: true, configurable: true, enumerable: had ? had.enumerable : true });
  }

  // What is written to a file of /proc may be the memory of this process: what is done with it then asks nobody.
  let proc = null;
  try { proc = statSync('/proc').dev; } catch { /* there is none */ }
  function kernels(path) {
    if (typeof path === 'number') return false;
    try { return statSync(path).dev === proc; } catch { return false; }
  }
  function writing(flags) {
    if (typeof flags === 'number') return (flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0;
    return typeof flags === 'string' && flags !== 'r' && flags !== 'rs' && flags !== 'sr';
  }
  function guarded(object, name, writes) {
    const inner = object[name];
    if (typeof inner !== 'function') return;
    const look = (args) => { if (writes(args[1]) && kernels(args[0])) audit('fs.' + name, text(args[0])); };
    const outer = new Proxy(inner, {
      apply(f, self, args) { look(args); return apply(f, self, args); },
      construct(f, args, as) { look(args); return construct(f, args, as); },
    });
    const had = own(object, name);
    define(object, name, { value: outer, writable: true, configurable: true, enumerable: had ? had.enumerable : true });
  }
  for (const object of [fs, fs.promises]) {
    for (const name of ['open', 'openSync']) guarded(object, name, writing);
  }
  for (const name of ['createWriteStream', 'WriteStream', 'FileWriteStream']) guarded(fs, name, () => true);

  const first = (args) => args[0];
  for (const name of ['spawn', 'exec', 'execFile', 'fork', 'spawnSync', 'execSync', 'execFileSync']) {
    before(cp, name, 'child_process.' + name, first);
  }
  before(cp.ChildProcess.prototype, 'spawn', 'ChildProcess.spawn', (args) => (args[0] ? args[0].file : ''));
  for (const name of ['binding', '_linkedBinding', 'dlopen', 'execve', '_debugProcess']) {
    before(process, name, 'process.' + name, (args) => (typeof args[0] === 'string' ? args[0] : args[1]));
  }
  const net = require('net'), workers = require('worker_threads'), dgram = require('dgram');
  const address = (args) => {
    const a = args[0] !== null && typeof args[0] === 'object' ? (args[0][0] && typeof args[0][0] === 'object' ? args[0][0] : args[0]) : null;
    return a ? text(a.host || a.path || '') + ':' + text(a.port || '') : text(args[0]) + ':' + text(args[1]);
  };
  before(net.Socket.prototype, 'connect', 'net.connect', address);
  before(net.Server.prototype, 'listen', 'net.listen', address);
  before(dgram.Socket.prototype, 'bind', 'dgram.bind', address);
  before(workers, 'Worker', 'worker_threads.Worker', first);
  syncBuiltinESMExports();

  // Who started this twin looks for it: without the module the twin vouches for nothing.
  try { closeSync(openSync(reports + '/loaded.' + pid, 'wx')); } catch { /* another thread of this process was first */ }
})();
