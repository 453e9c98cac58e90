/** How many there are, and the first five of them. */
export interface Listing<T = string> {
  count: number;
  first: T[];
}

/** What an HDF5 file of images holds. Keys of counts are written as people would: `512 × 512 × 4`. */
export interface Hdf5Report {
  kind: 'hdf5';
  path: string;
  /** IDs, readable or not. */
  images: number;
  /** Images of each shape, height × width × channels. */
  shapes: Record<string, number>;
  dtypes: Record<string, number>;
  /** Images of each height × width before resizing; `not stored` for those that do not say. */
  originalSizes: Record<string, number>;
  /** Files that external links lead to, there or not. */
  shards: number;
  missingShards: Listing;
  /** IDs whose shard is missing. */
  lost: Listing;
  /** Of the file and its shards on disk. */
  bytes: number;
  /** IDs that cannot be read for other reasons. */
  unreadable: Listing<{ id: string; reason: string }>;
  /** Groups of ids whose shape, dtype and pixels are the same; absent unless asked for. */
  identical?: string[][];
}

/** How a table's images share the classes. */
export interface LabelBalance {
  /** In index order; `share` is of the images with a label, so that shares of several labels add up to more than 1. */
  classes: { name: string; count: number; share: number }[];
  /** Classes without an image. */
  absent: string[];
  /** Images by their number of different labels. */
  perImage: Record<string, number>;
  ext: Record<string, number>;
  /** Rows without a label. */
  unlabelled: number;
}

/** What a table holds. */
export interface TableReport {
  kind: 'table';
  path: string;
  rows: number;
  columns: string[];
  /** Different IDs. */
  images: number;
  /** IDs of more than one row. */
  repeated: Listing;
  /** Of a table with a column Label; of rows with one ID the first counts. */
  labels?: LabelBalance;
  /** Images of each height × width, of a table with ImageHeight and ImageWidth; of rows with one ID the first counts. */
  sizes?: Record<string, number>;
}

export type FileReport = Hdf5Report | TableReport;

/** How the IDs of two files, or of a file and a folder, differ. */
export interface IdComparison {
  a: string;
  b: string;
  both: number;
  onlyA: Listing;
  onlyB: Listing;
}

const LISTED = 5;

/** Counts them and keeps the first five. */
export function listing<T>(values: readonly T[]): Listing<T> {
  return { count: values.length, first: values.slice(0, LISTED) };
}

/** How often each value is there, the most frequent first. */
export function tally(values: Iterable<string | number>): Record<string, number> {
  const counts = new Map<string | number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return Object.fromEntries([...counts].sort(([, a], [, b]) => b - a));
}

/** The IDs of a file or of a folder of images. */
export interface IdSet {
  path: string;
  ids: ReadonlySet<string>;
}

/** Which IDs only one of two has. */
export function compareIds(a: IdSet, b: IdSet): IdComparison {
  const onlyA = [...a.ids].filter((id) => !b.ids.has(id));
  const onlyB = [...b.ids].filter((id) => !a.ids.has(id));
  return { a: a.path, b: b.path, both: a.ids.size - onlyA.length, onlyA: listing(onlyA), onlyB: listing(onlyB) };
}
