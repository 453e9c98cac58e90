#!/usr/bin/env node
// Finds LibTorch on this machine, or fetches it. See docs/install.md for the order and the variables.
//   node scripts/libtorch.mjs locate     prints the folder, without fetching
//   node scripts/libtorch.mjs fetch      prints the folder, fetching it where needed
//   node scripts/libtorch.mjs libraries  prints what to link, for binding.gyp
//   node scripts/libtorch.mjs openmp     prints the compiler's flag for OpenMP where it is used, for binding.gyp
//   node scripts/libtorch.mjs core       prints the C++ sources of the core's archive, for binding.gyp
//   node scripts/libtorch.mjs addon      prints the others: those that know Node, and the backbones, for binding.gyp
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { SUPPORTED, inspectLibtorch, isSupported } from './libtorch_folder.mjs';
import { cachedFolder, fetchArchive, fetchWheel } from './libtorch_fetch.mjs';
import { requestedVariant, wantedVariants } from './libtorch_release.mjs';

export const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** No LibTorch could be had; `attempts` is the list of { source, outcome } of all that was tried. */
export class LibtorchMissing extends Error {
  constructor(message, attempts) {
    const tried = attempts.map(({ source, outcome }) => `  ${source}: ${outcome}`);
    super([`${message}; tried:`, ...tried].join('\n'));
    this.name = 'LibtorchMissing';
    this.reason = message;
    this.attempts = attempts;
  }
}

const WHERE_IS_TORCH =
  'import importlib.util as u; s = u.find_spec("torch"); print(list(s.submodule_search_locations or [""])[0] if s else "")';

function pythons(env) {
  const usual = process.platform === 'win32' ? ['python', 'python3'] : ['python3', 'python'];
  return env.PYTHON ? [env.PYTHON] : usual;
}

/** The first Python that runs, as { python, torch: folder or '' }; undefined without one. */
function askPython(env) {
  for (const python of pythons(env)) {
    try {
      // At the root, so that a folder named torch in the current one is not taken for the package.
      const cwd = path.parse(process.cwd()).root;
      const options = { env, cwd, encoding: 'utf8', timeout: 30000, stdio: ['ignore', 'pipe', 'ignore'] };
      return { python, torch: execFileSync(python, ['-c', WHERE_IS_TORCH], options).trim() };
    } catch {
      // Absent, or too broken to say where its packages are: the next one may do.
    }
  }
  return undefined;
}

/** One search: what it may look at and what it has tried so far. */
class Search {
  constructor(env, log) {
    this.env = env;
    this.log = log;
    this.attempts = [];
    this.requested = requestedVariant(env);
    this.usePytorch = env.LIBTORCH_USE_PYTORCH === '1';
  }

  note(source, outcome) {
    this.attempts.push({ source, outcome });
    return undefined;
  }

  fail(message) {
    throw new LibtorchMissing(message, this.attempts);
  }

  take(found, source) {
    this.note(source, `LibTorch ${found.version} (${found.variant}) in ${found.dir}`);
    if (!isSupported(found.version)) {
      this.log(`warning: LibTorch ${found.version} in ${found.dir} is not one of ${SUPPORTED}, which cellcam supports`);
    }
    return { ...found, source, attempts: this.attempts };
  }

  fromVariable() {
    const dir = this.env.LIBTORCH;
    if (!dir) return this.note('LIBTORCH', 'not set');
    const found = inspectLibtorch(dir);
    if (!found.flaw) return this.take(found, 'LIBTORCH');
    this.note('LIBTORCH', `${dir}: ${found.flaw}`);
    return this.fail(
      `Expected a folder with LibTorch's include/ and lib/ for LIBTORCH but received '${dir}': ${found.flaw}`,
    );
  }

  fromPython() {
    const source = this.usePytorch ? 'LIBTORCH_USE_PYTORCH' : "Python's torch";
    const asked = askPython(this.env);
    this.python = asked?.python;
    const found = asked?.torch ? inspectLibtorch(asked.torch) : undefined;
    const flaw = this.flawOfPython(asked, found);
    if (!flaw) return this.take(found, source);
    this.note(source, flaw);
    return this.usePytorch ? this.fail(`LIBTORCH_USE_PYTORCH=1 is set but no PyTorch can be used: ${flaw}`) : undefined;
  }

  flawOfPython(asked, found) {
    if (!asked) return `no ${pythons(this.env).join(' or ')} runs here`;
    if (!found) return `${asked.python} has no torch`;
    if (found.flaw) return `${asked.torch}: ${found.flaw}`;
    if (this.usePytorch) return undefined;
    if (!isSupported(found.version)) return `torch ${found.version} in ${asked.torch} is not one of ${SUPPORTED}`;
    const other = this.requested && this.requested !== found.variant;
    return other ? `torch in ${asked.torch} is ${found.variant}, but CELLCAM_TORCH is ${this.requested}` : undefined;
  }

  fromCache(variant) {
    const dir = cachedFolder(variant, this.env);
    const found = inspectLibtorch(dir);
    return found.flaw ? this.note('cache', `${dir}: ${found.flaw}`) : this.take(found, 'cache');
  }

