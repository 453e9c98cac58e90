import { closeSync, openSync, readSync } from 'node:fs';
import { CellcamError } from '../errors';
import { invalidArgument, requireBoolean, requireSignal, requireString } from '../options';
import { CsvTable } from './csv_table';
import { type DatasetSpec, datasetSpec, HPA } from './dataset_spec';
import { folderIds } from './dump_plan';
import { Hdf5Reader } from './hdf5';
import { type Hdf5InspectOptions, inspectHdf5 } from './inspect_hdf5';
import { compareIds, type FileReport, type IdComparison, type IdSet } from './inspect_report';
import { inspectTable } from './inspect_table';

/** How to look into a file. */
export interface InspectOptions extends Hdf5InspectOptions {
  /** Names the classes of a table; default: HPA. */
  spec?: DatasetSpec | undefined;
}

/** How to look into several. */
export interface InspectManyOptions extends InspectOptions {
  /** A file with which the IDs of each are compared, instead of with one another. */
  against?: string | undefined;
  /** A folder of PNGs with which the IDs of each are compared too. */
  imagesFolder?: string | undefined;
}

/** What several files hold, and how their IDs differ. */
export interface Inspection {
  files: FileReport[];
  comparisons: IdComparison[];
}

interface Inspected extends IdSet {
  report: FileReport;
}

const HDF5_SIGNATURE = Buffer.from('\x89HDF\r\n\x1a\n', 'latin1');

/** The first bytes of a file; none if there are none to be had, which is for its reader to say. */
function beginning(path: string): Buffer {
  const bytes = Buffer.alloc(512);
  try {
    const file = openSync(path, 'r');
    try {
      return bytes.subarray(0, readSync(file, bytes));
    } finally {
      closeSync(file);
    }
  } catch {
    return bytes.subarray(0, 0);
  }
}

function isHdf5(path: string): boolean {
  const bytes = beginning(path);
  if (/\.(h5|hdf5?)$/i.test(path) || bytes.subarray(0, 8).equals(HDF5_SIGNATURE)) return true;
  if (path.endsWith('.gz') || !bytes.includes(0)) return false;
  throw new CellcamError('ERR_TABLE', `Expected an HDF5 file or a CSV table in ${path} but it is neither`);
}

function checked(o: InspectOptions): InspectOptions & { spec: DatasetSpec } {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const { onProgress } = o;
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalidArgument('a function', 'onProgress', onProgress);
  const hash = requireBoolean(o.hash ?? false, 'hash');
  return { spec: datasetSpec(o.spec ?? HPA), hash, signal: requireSignal(o.signal), onProgress };
}

async function inspected(path: string, o: InspectOptions & { spec: DatasetSpec }): Promise<Inspected> {
  return { path, ...(isHdf5(requireString(path, 'path')) ? await inspectHdf5(path, o) : inspectTable(path, o.spec)) };
}

async function idsOf(path: string): Promise<Set<string>> {
  if (!isHdf5(requireString(path, 'against'))) return new Set(new CsvTable(path, ['ID']).ids());
  const reader = await Hdf5Reader.open(path);
  try {
    return new Set(reader.ids());
  } finally {
    reader.close();
  }
}

/**
 * Says what a file holds: an HDF5 file of images (an index of cellcam, or any with a data set an id), or a table with a
 * column ID: labels, sizes or another. Memory grows with a table, and with the number of images of an HDF5 file, not with
 * their pixels.
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_HDF5; ERR_TABLE with file and line; ERR_INVALID_ARG; the signal's reason when
 *   aborted
 */
export async function inspectFile(path: string, options: InspectOptions = {}): Promise<FileReport> {
  return (await inspected(path, checked(options))).report;
}

/**
 * `inspectFile` of each, and which IDs one has and another has not: every two files, or each and `against`, and each and the
 * folder of images. of `against` only the IDs are read.
 * @throws CellcamError as `inspectFile` does
 */
export async function inspectFiles(paths: readonly string[], options: InspectManyOptions = {}): Promise<Inspection> {
  const o = checked(options);
  if (!Array.isArray(paths) || paths.length === 0) throw invalidArgument('at least one path', 'paths', paths);
  const { against, imagesFolder } = options;
  const files: Inspected[] = [];
  for (const path of paths as string[]) files.push(await inspected(path, o));
  const other = against === undefined ? undefined : { path: against, ids: await idsOf(against) };
  const pairs = other
    ? files.map((file): [IdSet, IdSet] => [file, other])
    : files.flatMap((file, i) => files.slice(i + 1).map((later): [IdSet, IdSet] => [file, later]));
  if (imagesFolder !== undefined) {
    const folder = { path: imagesFolder, ids: new Set(await folderIds(imagesFolder, o.spec)) };
    pairs.push(...files.map((file): [IdSet, IdSet] => [file, folder]));
  }
  return { files: files.map(({ report }) => report), comparisons: pairs.map(([a, b]) => compareIds(a, b)) };
}
