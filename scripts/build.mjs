#!/usr/bin/env node
// Builds the addon into build/Release/cellcam.node: by cmake-js, or by node-gyp on machines without CMake.
//   node scripts/build.mjs [--builder cmake-js|node-gyp]
//   node scripts/build.mjs --tests      builds and runs the native tests instead
//   node scripts/build.mjs --bench      builds build/cellcam_bench of native/bench instead
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ADDON, sourcesHash, writeRecord } from './build_record.mjs';
import { ROOT, ensureLibtorch, isMain } from './libtorch.mjs';

const CMAKE = [3, 18];
const MEMORY_PER_JOB = 2 * 1024 ** 3;
const KEPT_OUTPUT = 20000;

const require = createRequire(import.meta.url);

/** Runs a Node program or another one to its end, showing its output; rejects with the end of that output. */
async function run(program, args, env = process.env) {
  const child = spawn(program, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let tail = '';
  const show = (stream) => (chunk) => {
    stream.write(chunk);
    tail = (tail + chunk).slice(-KEPT_OUTPUT);
  };
  child.stdout.on('data', show(process.stdout));
  child.stderr.on('data', show(process.stderr));
  await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => (code === 0 ? resolve() : reject(failure(program, code ?? signal, tail))));
  });
}

/** The first lines of the output that look like the reason. */
function failure(program, status, tail) {
  const lines = tail.split('\n').filter((line) => /\b(fatal )?error\b|not found|no such|failed with/i.test(line));
  const reason = lines.slice(0, 5).join('\n') || tail.trim().split('\n').slice(-5).join('\n');
  return Object.assign(new Error(`${path.basename(program)} failed (${status}):\n${reason}`), { status });
}

/** As many compiles at once as there are cores, unless memory is short: each takes up to 2 GB. */
function jobs() {
  return Math.max(1, Math.min(os.availableParallelism(), Math.floor(os.totalmem() / MEMORY_PER_JOB)));
}

function hasCmake() {
  try {
    const said = execFileSync('cmake', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const [, major, minor] = said.match(/(\d+)\.(\d+)/) ?? [];
    return Number(major) * 1000 + Number(minor) >= CMAKE[0] * 1000 + CMAKE[1];
  } catch {
    return false;
  }
}

async function cmakeJs(command, args) {
  const program = require.resolve('cmake-js/bin/cmake-js');
  await run(process.execPath, [program, command, '--directory', ROOT, '--config', 'Release', ...args]);
}

/** Configures; once more from nothing if a cache of another folder, generator or compiler is in the way. */
async function configure(libtorch, { tests = false, bench = false } = {}) {
  const settings = {
    CELLCAM_LIBTORCH: libtorch.dir,
    CELLCAM_TESTS: tests ? 'ON' : 'OFF',
    CELLCAM_BENCH: bench ? 'ON' : 'OFF',
  };
  // LibTorch's DLLs share their heap with the addon only if both use the runtime's DLL.
  if (process.platform === 'win32') settings.CMAKE_MSVC_RUNTIME_LIBRARY = 'MultiThreadedDLL';
  const args = Object.entries(settings).map(([name, value]) => `--CD${name}=${value}`);
  const cache = path.join(ROOT, 'build', 'CMakeCache.txt');
  const again = existsSync(cache);
  try {
    await cmakeJs('configure', args);
  } catch (error) {
    if (!again) throw error;
    rmSync(cache);
    rmSync(path.join(ROOT, 'build', 'CMakeFiles'), { recursive: true, force: true });
    await cmakeJs('configure', args);
  }
}

async function buildByCmakeJs(libtorch) {
  await configure(libtorch);
  await cmakeJs('build', ['--target', 'cellcam', '--parallel', `${jobs()}`]);
}

/** Node's own headers beside its executable, where its distribution has them: else node-gyp downloads them. */
function headersBesideNode() {
  const prefix = path.dirname(path.dirname(process.execPath));
  return existsSync(path.join(prefix, 'include', 'node', 'common.gypi')) ? [`--nodedir=${prefix}`] : [];
}

async function buildByNodeGyp(libtorch) {
  const program = require.resolve('node-gyp/bin/node-gyp.js');
  const env = { ...process.env, LIBTORCH: libtorch.dir };
  const headers = process.env.npm_config_nodedir ? [] : headersBesideNode();
  await run(process.execPath, [program, 'configure', 'build', '--release', '--jobs', `${jobs()}`, ...headers], env);
}

const BUILDERS = { 'cmake-js': buildByCmakeJs, 'node-gyp': buildByNodeGyp };

/** Builds the addon against `libtorch` and records what it was built from. */
export async function buildAddon(libtorch, builder = hasCmake() ? 'cmake-js' : 'node-gyp') {
  if (!(builder in BUILDERS)) {
    throw new Error(`Expected one of ${Object.keys(BUILDERS).join(', ')} for --builder but received '${builder}'`);
  }
  await BUILDERS[builder](libtorch);
  if (!existsSync(ADDON)) throw new Error(`${builder} finished without making ${ADDON}`);
  const { attempts, ...origin } = libtorch;
  const platform = `${process.platform}-${process.arch}`;
  writeRecord({ libtorch: origin, builder, platform, sources: sourcesHash(), attempts });
}

/** Builds the native tests and runs them; rejects with their exit code as `status`. */
async function runTests(libtorch) {
  await configure(libtorch, { tests: true });
  await cmakeJs('build', ['--target', 'cellcam_tests', '--parallel', `${jobs()}`]);
  const name = process.platform === 'win32' ? 'cellcam_tests.exe' : 'cellcam_tests';
  const places = ['build', 'build/Release'].map((folder) => path.join(ROOT, folder, name));
  const program = places.find((place) => existsSync(place));
  if (!program) throw new Error(`the build finished without making ${places.join(' or ')}`);
  const lib = path.join(libtorch.dir, 'lib');
  const shared = process.env.CELLCAM_SHARED ?? path.join(ROOT, '..', 'shared');
  await run(program, [], {
    ...process.env,
    CELLCAM_SHARED: shared,
    PATH: `${process.env.PATH}${path.delimiter}${lib}`,
  });
}

async function buildBench(libtorch) {
  await configure(libtorch, { bench: true });
  await cmakeJs('build', ['--target', 'cellcam_bench', '--parallel', `${jobs()}`]);
}

async function main() {
  const flag = { type: 'boolean', default: false };
  const options = { tests: flag, bench: flag, builder: { type: 'string' } };
  const { values } = parseArgs({ options });
  const libtorch = await ensureLibtorch();
  console.log(`cellcam: LibTorch ${libtorch.version} (${libtorch.variant}) in ${libtorch.dir}`);
  if (values.tests) return runTests(libtorch);
  if (values.bench) return buildBench(libtorch);
  await buildAddon(libtorch, values.builder);
}

if (isMain(import.meta.url)) {
  main().catch((error) => {
    console.error(`cellcam: ${error.message}`);
    process.exitCode = typeof error.status === 'number' ? error.status : 1;
  });
}
