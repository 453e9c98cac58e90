import { readdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { CellcamError, messageOf } from '../errors';
import {
  invalidArgument,
  requireBoolean,
  requireInteger,
  requireOneOf,
  requireSignal,
  requireString,
} from '../options';
import { checkFilePattern, type DatasetSpec, datasetSpec, FILE_PATTERN, HPA } from './dataset_spec';
import { channelFiles } from './field';
import type { FieldInfo, PixelType } from './hdf5';

/** How far a dump is. Fields that earlier runs stored are not counted. */
export interface DumpProgress {
  done: number;
  total: number;
  failed: number;
  /** The field just stored, refused or read back. */
  id: string;
  part: 'dump' | 'verify';
}

/** What `dumpImages` takes. */
export interface DumpOptions {
  /** Holds one file a channel, named by the specification's `filePattern`: grey PNG, TIFF or JPEG of 8 or 16 bit. */
  imagesFolder: string;
  /** The index; the pixels go to the folder `<hdf5Output>.shards` beside it. */
  hdf5Output: string;
  /** Height and width of the stored fields; default 512. */
  imageSize?: number;
  /** Names the channels; default HPA. */
  spec?: DatasetSpec;
  /** Names of the files, instead of the specification's. */
  filePattern?: string;
  /** `uint8` (default): floor(255·x), what training sees anyway, a quarter of the disk. `float32`: x in [0, 1]. */
  dtype?: PixelType;
  /** Which fields; default all of the folder. */
  ids?: readonly string[];
  /** A CSV table to write: `ID,ImageHeight,ImageWidth` of all stored fields before resizing. */
  metaOutput?: string;
  /** Fields a shard; default 512. What a killed process loses at most. */
  shardSize?: number;
  /** Fields in flight at once, each with all its pixels in memory; default one more than there are cores. */
  workers?: number;
  /** Afterwards read all that is stored back and compare it with the hashes of what was written. */
  verify?: boolean;
  signal?: AbortSignal;
  onProgress?: (progress: DumpProgress) => void;
}

/** Checked options, with every default filled in. */
export interface DumpPlan {
  imagesFolder: string;
  output: string;
  spec: DatasetSpec;
  layout: FieldInfo;
  ids: readonly string[] | undefined;
  metaOutput: string | undefined;
  shardSize: number;
  workers: number;
  verify: boolean;
  signal: AbortSignal | undefined;
  onProgress: ((progress: DumpProgress) => void) | undefined;
}

function requireIds(value: unknown): readonly string[] {
  if (!Array.isArray(value)) throw invalidArgument('an array of ids', 'ids', value);
  value.forEach((id: unknown, i) => {
    if (typeof id !== 'string' || !/^[^/\\]+$/.test(id))
      throw invalidArgument('an id without slashes', `ids[${i}]`, id);
  });
  return value as string[];
}

/** @throws CellcamError ERR_INVALID_ARG */
export function dumpPlan(o: DumpOptions): DumpPlan {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const given = datasetSpec(o.spec ?? HPA);
  const spec = o.filePattern === undefined ? given : { ...given, filePattern: checkFilePattern(o.filePattern) };
  const size = requireInteger(o.imageSize ?? 512, 'imageSize', 1, 16384);
  const dtype = requireOneOf(o.dtype ?? 'uint8', 'dtype', ['uint8', 'float32'] as const);
  if (o.onProgress !== undefined && typeof o.onProgress !== 'function') {
    throw invalidArgument('a function', 'onProgress', o.onProgress);
  }
  return {
    imagesFolder: requireString(o.imagesFolder, 'imagesFolder'),
    output: resolve(requireString(o.hdf5Output, 'hdf5Output')),
    spec,
    layout: { shape: [size, size, spec.channels.length], dtype },
    ids: o.ids === undefined ? undefined : requireIds(o.ids),
    metaOutput: o.metaOutput === undefined ? undefined : resolve(requireString(o.metaOutput, 'metaOutput')),
    shardSize: requireInteger(o.shardSize ?? 512, 'shardSize', 1),
    workers: requireInteger(o.workers ?? availableParallelism() + 1, 'workers', 1),
    verify: requireBoolean(o.verify ?? false, 'verify'),
    signal: requireSignal(o.signal),
    onProgress: o.onProgress,
  };
}

/**
 * The ids of a folder: every field of which at least one channel is there. Ascending.
 * @throws CellcamError ERR_FILE_NOT_FOUND for a folder that is missing or has no images
 */
export async function folderIds(folder: string, spec: DatasetSpec): Promise<string[]> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected a folder of images in ${folder}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const { channels, filePattern = FILE_PATTERN } = spec;
  const ids = channels.flatMap(({ suffix }) => {
    const [before = '', after = ''] = filePattern.replace('{channel}', () => suffix).split('{id}');
    const of = (name: string): boolean =>
      name.length > before.length + after.length && name.startsWith(before) && name.endsWith(after);
    return names.filter(of).map((name) => name.slice(before.length, name.length - after.length));
  });
  if (ids.length > 0) return [...new Set(ids)].sort();
  const example = channelFiles('', '<id>', spec).join(', ');
  throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected images ${example} in ${folder} but found none`);
}

/** The ids to dump, ascending. @throws CellcamError ERR_FILE_NOT_FOUND for a folder that is missing or has no images */
export async function wantedIds({ imagesFolder, spec, ids }: DumpPlan): Promise<string[]> {
  const present = await folderIds(imagesFolder, spec);
  return ids === undefined ? present : [...new Set(ids)].sort();
}
