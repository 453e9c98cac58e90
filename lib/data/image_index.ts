import { join } from 'node:path';
import type { DatasetSpec } from './dataset_spec';
import { FieldReader } from './field_reader';
import { containerPath } from './homes';
import type { LabelTable } from './labels';
import type { ImageIndex, ImageSource } from './loader';

export interface IndexOptions {
  /** Folder of the HDF5 files. */
  trainHome: string;
  /** Read the PNGs of this folder instead. */
  imagesFolder?: string;
  size: number;
  spec: DatasetSpec;
}

/**
 * Where each image of a table is read from, checked: every id is there with the right shape.
 * @throws CellcamError ERR_FILE_NOT_FOUND, ERR_HDF5
 */
export async function imageIndex(table: LabelTable, o: IndexOptions): Promise<ImageIndex> {
  const containers = [...new Set(table.ext)];
  const sources: ImageSource[] =
    o.imagesFolder === undefined
      ? containers.map((ext) => ({ kind: 'hdf5', path: containerPath(o.trainHome, ext, o.size) }))
      : containers.map(() => ({ kind: 'png', folder: join(o.imagesFolder!) }));
  const source = Int32Array.from(table.ext, (ext) => containers.indexOf(ext));
  const index: ImageIndex = { ids: table.ids, source, sources, size: o.size, spec: o.spec };
  const reader = await FieldReader.open(index);
  try {
    reader.check(table.path);
  } finally {
    reader.close();
  }
  return index;
}

/** The index of some images, in the order given. @param rows places in `index` */
export function selectImages(index: ImageIndex, rows: readonly number[]): ImageIndex {
  return {
    ...index,
    ids: rows.map((row) => index.ids[row]!),
    source: Int32Array.from(rows, (row) => index.source[row]!),
  };
}
