import { existsSync, realpathSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import { CellcamError } from '../errors';
import { throwIfAborted } from '../options';
import { type DumpOptions, type DumpPlan, dumpPlan, wantedIds } from './dump_plan';
import { writeDurably, writeError } from './durable';
import { channelFiles } from './field';
import { Hdf5Reader } from './hdf5';
import { inOrder, refusal } from './in_order';
import type { ManifestEntry } from './manifest';
import { readImageSize } from './png';
import { readResizedField } from './resize';
import { ShardStore } from './shard_store';

export type { DumpOptions, DumpProgress } from './dump_plan';

/** What became of a dump. */
export interface DumpResult {
  written: number;
  /** Already stored by earlier runs. */
  skipped: number;
  /** Refused fields, by ascending id. */
  failed: { id: string; reason: string }[];
  /** With `verify`: stored fields that did not read back as they were written. The same dump again stores them anew. */
  damaged?: string[];
}

function refuseOutput(path: string, why: string): never {
  throw new CellcamError(
    'ERR_HDF5',
    `Expected an index of cellcam or no file in ${path} but it is another HDF5 file, ${why}; choose another output`,
  );
}

/** Whether the output is an HDF5 file of other making that holds every wanted id; refuses one that does not. */
async function isCompleteAlready({ output, layout }: DumpPlan, wanted: string[]): Promise<boolean> {
  if (!existsSync(output)) return false;
  const reader = await Hdf5Reader.open(output);
  try {
    const first = reader.ids()[0];
    if (first === undefined || dirname(reader.fileOf(first)!) === ShardStore.folderOf(output)) return false; // our own
    const missing = wanted.filter((id) => !reader.has(id));
    if (missing.length > 0)
      refuseOutput(output, `which lacks ${missing.length} of ${wanted.length} images, such as '${missing[0]}'`);
    const { shape } = reader.info(wanted[0]!); // uint8 or float32: training sees the same
    if (String(shape) !== String(layout.shape)) refuseOutput(output, `whose images have shape (${shape.join(', ')})`);
    return true;
  } finally {
    reader.close();
  }
}

async function dumpInto(store: ShardStore, ids: string[], plan: DumpPlan): Promise<DumpResult> {
  const result: DumpResult = { written: 0, skipped: 0, failed: [] };
  const { imagesFolder, spec, layout } = plan;
  const resized = (id: string) => readResizedField(imagesFolder, id, spec, layout.shape[0], layout.dtype);
  for await (const outcome of inOrder(ids, plan.workers, resized, plan.signal)) {
    const id = outcome.item;
    if ('error' in outcome) {
      result.failed.push({ id, reason: refusal(outcome.error) });
    } else {
      await store.add(id, outcome.value.pixels, outcome.value.original);
      result.written++;
    }
    const failed = result.failed.length;
    plan.onProgress?.({ part: 'dump', done: result.written + failed, total: ids.length, failed, id });
  }
  return result;
}

/** Dumps what is missing. Whatever ends it, fields that were finished are kept. */
async function dumpMissing(store: ShardStore, wanted: string[], plan: DumpPlan): Promise<DumpResult> {
  const missing = wanted.filter((id) => !store.has(id));
  try {
    const result = await dumpInto(store, missing, plan);
    await store.close(plan.spec);
    return { ...result, skipped: wanted.length - missing.length };
  } catch (error) {
    await store.finishShard().catch(() => undefined); // the first error is the one to tell
    throw error;
  }
}

async function writeMeta(
  path: string,
  fields: Pick<ManifestEntry, 'id' | 'size'>[],
  { imagesFolder, spec }: DumpPlan,
): Promise<void> {
  const rows: (string | number)[][] = [];
  for (const { id, size } of fields)
    rows.push([id, ...(size ?? (await readImageSize(channelFiles(imagesFolder, id, spec)[0]!)))]);
  await writeDurably(path, stringify([['ID', 'ImageHeight', 'ImageWidth'], ...rows]));
}

/** Reports how far reading back is. */
function verifyProgress(plan: DumpPlan, total: number): (id: string) => void {
  let done = 0;
  return (id) => {
    throwIfAborted(plan.signal);
    plan.onProgress?.({ part: 'verify', done: ++done, total, failed: 0, id });
  };
}

function verified(store: ShardStore, plan: DumpPlan): Promise<string[]> {
  return store.verify(verifyProgress(plan, store.ids().length));
}

/** The ids of a file of other making that cannot be read. */
async function unreadable(path: string, ids: string[], plan: DumpPlan): Promise<string[]> {
  const onField = verifyProgress(plan, ids.length);
  const reader = await Hdf5Reader.open(path);
  try {
    return ids.filter((id) => {
      onField(id);
      return !reader.isIntact(id);
    });
  } finally {
    reader.close();
  }
}

async function createFolder(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => {
    throw writeError(path, error);
  });
}

/** The output without symbolic links: links in an index are relative to where it really lies. */
function realOutput(path: string): string {
  return existsSync(path) ? realpathSync(path) : join(realpathSync(dirname(path)), basename(path));
}

/**
 * Dumps fields of grey PNGs into HDF5: normalised, resized, one data set (imageSize, imageSize, channels) an id.
 *
 * The output is a small index of external links; the pixels lie in `<hdf5Output>.shards`, whose files appear only when they are
 * whole. So a run that was killed or aborted goes on with what is missing, and a finished one finds nothing to do. A field whose
 * files are missing, damaged, in colour or of unequal sizes is refused and listed; the others go on. Order and contents do not
 * depend on the number of workers. `<hdf5Output>.manifest.json` lists sizes and hashes. Decoding and resizing run in libuv's pool: set UV_THREADPOOL_SIZE for more than four cores.
 * @throws CellcamError ERR_INVALID_ARG, ERR_FILE_NOT_FOUND (no images), ERR_HDF5 (an output that cannot be continued), ERR_WRITE;
 *   the signal's reason when aborted, with finished fields kept
 */
export async function dumpImages(options: DumpOptions): Promise<DumpResult> {
  const plan = dumpPlan(options);
  throwIfAborted(plan.signal);
  const wanted = await wantedIds(plan);
  if (plan.metaOutput) await createFolder(plan.metaOutput);
  await createFolder(plan.output);
  plan.output = realOutput(plan.output);
  if (await isCompleteAlready(plan, wanted)) {
    if (plan.metaOutput)
      await writeMeta(
        plan.metaOutput,
        wanted.map((id) => ({ id })),
        plan,
      );
    const nothing: DumpResult = { written: 0, skipped: wanted.length, failed: [] };
    return plan.verify ? { ...nothing, damaged: await unreadable(plan.output, wanted, plan) } : nothing;
  }
  const store = await ShardStore.open(plan.output, plan.layout, plan.shardSize);
  const result = await dumpMissing(store, wanted, plan);
  if (plan.metaOutput && store.ids().length > 0) await writeMeta(plan.metaOutput, await store.entries(), plan);
  return plan.verify ? { ...result, damaged: await verified(store, plan) } : result;
}
