import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { codeOf, messageOf } from '../errors';
import { throwIfAborted } from '../options';
import { Hdf5Reader } from './hdf5';
import { type Hdf5Report, listing, tally } from './inspect_report';

/** How to look into an HDF5 file. */
export interface Hdf5InspectOptions {
  /** Also find images with the same pixels, which reads all of them; default false. */
  hash?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { path: string; done: number; total: number }) => void) | undefined;
}

const IDS_A_TURN = 64; // between two looks at the signal

interface ImageFacts {
  shape: string;
  dtype: string;
  originalSize: string;
  hash: string | undefined;
}

function factsOf(reader: Hdf5Reader, id: string, hash: boolean): ImageFacts {
  const { shape, dtype } = reader.info(id);
  const facts = {
    shape: shape.join(' × '),
    dtype,
    originalSize: reader.originalSize(id)?.join(' × ') ?? 'not stored',
  };
  if (!hash) return { ...facts, hash: undefined };
  const digest = createHash('sha256').update(`${facts.shape} ${dtype}`).update(reader.storedBytes(id)).digest('base64');
  return { ...facts, hash: digest };
}

/** Why this image cannot be read; every other error ends the inspection. */
function refusal(error: unknown): string {
  const code = codeOf(error);
  if (code === 'ERR_HDF5' || code === 'ERR_FILE_NOT_FOUND') return messageOf(error);
  throw error;
}

interface Found {
  facts: Map<string, ImageFacts>;
  unreadable: { id: string; reason: string }[];
}

async function look(reader: Hdf5Reader, ids: string[], o: Hdf5InspectOptions): Promise<Found> {
  const found: Found = { facts: new Map(), unreadable: [] };
  for (const [done, id] of ids.entries()) {
    if (done % IDS_A_TURN === 0) {
      o.onProgress?.({ path: reader.path, done, total: ids.length });
      await setImmediate();
      throwIfAborted(o.signal);
    }
    try {
      found.facts.set(id, factsOf(reader, id, o.hash ?? false));
    } catch (error) {
      found.unreadable.push({ id, reason: refusal(error) });
    }
  }
  return found;
}

function identical(facts: ReadonlyMap<string, ImageFacts>): string[][] {
  const groups = new Map<string, string[]>();
  for (const [id, { hash }] of facts) {
    const group = groups.get(hash!);
    if (group === undefined) groups.set(hash!, [id]);
    else group.push(id);
  }
  return [...groups.values()].filter((group) => group.length > 1);
}

/** The files that hold the images, and how they were found. */
function storage(reader: Hdf5Reader, ids: string[], failed: Found['unreadable']) {
  const fileOf = (id: string) => reader.fileOf(id) ?? reader.path;
  const files = [...new Set([reader.path, ...ids.map(fileOf)])];
  const missing = new Set(files.filter((file) => !existsSync(file)));
  const present = files.filter((file) => !missing.has(file));
  return {
    shards: files.length - 1,
    missingShards: listing([...missing]),
    bytes: present.reduce((sum, file) => sum + statSync(file).size, 0),
    lost: listing(failed.map(({ id }) => id).filter((id) => missing.has(fileOf(id)))),
    unreadable: listing(failed.filter(({ id }) => !missing.has(fileOf(id)))),
  };
}

async function report(reader: Hdf5Reader, ids: string[], path: string, o: Hdf5InspectOptions): Promise<Hdf5Report> {
  const { facts, unreadable } = await look(reader, ids, o);
  const images = [...facts.values()];
  return {
    kind: 'hdf5',
    path,
    images: ids.length,
    shapes: tally(images.map(({ shape }) => shape)),
    dtypes: tally(images.map(({ dtype }) => dtype)),
    originalSizes: tally(images.map(({ originalSize }) => originalSize)),
    ...storage(reader, ids, unreadable),
    ...(o.hash ? { identical: identical(facts) } : {}),
  };
}

/** @throws CellcamError ERR_FILE_NOT_FOUND, ERR_HDF5; the signal's reason when aborted */
export async function inspectHdf5(
  path: string,
  o: Hdf5InspectOptions,
): Promise<{ report: Hdf5Report; ids: Set<string> }> {
  const reader = await Hdf5Reader.open(path);
  try {
    const ids = reader.ids();
    return { report: await report(reader, ids, path, o), ids: new Set(ids) };
  } finally {
    reader.close();
  }
}