  /** Whatever is on this machine already. */
  local() {
    const explicit = this.fromVariable() ?? this.fromPython();
    if (explicit) return explicit;
    this.variants = wantedVariants(this.env);
    return this.fromCache(this.variants[0]);
  }

  async fetched() {
    const ways = [
      ['official archive', fetchArchive],
      ['wheel', fetchWheel],
    ];
    for (const variant of this.variants) {
      const cached = variant === this.variants[0] ? undefined : this.fromCache(variant);
      if (cached) return cached;
      for (const [name, fetchIt] of ways) {
        const found = await this.attempt(`${name} (${variant})`, () => fetchIt(variant, this.options()));
        if (found) return found;
      }
    }
    return this.fail('no LibTorch could be found or fetched');
  }

  options() {
    return { env: this.env, log: this.log, python: this.python ?? pythons(this.env)[0] };
  }

  async attempt(source, run) {
    try {
      return this.take(await run(), source);
    } catch (error) {
      this.log(`${source}: ${error.message}`);
      return this.note(source, error.message);
    }
  }
}

const toStderr = (line) => console.error(`cellcam: ${line}`);

/**
 * LibTorch on this machine as { dir, version, variant, source, attempts }.
 * Throws LibtorchMissing if there is none, or if a variable names something that is none.
 */
export function locateLibtorch({ env = process.env, log = toStderr } = {}) {
  const search = new Search(env, log);
  return search.local() ?? search.fail('no LibTorch was found on this machine');
}

/** Like locateLibtorch, but fetches it into the cache folder where there is none. */
export async function ensureLibtorch({ env = process.env, log = toStderr } = {}) {
  const search = new Search(env, log);
  return search.local() ?? (await search.fetched());
}

/** Every C++ source of the addon, relative to the package. */
export function nativeSources() {
  const lines = readFileSync(path.join(ROOT, 'native', 'sources.txt'), 'utf8').split(/\r?\n/);
  return lines.filter((line) => line.startsWith('native/'));
}

/** What binding.gyp links; the CUDA libraries are named because no symbol refers to them. */
function librariesIn(dir) {
  const cuda = readdirSync(path.join(dir, 'lib')).some((name) => /torch_cuda\.(so|lib)$/.test(name));
  const names = ['torch', 'torch_cpu', 'c10', ...(cuda ? ['torch_cuda', 'c10_cuda'] : [])];
  return names.map((name) => (process.platform === 'win32' ? `${name}.lib` : `-l${name}`));
}

/** Whether the compiler is GCC: its OpenMP is the one that LibTorch for Linux uses (CMakeLists.txt says why it matters). */
function hasGccOpenMp(env = process.env) {
  if (process.platform !== 'linux') return false;
  const [compiler, ...options] = (env.CXX || 'c++').split(/\s+/);
  const macros = execFileSync(compiler, [...options, '-dM', '-E', '-x', 'c++', '/dev/null'], { encoding: 'utf8' });
  return macros.includes('__GNUC__') && !macros.includes('__clang__');
}

/** LibTorch's own OpenMP runtime, or the compiler's where it has none of its own. */
function openMpIn(dir) {
  if (!hasGccOpenMp()) return [];
  const own = readdirSync(path.join(dir, 'lib')).find((name) => /^libgomp.*\.so/.test(name));
  return [own ? path.join(dir, 'lib', own) : '-lgomp'];
}

/** The folder of the sources that need Node's headers. */
// A linker takes from an archive only what is referred to by symbol: nothing refers to a backbone, which registers itself.
const inAddon = (file) => /^native\/(binding|model\/backbones)\//.test(file);

const slashes = (file) => file.replaceAll('\\', '/');

const COMMANDS = {
  locate: async () => [slashes(locateLibtorch().dir)],
  fetch: async () => [slashes((await ensureLibtorch()).dir)],
  libraries: async () => {
    const { dir } = await ensureLibtorch();
    return [...librariesIn(dir), ...openMpIn(dir)];
  },
  openmp: async () => (hasGccOpenMp() ? ['-fopenmp'] : []),
  core: async () => nativeSources().filter((file) => !inAddon(file)),
  addon: async () => nativeSources().filter(inAddon),
};

async function main([name = 'locate', flag]) {
  if (!(name in COMMANDS))
    throw new Error(`Expected one of ${Object.keys(COMMANDS).join(', ')} but received '${name}'`);
  if (flag === '--json') {
    return console.log(JSON.stringify(name === 'fetch' ? await ensureLibtorch() : locateLibtorch(), null, 2));
  }
  for (const line of await COMMANDS[name]()) console.log(line);
}

/** Whether this file, rather than one that imports it, was started. */
export function isMain(url) {
  return (
    Boolean(process.argv[1]) && existsSync(process.argv[1]) && realpathSync(process.argv[1]) === fileURLToPath(url)
  );
}

if (isMain(import.meta.url)) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(`cellcam: ${error.message}`);
    process.exitCode = 1;
  });
}
