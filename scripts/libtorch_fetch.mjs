// Fetches LibTorch into the user's cache folder, from the official archive or from PyTorch's wheel.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { checkSha256, download } from './download.mjs';
import { inspectLibtorch } from './libtorch_folder.mjs';
import { VERSION, archiveOf, expectedSha256, wheelArguments } from './libtorch_release.mjs';
import { unpack } from './unpack.mjs';

const WORK = '.fetching-';
const DAY = 24 * 3600 * 1000;

/** The user's cache folder: `$CELLCAM_CACHE`, else the platform's. */
export function cacheFolder(env) {
  if (env.CELLCAM_CACHE) return path.resolve(env.CELLCAM_CACHE);
  const home = os.homedir();
  if (process.platform === 'darwin') return path.join(home, 'Library', 'Caches', 'cellcam');
  if (process.platform === 'win32')
    return path.join(env.LOCALAPPDATA || path.join(home, 'AppData', 'Local'), 'cellcam');
  return path.join(env.XDG_CACHE_HOME || path.join(home, '.cache'), 'cellcam');
}

/** Where a fetched variant lies; it exists only whole. */
export function cachedFolder(variant, env) {
  return path.join(cacheFolder(env), `libtorch-${VERSION}-${variant}-${process.platform}-${process.arch}`);
}

/** Removes what fetches that were killed left behind. */
function removeStale(cache) {
  for (const name of readdirSync(cache).filter((each) => each.startsWith(WORK))) {
    const folder = path.join(cache, name);
    const age = Date.now() - (statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > DAY) rmSync(folder, { recursive: true, force: true });
  }
}

/** Gives an unpacked folder its final name. Another process may have done so first: then that one is used. */
function publish(unpacked, destination) {
  try {
    renameSync(unpacked, destination);
  } catch (error) {
    if (inspectLibtorch(destination).flaw) throw error;
  }
}

/** Runs `fill(work, unpacked)` in a folder of its own and publishes what it unpacked. Returns the LibTorch found there. */
async function fetchInto(destination, origin, fill) {
  const cache = path.dirname(destination);
  mkdirSync(cache, { recursive: true });
  removeStale(cache);
  const work = mkdtempSync(path.join(cache, WORK));
  const unpacked = path.join(work, 'unpacked');
  try {
    await fill(work, unpacked);
    const { flaw } = inspectLibtorch(unpacked);
    if (flaw) throw new Error(`what came is not LibTorch: ${flaw}`);
    writeFileSync(path.join(unpacked, 'cellcam-libtorch.json'), `${JSON.stringify({ origin }, null, 2)}\n`);
    publish(unpacked, destination);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return inspectLibtorch(destination);
}

/** Fetches the official archive of `variant`. */
export async function fetchArchive(variant, { env, log }) {
  const archive = archiveOf(variant, env);
  if (!archive) throw new Error(`none is published for ${variant} on ${process.platform} ${process.arch}`);
  log(`downloading ${archive.url}`);
  return await fetchInto(cachedFolder(variant, env), archive.url, async (work, unpacked) => {
    const file = path.join(work, archive.file);
    await download(archive.url, file, { sha256: expectedSha256(archive.file, env), log, env });
    log(`unpacking ${archive.file}`);
    await unpack(file, unpacked);
  });
}

/** Runs a program to its end; rejects with the last line that it wrote to stderr. */
async function runQuietly(program, args, env) {
  const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) return resolve();
      const lines = said.trim().split('\n');
      const error = lines.findLast((line) => /^(ERROR|.*No module named)/.test(line)) ?? lines.at(-1);
      reject(new Error(error || `${program} exited with ${code}`));
    });
  });
}

/** Fetches PyTorch's wheel of `variant` by pip; a CUDA variant with the NVIDIA wheels that it loads. */
export async function fetchWheel(variant, { env, log, python }) {
  const wanted = wheelArguments(variant);
  log(`asking pip for ${wanted.at(-1)}`);
  return await fetchInto(cachedFolder(variant, env), `pip download ${wanted.at(-1)}`, async (work, unpacked) => {
    const wheels = path.join(work, 'wheels');
    const quick = ['--retries', '1', '--timeout', '15', '--no-input', '--only-binary', ':all:'];
    await runQuietly(python, ['-m', 'pip', 'download', ...quick, '-d', wheels, ...wanted], env);
    for (const name of readdirSync(wheels).filter((each) => /^(torch|nvidia_.*)-\d.*\.whl$/.test(each))) {
      await checkSha256(path.join(wheels, name), expectedSha256(name, env));
      log(`unpacking ${name}`);
      await unpack(path.join(wheels, name), unpacked);
    }
    if (!existsSync(unpacked)) throw new Error('pip brought no torch wheel');
  });
}
