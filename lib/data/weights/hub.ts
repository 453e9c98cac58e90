// Weight files of the Hugging Face hub, kept in the cache that its own tools use, so that either finds what the other fetched.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, open, rename, rm, stat, symlink, copyFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { CellcamError, messageOf } from '../../errors';
import { throwIfAborted } from '../../options';

const FILE = 'model.safetensors';
const REVISION = 'main';
const TRIES = 4;
const FROM_SCRATCH = 'give a file, or train from scratch by --pretrained none';

export interface HubOptions {
  /** Default: process.env: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN and HF_HUB_OFFLINE are honoured. */
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
  onProgress?: (received: number, total: number) => void;
}

/** Whether a text looks like `owner/name` and not like a weights file. */
export function isHubId(text: string): boolean {
  return /^[\w.-]+\/[\w.-]+$/.test(text) && !/\.(safetensors|pt|pth|bin)$/.test(text);
}

function cacheFolder(env: NodeJS.ProcessEnv): string {
  const home = env['HF_HOME'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface');
  return env['HF_HUB_CACHE'] ?? join(home, 'hub');
}

/** One repository in the cache: blobs by hash, snapshots by commit that link to them, and what `main` was last. */
class CachedRepository {
  readonly folder: string;

  constructor(
    readonly id: string,
    env: NodeJS.ProcessEnv,
  ) {
    this.folder = join(cacheFolder(env), `models--${id.replaceAll('/', '--')}`);
  }

  blob(hash: string): string {
    return join(this.folder, 'blobs', hash);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit, FILE);
  }

  /** The file as it was last fetched; undefined if it never was. */
  known(): string | undefined {
    const reference = join(this.folder, 'refs', REVISION);
    if (!existsSync(reference)) return undefined;
    const path = this.snapshot(readFileSync(reference, 'utf8').trim());
    return existsSync(path) ? path : undefined;
  }

  async link(hash: string, commit: string): Promise<string> {
    const path = this.snapshot(commit);
    const reference = join(this.folder, 'refs', REVISION);
    await mkdir(dirname(path), { recursive: true });
    await mkdir(dirname(reference), { recursive: true });
    await rm(path, { force: true });
    // Windows may forbid links.
    await symlink(relative(dirname(path), this.blob(hash)), path).catch(() => copyFile(this.blob(hash), path));
    await writeFile(reference, commit);
    return path;
  }
}

/** What the hub says of a file before it is fetched. */
interface Remote {
  url: string;
  commit: string;
  /** sha256 of large files, git's sha1 of small ones. */
  hash: string;
  size: number;
}

function failure(id: string, reason: string, cause?: unknown): CellcamError {
  return new CellcamError('ERR_DOWNLOAD', `could not fetch ${FILE} of ${id}: ${reason}; ${FROM_SCRATCH}`, { cause });
}

function reasonOf(error: unknown): string {
  const { cause } = error as { cause?: unknown };
  return cause === undefined ? messageOf(error) : `${messageOf(error)} (${messageOf(cause)})`;
}

function headersOf(env: NodeJS.ProcessEnv): Record<string, string> {
  const token = env['HF_TOKEN'];
  return token ? { authorization: `Bearer ${token}` } : {};
}

function required(headers: Headers, names: string[], id: string): string {
  const value = names.map((name) => headers.get(name)).find((text) => text !== null);
  if (value === undefined || value === null) throw failure(id, `the answer lacks ${names[0]}`);
  return value;
}

async function ask(id: string, o: HubOptions, env: NodeJS.ProcessEnv): Promise<Remote> {
  const endpoint = (env['HF_ENDPOINT'] ?? 'https://huggingface.co').replace(/\/+$/, '');
  const url = `${endpoint}/${id}/resolve/${REVISION}/${FILE}`;
  // The size and hash stand in the hub's own answer, not in that of the store that it redirects to.
  const headers = { ...headersOf(env), 'accept-encoding': 'identity' };
  const answer = await fetch(url, { method: 'HEAD', headers, redirect: 'manual', signal: o.signal ?? null });
  if (answer.status === 401 || answer.status === 403)
    throw failure(id, `${answer.status}: set HF_TOKEN to one that may read it`);
  if (answer.status >= 400) throw failure(id, `${url} answered ${answer.status}`);
  const hash = required(answer.headers, ['x-linked-etag', 'etag'], id).replace(/^W\//, '').replaceAll('"', '');
  if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash)) throw failure(id, `its hash is told as '${hash}'`);
  const commit = required(answer.headers, ['x-repo-commit'], id);
  if (!/^[\w.-]+$/.test(commit)) throw failure(id, `its commit is told as '${commit}'`);
  const size = Number(required(answer.headers, ['x-linked-size', 'content-length'], id));
  if (!Number.isSafeInteger(size) || size <= 0) throw failure(id, `its size is told as ${size}`);
  return { url, commit, hash, size };
}

