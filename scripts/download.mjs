// Downloads a file under a temporary name, checks it and only then gives it its name.
/* global AbortController, fetch, setTimeout, clearTimeout */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, renameSync, rmSync, statSync } from 'node:fs';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const CONNECT_SECONDS = 10;
const STALL_SECONDS = 60;

/** A failed fetch says "fetch failed"; the reason hides in its causes. */
function reasonOf(error) {
  const cause = error?.cause;
  return cause ? `${error.message}: ${cause.code ?? cause.message}` : (error?.message ?? String(error));
}

function proxied(env) {
  return ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'].some((name) => env[name]);
}

/** Node's fetch knows no proxies before Node 24, but curl does. */
async function downloadByCurl(url, file) {
  const limits = [
    '--connect-timeout',
    `${CONNECT_SECONDS}`,
    '--speed-limit',
    '1000',
    '--speed-time',
    `${STALL_SECONDS}`,
  ];
  const child = spawn('curl', ['-fsSL', ...limits, '-o', file, url], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(said.trim() || `curl exited with ${code}`)),
    );
  });
}

/** Passes bytes on, says how far it is and calls `alive` for each chunk. */
function progress(total, log, alive) {
  let done = 0;
  let said = 0;
  return new Transform({
    transform(chunk, _encoding, next) {
      alive();
      done += chunk.length;
      const tenth = total > 50e6 ? Math.floor((10 * done) / total) : 0;
      if (tenth > said) log(`  ${10 * (said = tenth)}% of ${Math.round(total / 1e6)} MB`);
      next(null, chunk);
    },
  });
}

async function downloadByFetch(url, file, log) {
  const stop = new AbortController();
  const abort = (what, seconds) =>
    setTimeout(() => stop.abort(new Error(`${what} within ${seconds} s`)), seconds * 1000);
  let timer = abort('no answer', CONNECT_SECONDS);
  try {
    const response = await fetch(url, { signal: stop.signal, redirect: 'follow' });
    if (!response.ok) throw new Error(`HTTP ${response.status} ${response.statusText}`.trim());
    const size = Number(response.headers.get('content-length') ?? NaN);
    const alive = () => {
      clearTimeout(timer);
      timer = abort('no data', STALL_SECONDS);
    };
    await pipeline(Readable.fromWeb(response.body), progress(size, log, alive), createWriteStream(file));
    const came = statSync(file).size;
    if (!Number.isNaN(size) && came !== size) throw new Error(`expected ${size} bytes but received ${came}`);
  } finally {
    clearTimeout(timer);
  }
}

export async function sha256Of(file) {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest('hex');
}

/** Throws unless `file` has the sha256 `expected`; an undefined `expected` passes. */
export async function checkSha256(file, expected) {
  if (!expected) return;
  const came = await sha256Of(file);
  if (came !== expected) throw new Error(`refused: expected sha256 ${expected} but received ${came}`);
}

/** Downloads `url` to `file`, which exists only if all of it came and its sha256 is the expected one. */
export async function download(url, file, { sha256, log, env }) {
  const partial = `${file}.${process.pid}.part`;
  try {
    await (proxied(env) ? downloadByCurl(url, partial) : downloadByFetch(url, partial, log));
    await checkSha256(partial, sha256);
    renameSync(partial, file);
  } catch (error) {
    throw new Error(`${url}: ${reasonOf(error)}`, { cause: error });
  } finally {
    rmSync(partial, { force: true });
  }
}