/** Appends to what an earlier, broken try left. */
async function receive(remote: Remote, partial: string, o: HubOptions, env: NodeJS.ProcessEnv): Promise<void> {
  const have = existsSync(partial) ? (await stat(partial)).size : 0;
  if (have === remote.size) return;
  const resumes = have > 0 && have < remote.size;
  const headers: Record<string, string> = { ...headersOf(env), 'accept-encoding': 'identity' };
  if (resumes) headers['range'] = `bytes=${have}-`;
  const answer = await fetch(remote.url, { headers, signal: o.signal ?? null });
  if (!answer.ok || answer.body === null) throw new Error(`${remote.url} answered ${answer.status}`);
  const goesOn = answer.status === 206 && resumes;
  const file = await open(partial, goesOn ? 'a' : 'w');
  try {
    let received = goesOn ? have : 0;
    for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
      await file.write(chunk);
      received += chunk.byteLength;
      if (received > remote.size) throw new Error(`more than the ${remote.size} bytes that were told came`);
      o.onProgress?.(received, remote.size);
    }
    await file.sync();
    if (received < remote.size) throw new Error(`the connection broke after ${received} of ${remote.size} bytes`);
  } finally {
    await file.close();
  }
}

async function hashOf(path: string, { hash, size }: Remote): Promise<string> {
  const digest = hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
  const file = await open(path, 'r');
  try {
    for await (const chunk of file.createReadStream({ autoClose: false })) digest.update(chunk as Buffer);
  } finally {
    await file.close();
  }
  return digest.digest('hex');
}

async function fetchBlob(
  id: string,
  remote: Remote,
  blob: string,
  o: HubOptions,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const partial = `${blob}.incomplete`;
  await mkdir(dirname(blob), { recursive: true });
  for (let attempt = 1; ; attempt++) {
    try {
      await receive(remote, partial, o, env);
      break;
    } catch (error) {
      throwIfAborted(o.signal);
      if (attempt === TRIES) throw failure(id, `${reasonOf(error)}; the next try goes on from there`, error);
    }
  }
  const found = await hashOf(partial, remote);
  if (found !== remote.hash) {
    await rm(partial, { force: true });
    throw failure(id, `Expected the hash ${remote.hash} but what came has ${found}`);
  }
  await rename(partial, blob);
}

/**
 * The path of a repository's model.safetensors, fetched unless the cache has it. A broken fetch goes on where it broke, also in a
 * later process; size and hash are checked before the file gets its name. Without a network the cached file is taken.
 * @param id such as timm/resnet18.a1_in1k
 * @throws CellcamError ERR_DOWNLOAD, also for HF_HUB_OFFLINE=1 where the cache lacks it
 */
export async function fetchFromHub(id: string, o: HubOptions = {}): Promise<string> {
  const env = o.env ?? process.env;
  const repository = new CachedRepository(id, env);
  const known = repository.known();
  if (/^(1|true|yes|on)$/i.test(env['HF_HUB_OFFLINE'] ?? '')) {
    if (known !== undefined) return known;
    throw failure(id, `HF_HUB_OFFLINE is set and ${repository.folder} does not have it`);
  }
  let remote: Remote;
  try {
    remote = await ask(id, o, env);
  } catch (error) {
    throwIfAborted(o.signal);
    if (known !== undefined) return known;
    throw error instanceof CellcamError ? error : failure(id, reasonOf(error), error);
  }
  const blob = repository.blob(remote.hash);
  if (!existsSync(blob)) await fetchBlob(id, remote, blob, o, env);
  return repository.link(remote.hash, remote.commit);
}
